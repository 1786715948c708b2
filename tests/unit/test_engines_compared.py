"""Engines side by side in the report: which cells are compared, what makes that unfair, and whether answers are the same tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltrepro.measure.records import read_campaign
from meltrepro.report import engines, fairness
from meltrepro.report.figures.engines import speeds
from meltrepro.report.read import read_results
from meltrepro.report.results import CellResult, TurnResult
from meltrepro.report.tables import engines as tables
from meltrepro.report.values import Absent, Median, Table, Tags, Word
from tests.support.campaigns import Cell, Trial, Turn, build_campaign
from tests.support.reports import HOST, NEW, PHONE, answers, cell, engine, lost, results
from tests.support.reports import engines as side_by_side

OURS = engine("q4_0", "onnxruntime", "1.29.0", 1)
REFERENCE = replace(
    engine("q4_0", "llama.cpp", NEW, 0),
    ran_as={**OURS.ran_as, "effective.flash_attention": "on"},
    model_bytes=OURS.model_bytes,
    turns=OURS.turns,
)
"""Alike in everything but the engine."""


def rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip((column.key for column in table.columns), row, strict=True)) for row in table.rows]


def with_prompts(of: CellResult, *counts: tuple[int, int, int]) -> CellResult:
    """With prompts of so many tokens: conversation, turn, count."""
    return replace(of, turns=tuple(TurnResult(0, c, i, 0.0, n, 8, 100, 50.0, 20.0, n, 7) for c, i, n in counts))


def said(cell: CellResult, reference: CellResult) -> dict[str, str]:
    return dict(fairness.unfair(cell, reference))


# -- rules --------------------------------------------------------------------------------------------------------


def test_nothing_is_said_of_cells_that_are_alike() -> None:
    assert said(OURS, REFERENCE) == {}


def test_every_rule_has_a_case_here() -> None:
    assert set(fairness.RULES) == {*ONE_OFF, "tokenizer", "BOS"}


ONE_OFF: Mapping[str, tuple[dict[str, Any], str]] = {
    "bits a weight": (
        {"model_bytes": int(1.2 * (OURS.model_bytes or 0))},
        f"its q4_0 takes 6.224 bits a weight, that of llama.cpp {NEW} 5.187: 20% more",
    ),
    "threads": ({"threads": 1}, f"it computes with 1 thread, llama.cpp {NEW} with 2"),
    "waiting threads": (
        {"ran_as": {**OURS.ran_as, "effective.spinning": False}},
        f"its threads sleep between operators, those of llama.cpp {NEW} wait busily between operators",
    ),
    "bound threads": (
        {"ran_as": {**OURS.ran_as, "effective.enable_cpu_pinning": True}},
        f"onnxruntime 1.29.0 binds each thread to a CPU, llama.cpp {NEW} does not or does not tell",
    ),
    "precision": (
        {"ran_as": {**OURS.ran_as, "effective.inference_precision": "bf16"}},
        f"it computes in bf16, llama.cpp {NEW} in what it does not tell",
    ),
    "KV cache": (
        {"ran_as": {**OURS.ran_as, "effective.cache_types": "f16/f16"}},
        f"it keeps keys and values as f16/f16, llama.cpp {NEW} as f32/f32",
    ),
    "flash attention": (
        {"ran_as": {**OURS.ran_as, "effective.flash_attention": "off"}},
        f"its flash attention is off, that of llama.cpp {NEW} on",
    ),
    "options": (
        {"framework": "llama.cpp+kv_type=q8_0+ubatch=64"},
        "it is asked for kv_type=q8_0 and ubatch=64, the other for nothing more",
    ),
    "sampling": (
        {"options": {**OURS.options, "sampling.greedy": "false", "sampling.top_k": 40}},
        "sampling.greedy false against true, sampling.top_k 40 against not set",
    ),
    "request": ({"options": {**OURS.options, "context": 1024}}, "context 1024 against 512"),
    "padded head": ({"vocabulary": 49_280}, f"it computes 49,280 logits a token, llama.cpp {NEW} 49,152"),
    "GPU": ({"accelerated": True}, f"onnxruntime 1.29.0 on GPU computes on a GPU, llama.cpp {NEW} does not"),
}


@pytest.mark.parametrize("rule", ONE_OFF)
def test_what_is_not_alike_is_said_and_nothing_else(rule: str) -> None:
    change, words = ONE_OFF[rule]
    assert said(replace(OURS, **change), REFERENCE) == {rule: words}


def test_a_tenth_of_the_bits_is_no_matter_and_unknown_sizes_are_none() -> None:
    within = replace(OURS, model_bytes=int(1.09 * (OURS.model_bytes or 0)))
    assert said(within, REFERENCE) == said(replace(OURS, model_bytes=None), REFERENCE) == {}
    less = said(replace(OURS, model_bytes=int(0.8 * (OURS.model_bytes or 0))), REFERENCE)
    assert less["bits a weight"].endswith("20% less")


def test_threads_are_those_that_an_engine_says_it_uses() -> None:
    busy = replace(OURS, ran_as={**OURS.ran_as, "effective.threads": 4})
    assert said(busy, REFERENCE) == {"threads": f"it computes with 4 threads, llama.cpp {NEW} with 2"}


def test_an_engine_that_does_not_tell_how_its_threads_wait() -> None:
    silent = replace(REFERENCE, ran_as={"effective.cache_types": "f32/f32"})
    assert said(OURS, silent)["waiting threads"].endswith("wait in a way that it does not tell")
    assert said(replace(OURS, ran_as={}), replace(REFERENCE, ran_as={})) == {}


def test_floats_of_32_bits_are_what_is_expected_of_an_engine_that_says_nothing() -> None:
    floats, halves = ({**OURS.ran_as, "effective.computed_in": name} for name in ("f32", "f16"))
    assert said(replace(OURS, ran_as=floats), REFERENCE) == {}
    ours, theirs = replace(OURS, ran_as=floats), replace(REFERENCE, ran_as=halves)
    assert said(ours, theirs) == {"precision": f"it computes in f32, llama.cpp {NEW} in f16"}


def test_other_tokenizers_are_told_by_name_or_by_their_prompts() -> None:
    named = [replace(one, ran_as={"effective.tokenizer": name}) for one, name in ((OURS, "a"), (REFERENCE, "b"))]
    assert said(*named) == {"tokenizer": f"its tokenizer is a, that of llama.cpp {NEW} is b"}
    ours, theirs = with_prompts(OURS, (0, 0, 27), (0, 1, 30)), with_prompts(REFERENCE, (0, 0, 27), (0, 1, 32))
    assert said(ours, theirs) == {
        "tokenizer": f"of the same text, its prompt 2 of conversation 1 has 30 tokens, with llama.cpp {NEW} 32"
    }


def test_one_token_more_at_the_begin_of_each_conversation_is_a_bos_token() -> None:
    ours = with_prompts(OURS, (0, 0, 27), (0, 1, 30), (1, 0, 12))
    theirs = with_prompts(REFERENCE, (0, 0, 28), (0, 1, 30), (1, 0, 13))
    bos = f"llama.cpp {NEW} puts one token more (BOS) before each conversation than onnxruntime 1.29.0"
    assert said(ours, theirs) == {"BOS": bos}
    once = with_prompts(REFERENCE, (0, 0, 28), (0, 1, 30), (1, 0, 12))
    assert said(ours, once).keys() == {"tokenizer"}


# -- what is compared ---------------------------------------------------------------------------------------------


def test_engines_stand_together_on_one_device_with_one_model_and_workload() -> None:
    made = results([*side_by_side(PHONE), *side_by_side(HOST), cell("smollm2-135m", "q4_0", 1.35e8)])
    (real, virtual) = engines.groups(made)
    assert {one.device for one in real} == {HOST}
    assert {one.device for one in virtual} == {PHONE}
    assert [(one.quantization, one.framework) for one in real] == [
        ("q4_0", "llama.cpp"),
        ("q4_0", "onnxruntime"),
        ("int4", "onnxruntime"),
        ("q8_0", "llama.cpp"),
        ("q8_0", "onnxruntime"),
    ]
    assert engines.names(real) == (f"llama.cpp {NEW}", "onnxruntime 1.29.0")


def test_two_releases_of_one_engine_are_no_comparison_of_engines() -> None:
    made = results([engine("q4_0", "llama.cpp", release, 0) for release in ("2024-02-27", NEW)])
    assert engines.groups(made) == []
    assert (
        tables.engines(made).reason
        == tables.warnings(made).reason
        == "no model was measured with two engines on one device"
    )


def test_the_first_engine_of_the_manifest_is_the_reference_within_a_campaign() -> None:
    third = engine("q4_0", "third", "1", 2)
    elsewhere = [replace(one, campaign="x-other") for one in (OURS, REFERENCE)]
    found = list(engines.pairs(results([third, OURS, REFERENCE, *elsewhere])))
    assert {(pair.cell.framework, pair.cell.campaign == pair.reference.campaign) for pair in found} == {
        ("onnxruntime", True),
        ("third", True),
    }
    assert {pair.reference.framework for pair in found} == {"llama.cpp"}
    assert len(found) == 3
    (across,) = engines.pairs(results([OURS, elsewhere[1]]))
    assert across.reference is elsewhere[1], "of another campaign where its own has none"


def test_where_the_first_engine_lacks_a_scheme_the_next_is_the_reference() -> None:
    made = results([REFERENCE, engine("int4", "onnxruntime", "1", 1), engine("int4", "third", "1", 2)])
    (pair,) = engines.pairs(made)
    assert (pair.cell.framework, pair.reference.framework) == ("third", "onnxruntime")


# -- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantization", "same"),
    [
        *((name, True) for name in ("f16", "f32", "bf16", "as-is", "q4_0", "q8_0", "q4_K")),
        *((name, False) for name in ("int4", "int8", "q4f16_1", "q0f32")),
    ],
)
def test_only_names_of_codes_mean_the_same_weights(quantization: str, same: bool) -> None:
    assert engines.same_codes(replace(OURS, quantization=quantization)) is same


def check(ours: CellResult, theirs: CellResult = REFERENCE) -> engines.TokenCheck:
    (found,) = engines.token_checks(results([theirs, ours]))
    return found


def test_equal_answers() -> None:
    found = check(OURS)
    assert found.same_prompts
    assert (found.answers, found.equal_answers, found.tokens, found.equal_tokens) == (3, 3, 7, 7)
    assert found.parting is None


def test_what_follows_a_difference_is_not_compared() -> None:
    found = check(replace(OURS, answers=answers([[7, 5, 9], [1, 1]], [[1, 2]])))
    assert (found.answers, found.equal_answers, found.tokens, found.equal_tokens) == (2, 1, 5, 3)
    assert found.parting == engines.Parting(1, 1, 2, (5, 8), (None, None), ("…word-5 word-9", "…word-8 word-9"))


def test_how_near_two_tokens_were_where_answers_part() -> None:
    ours = tuple(replace(each, margins=(1.5, 0.25, 2.0)) for each in answers([[7, 5, 9]]))
    theirs = tuple(replace(each, margins=(1.25,)) for each in answers([[7, 8, 9]]))
    found = check(replace(OURS, answers=ours), replace(REFERENCE, answers=theirs))
    assert found.parting is not None and found.parting.margins == (0.25, None)
    row = rows(tables.tokens(results([found.pair.reference, found.pair.cell])))[0]
    assert (row["margin"], row["reference_margin"]) == (0.25, None)


def test_an_answer_that_ends_earlier() -> None:
    found = check(replace(OURS, answers=answers([[7, 8, 9], [7]], [[1, 2]])))
    assert found.parting is not None
    assert (found.parting.turn, found.parting.token, found.parting.ids) == (2, 2, (None, 8))
    row = rows(tables.tokens(results([REFERENCE, found.pair.cell])))[0]
    assert row["first_difference"] == "conversation 1, answer 2, token 2: the end against 8"


def test_texts_are_cut_to_what_is_worth_reading() -> None:
    long = replace(answers([[1]])[0], text="x" * 60 + "A" + "y" * 60)
    other = replace(long, token_ids=(2,), text="x" * 60 + "B")
    found = check(replace(OURS, answers=(long,)), replace(REFERENCE, answers=(other,)))
    assert found.parting is not None
    assert found.parting.texts == ("…" + "x" * 20 + "A" + "y" * 19 + "…", "…" + "x" * 20 + "B")


def test_other_prompts_are_a_bad_sign() -> None:
    ours = with_prompts(OURS, (0, 0, 27), (0, 1, 30))
    row = rows(tables.tokens(results([with_prompts(REFERENCE, (0, 0, 27), (0, 1, 32)), ours])))[0]
    assert row["prompt_tokens"] == Word("27, 30 against 27, 32", "bad")


def test_own_schemes_and_random_sampling_are_not_compared() -> None:
    own = [replace(one, quantization="int4") for one in (REFERENCE, OURS)]
    drawn = [replace(one, answers=()) for one in (REFERENCE, OURS)]
    for cells in (own, drawn):
        assert tables.tokens(results(cells)).reason == "no two engines answered greedily with the same weights"


# -- tables and figure --------------------------------------------------------------------------------------------


def test_the_table_has_every_cell_that_is_compared_with_what_it_costs() -> None:
    found = rows(tables.engines(results(side_by_side(HOST))))
    assert len(found) == 5
    row = found[0]
    assert row["bits_per_weight"] == pytest.approx(4.55, abs=0.01)
    assert isinstance(row["load_s"], Median)
    assert row["energy_per_token_j"] == Absent("the device shows no power")
    assert row["quality"] == Absent("these weights were not scored")


def test_a_warning_stands_once_for_all_schemes_that_it_concerns() -> None:
    found = rows(tables.warnings(results([*side_by_side(HOST), *side_by_side(PHONE, speed=0.02)])))
    kv = [row for row in found if row["warning"] == "KV cache"]
    assert [(row["device"], row["tags"], row["quantizations"]) for row in kv] == [
        ("host", Tags(()), "q4_0, q8_0"),
        ("phone", Tags(("virtual",)), "q4_0, q8_0"),
    ]
    assert {row["reference"] for row in found} == {f"llama.cpp {NEW}"}


def test_what_speeds_are_worth_is_no_matter_of_how_engines_work() -> None:
    """Repetitions that disagree are marked where their speeds are, and a warning is not told twice for them."""
    cells = [replace(one, state="invalid" if one.quantization == "q8_0" else one.state) for one in side_by_side(HOST)]
    made = results(cells)
    assert [row["quantizations"] for row in rows(tables.warnings(made)) if row["warning"] == "KV cache"] == [
        "q4_0, q8_0"
    ]
    assert {row["tags"] for row in rows(tables.tokens(made))} == {Tags(())}
    assert {row["quantization"] for row in rows(tables.engines(made)) if row["tags"] == Tags(("invalid",))} == {"q8_0"}
    assert ">q8_0 (invalid)<" in str(speeds(made).svg)


def test_a_fair_comparison_is_called_one() -> None:
    table = tables.warnings(results([REFERENCE, OURS]))
    assert (table.gap, table.reason) == ("NOTHING", "of all that records tell, nothing differs but the engine")


def test_engines_without_a_scheme_in_common() -> None:
    made = results([REFERENCE, replace(OURS, quantization="int4")])
    assert len(tables.engines(made).rows) == 2
    assert tables.warnings(made).reason == "no quantization was measured with two engines"


def test_without_engines_to_compare_the_reason_of_what_is_missing_is_told() -> None:
    made = results([lost("a", "q4_0", "failed", "crashed")])
    for table in (tables.engines(made), tables.warnings(made), tables.tokens(made)):
        assert "crashed" in str(table.reason)
    assert "crashed" in str(speeds(made).reason)


def test_real_and_virtual_devices_have_panels_of_their_own() -> None:
    svg = str(speeds(results([*side_by_side(HOST), *side_by_side(PHONE, speed=0.02)])).svg)
    for title in ("host, smollm2-135m, chat: generation", "phone, smollm2-135m, chat: prefill"):
        assert svg.count(title) == 1
    assert svg.count(">virtual device<") == 2


def test_a_figure_needs_bits() -> None:
    made = results([replace(one, parameters=None) for one in side_by_side(HOST)])
    assert speeds(made).reason == "the records do not say how many weights there are"


# -- records ------------------------------------------------------------------------------------------------------


def test_answers_of_records_are_compared(tmp_path: Path) -> None:
    """Two engines whose second answers part in their third token; the second engine says how it works."""
    same, other = Turn(gaps_ns=(20_000_000,) * 5), Turn(gaps_ns=(20_000_000,) * 5, first_id=300)
    told = {"spinning": True, "cache_types": "f32/f32"}
    folder = build_campaign(
        tmp_path,
        [
            Cell("q4_0", trial=Trial([[same, same]], effective={"cache_types": "f16/f16"})),
            Cell("q4_0", framework="onnxruntime", release="1.29.0", trial=Trial([[same, other]], effective=told)),
        ],
    )
    made = read_results([read_campaign(folder)])
    assert [(one.rank, one.threads, one.vocabulary) for one in made.cells] == [(0, 2, 49_152), (1, 2, 49_152)]
    (found,) = engines.token_checks(made)
    assert (found.answers, found.equal_answers, found.equal_tokens) == (2, 1, 6)
    assert found.parting is not None
    assert (found.parting.turn, found.parting.token, found.parting.ids) == (2, 1, (300, 100))
    assert {row["warning"] for row in rows(tables.warnings(made))} == {"waiting threads", "KV cache"}
