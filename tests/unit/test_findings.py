"""Every finding on tables where it holds, where it fails, and that cannot tell."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltrepro.report.checks import check_scores, scores_of
from meltrepro.report.findings.cells import unquantised
from meltrepro.report.findings.energy import watts
from meltrepro.report.findings.model import Finding, Verdict
from meltrepro.report.findings.registry import DEFINITIONS, document, evaluate, find, tally
from meltrepro.report.findings.text import as_json, as_text
from meltrepro.report.results import CellResult, TurnResult
from tests.support.results import BOARD, HOST, OTHER, PHONE, cell, operators, scores, table, turns, virtual

ENERGY = "energy_per_token_j"
CHARGE = {
    "prefill_charge_mah": 20.0,
    "generation_charge_mah": 80.0,
    "turns": 10.0,
    "prompt_tokens": 200.0,
    "generated_tokens": 210.0,
    "prefill_tps": 10.0,
}
MICRO, LONG = turns([10.0] * 2, past=80), turns([10.0] * 2, past=800)


@dataclass(frozen=True)
class Case:
    """Cells by what they are to show."""

    holds: tuple[CellResult, ...]
    fails: tuple[CellResult, ...]
    lacks: tuple[CellResult, ...]
    missing: str
    """What the reason must name."""


def sizes(*speeds: float) -> tuple[CellResult, ...]:
    return tuple(cell(f"m{i}", speed=speed, size=10**9 * 2**i) for i, speed in enumerate(speeds))


def energies(*values: float) -> tuple[CellResult, ...]:
    return tuple(
        cell(f"m{i % 3}", f"q{4 + i // 3}_0", size=10**9 * (1 + i), metrics={ENERGY: value})
        for i, value in enumerate(values)
    )


def sustained(first: float, last: float, *, grow: int) -> tuple[TurnResult, ...]:
    return turns([first] * 16 + [last] * 16, grow=grow, n_gen=60)


def several(*conversations: list[float]) -> tuple[TurnResult, ...]:
    return tuple(turn for i, speeds in enumerate(conversations) for turn in turns(speeds, conversation=i, n_gen=60))


def modes(*points: tuple[float, float]) -> tuple[CellResult, ...]:
    names = ("15W", "30W", "50W", "MAXN")
    return tuple(
        cell(device=replace(BOARD, power_mode=name), speed=speed, metrics={ENERGY: energy})
        for name, (speed, energy) in zip(names, points, strict=False)
    )


def powers(prefill: float, generation: float, **more: float) -> CellResult:
    return cell(metrics={"prefill_power_w": prefill, "generation_power_w": generation, **more})


def seven(quantization: str, **fields: Any) -> CellResult:
    return cell("llama-2-7b", quantization, parameters=6.74e9, **fields)


SLOW_START = [10.0, 9.0, 8.1, 7.0, 6.2]
FLAT = [10.0, 10.1, 9.9, 10.0, 10.05]
CASES = {
    "F1": Case(sizes(40, 20, 10), sizes(12, 10, 11), sizes(40, 20), "3 models"),
    "F2": Case(
        (cell(speed=10, metrics={"prefill_tps": 100}, turns=turns([10.0, 12.0], prefill=90.0)),),
        (cell(speed=10, metrics={"prefill_tps": 15}, turns=turns([10.0, 12.0], prefill=15.0)),),
        (cell(speed=10, metrics={"prefill_tps": 100}, turns=turns([10.0], n_prompt=3)),),
        "16 tokens",
    ),
    "F3": Case(
        (cell(speed=10), cell(speed=30, device=OTHER)),
        (cell(speed=10), cell(speed=12, device=OTHER)),
        (cell(speed=10), cell("n", speed=12, device=OTHER)),
        "two devices",
    ),
    "F4": Case(
        (cell(quantization="q3_K", speed=10, size=300), cell(quantization="q4_K", speed=10, size=400)),
        (cell(quantization="q3_K", speed=20, size=300), cell(quantization="q4_K", speed=10, size=400)),
        (cell(quantization="q3_K", speed=10, size=398), cell(quantization="q4_K", speed=10, size=400)),
        "3 and in 4 bits",
    ),
    "F5": Case(
        (seven("q4_0", size=3_800_000_000), seven("f16", state="skipped", cause="memory")),
        (seven("q4_0", size=3_800_000_000), seven("f16", size=13_480_000_000)),
        (cell("small", parameters=1e8, size=60_000_000),),
        "larger one",
    ),
    "F6": Case(
        tuple(cell(quantization=q, scores=scores(k)) for q, k in (("f16", 600), ("q4_K", 580), ("q3_K", 500))),
        tuple(cell(quantization=q, scores=scores(k)) for q, k in (("f16", 600), ("q4_K", 601), ("q3_K", 602))),
        tuple(cell(quantization=q, scores=scores(k)) for q, k in (("f16", 600), ("q4_K", 580))),
        "4 bits and in 3",
    ),
    "F7": Case(
        (
            cell("s", "f16", size=1000, parameters=500, scores=scores(400)),
            cell("l", "q4_0", size=1100, parameters=2000, scores=scores(500)),
        ),
        (
            cell("s", "f16", size=1000, parameters=500, scores=scores(500)),
            cell("l", "q4_0", size=1100, parameters=2000, scores=scores(400)),
        ),
        (
            cell("s", "f16", size=1000, parameters=500, scores=scores(400)),
            cell("l", "q4_0", size=2100, parameters=4000, scores=scores(500)),
        ),
        "a fifth",
    ),
    "F8": Case(
        (cell(operators=operators(ffn_up=0.6, attn_q=0.3, kq=0.05)),),
        (cell(operators=operators(ffn_up=0.5, kq=0.4)),),
        (cell(speed=10),),
        "operators",
    ),
    "F9": Case(
        (
            cell(workload="short", operators=operators(ffn_up=0.9, kq=0.05), turns=MICRO),
            cell(workload="long", operators=operators(ffn_up=0.7, kq=0.2), turns=LONG),
        ),
        (cell(workload="short", operators=operators(ffn_up=0.6, kq=0.3), turns=MICRO),),
        (cell(workload="long", operators=operators(ffn_up=0.7, kq=0.2), turns=LONG),),
        "256 tokens",
    ),
    "F10": Case(energies(1, 2, 3, 4), energies(4, 3, 2, 1), (cell(speed=10),), "no power"),
    "F11": Case(
        (cell(speed=10, metrics={ENERGY: 2.0}), cell(release="2024", speed=5, metrics={ENERGY: 3.0})),
        (cell(speed=10, metrics={ENERGY: 3.0}), cell(release="2024", speed=5, metrics={ENERGY: 2.0})),
        (cell(speed=10, metrics={ENERGY: 2.0}),),
        "two frameworks",
    ),
    "F12": Case(
        (cell(device=PHONE, metrics=CHARGE),),
        (cell(device=PHONE, metrics={**CHARGE, "generation_charge_mah": 8000.0}),),
        (cell(device=replace(PHONE, battery_mah=None), metrics=CHARGE),),
        "capacity",
    ),
    "F13": Case(
        (cell(device=PHONE, speed=1, metrics=CHARGE),),
        (cell(device=PHONE, speed=1, metrics={**CHARGE, "generation_charge_mah": 1.0, "prefill_charge_mah": 1.0}),),
        (cell(device=PHONE, speed=1),),
        "current",
    ),
    "F14": Case(
        (cell(speed=10, turns=sustained(20, 10, grow=0)),),
        (cell(speed=10, turns=sustained(20, 20, grow=100)),),
        (cell(speed=10, turns=sustained(20, 10, grow=100)),),
        "context alone",
    ),
    "F15": Case(
        (cell(device=PHONE, metrics={"temperature_max_c": 47.9}),),
        (cell(device=PHONE, metrics={"temperature_max_c": 38.0}),),
        (cell(device=HOST, metrics={"temperature_max_c": 90.0}),),
        "a phone",
    ),
    "F16": Case(
        (cell(device=PHONE, speed=10), cell(device=PHONE, speed=9.7, accelerated=True, workload="chat")),
        (cell(device=PHONE, speed=10), cell(device=PHONE, speed=20, accelerated=True)),
        (cell(device=HOST, speed=10), cell(device=HOST, speed=9.7, accelerated=True)),
        "Android",
    ),
    "F17": Case(
        (cell(speed=10), cell(quantization="q4f16_1", framework="mlc", speed=15)),
        (cell(speed=10), cell(quantization="q4f16_1", framework="mlc", speed=10.2)),
        (cell(speed=10), cell(speed=30, release="2024")),
        "two frameworks",
    ),
    "F18": Case(
        (cell(device=PHONE, speed=5, metrics={ENERGY: 2.0}), cell(device=BOARD, speed=15, metrics={ENERGY: 1.5})),
        (cell(device=PHONE, speed=5, metrics={ENERGY: 2.0}), cell(device=BOARD, speed=15, metrics={ENERGY: 2.5})),
        (cell(device=PHONE, speed=5), cell(device=HOST, speed=50)),
        "Jetson",
    ),
    "F19": Case(
        modes((5, 3.0), (9, 2.0), (11, 2.5)),
        modes((5, 3.0), (9, 2.5), (11, 2.0)),
        modes((5, 3.0), (9, 2.0)),
        "3 power modes",
    ),
    "F20": Case(
        (cell(speed=8, turns=several(SLOW_START, SLOW_START)),),
        (cell(speed=10, turns=several(FLAT, FLAT)),),
        (cell(speed=10, turns=several(SLOW_START[:2], SLOW_START[:2])),),
        "4 turns",
    ),
    "F21": Case(
        (powers(8, 5, idle_power_w=1),),
        (powers(5.1, 5, idle_power_w=1),),
        (cell(speed=10),),
        "no power",
    ),
    "F22": Case(
        (*(cell(m, speed=1) for m in "ab"), cell("c", "f16", state="skipped", cause="memory", reason="needs 9 GB")),
        tuple(cell(m, speed=1) for m in "abc"),
        (*(cell(m, speed=1) for m in "ab"), cell("c", state="skipped", cause="unreachable")),
        "3 models",
    ),
}


def found(id: str, *cells: CellResult, virtual_only: bool = False) -> Finding:
    return find(next(one for one in DEFINITIONS if one.id == id), table(*cells), virtual_only=virtual_only)


def test_there_are_all_of_them() -> None:
    assert [one.id for one in DEFINITIONS] == [f"F{n}" for n in range(1, 23)]
    assert set(CASES) == {one.id for one in DEFINITIONS}


@pytest.mark.parametrize("id", CASES)
def test_holds(id: str) -> None:
    finding = found(id, *CASES[id].holds)
    assert finding.verdict is Verdict.holds, finding.reason
    assert finding.numbers
    assert {one.cell for one in finding.evidence} <= {one.cell for one in CASES[id].holds}
    assert finding.evidence
    assert finding.marks == ""


@pytest.mark.parametrize("id", CASES)
def test_fails(id: str) -> None:
    finding = found(id, *CASES[id].fails)
    assert finding.verdict is Verdict.fails, finding.reason
    assert finding.evidence


@pytest.mark.parametrize("id", CASES)
def test_cannot_tell(id: str) -> None:
    finding = found(id, *CASES[id].lacks)
    assert finding.verdict is Verdict.not_testable, finding.reason
    assert CASES[id].missing in finding.reason


@pytest.mark.parametrize("id", CASES)
def test_nothing_to_go_by(id: str) -> None:
    assert found(id).verdict is Verdict.not_testable
    unbelieved = [replace(one, state="invalid", operators={}, scores=(), parameters=None) for one in CASES[id].holds]
    if id != "F22":  # which asks whether something ran, not how fast
        assert found(id, *unbelieved).verdict is Verdict.not_testable


@pytest.mark.parametrize("id", CASES)
def test_virtual_devices_decide_alone_and_are_told(id: str) -> None:
    pretended = [replace(one, device=virtual(one.device)) for one in CASES[id].holds]
    finding = found(id, *pretended)
    assert (finding.verdict, finding.virtual) == (Verdict.holds, True)
    both = found(id, *pretended, *CASES[id].fails)
    assert (both.verdict, both.virtual) == (Verdict.fails, False), "real devices go first"
    assert found(id, *pretended, *CASES[id].fails, virtual_only=True).verdict is Verdict.holds
    assert found(id, *CASES[id].holds, virtual_only=True).verdict is Verdict.not_testable


@pytest.mark.parametrize("id", CASES)
def test_made_up_weights_are_told_and_never_have_accuracy(id: str) -> None:
    finding = found(id, *(replace(one, synthetic=True) for one in CASES[id].holds))
    if id in ("F6", "F7"):
        assert finding.verdict is Verdict.not_testable
    else:
        assert (finding.verdict, finding.synthetic) == (Verdict.holds, True)


@pytest.mark.parametrize("id", CASES)
@pytest.mark.parametrize("kind", ["holds", "fails"])
def test_the_order_of_cells_does_not_matter(id: str, kind: str) -> None:
    cells = list(getattr(CASES[id], kind))
    first = found(id, *cells)
    for seed in range(3):
        random.Random(seed).shuffle(cells)
        again = found(id, *cells)
        assert again.verdict is first.verdict
        assert {name: pytest.approx(q.value) for name, q in first.numbers.items()} == {
            name: q.value for name, q in again.numbers.items()
        }


def scaled(one: CellResult, speed: float, size: float, energy: float) -> CellResult:
    """The same cell in other units: times, bytes and joules are multiplied."""
    factors = {"generation_tps": speed, "prefill_tps": speed, ENERGY: energy}
    summaries = {
        name: replace(found, median=found.median * factors.get(name, 1.0)) for name, found in one.metrics.items()
    }
    held = [
        replace(turn, prefill_tps=(turn.prefill_tps or 0) * speed, generation_tps=(turn.generation_tps or 0) * speed)
        for turn in one.turns
    ]
    bytes_ = None if one.model_bytes is None else round(one.model_bytes * size)
    return replace(one, metrics=summaries, turns=tuple(held), model_bytes=bytes_)


@settings(max_examples=30)
@given(*(st.floats(0.01, 100) for _ in range(3)))
def test_units_do_not_matter(speed: float, size: float, energy: float) -> None:
    size = max(1.0, size)  # bytes are whole numbers
    for id in ("F1", "F2", "F3", "F4", "F10", "F11", "F16", "F17", "F18", "F19", "F20"):
        for cells in (CASES[id].holds, CASES[id].fails):
            assert (
                found(id, *(scaled(one, speed, size, energy) for one in cells)).verdict is found(id, *cells).verdict
            ), id


def test_a_later_campaign_replaces_an_earlier_one() -> None:
    earlier = [replace(one, campaign="earlier") for one in CASES["F4"].fails]
    finding = found("F4", *earlier, *CASES["F4"].holds)
    assert finding.verdict is Verdict.holds
    assert {one.campaign for one in finding.evidence} == {"c"}


def test_real_and_virtual_devices_are_never_set_beside_each_other() -> None:
    real, other = CASES["F3"].holds
    finding = found("F3", real, replace(other, device=virtual(OTHER)))
    assert finding.verdict is Verdict.not_testable


def test_gpu_cells_decide_f2_where_there_are_any() -> None:
    (slow,), (fast,) = CASES["F2"].fails, CASES["F2"].holds
    finding = found("F2", slow, replace(fast, accelerated=True))
    assert finding.verdict is Verdict.holds
    assert finding.notes == ()
    assert "GPU" in found("F2", fast).notes[0]


def test_f4_pairs_quantizations_of_one_scheme() -> None:
    other = cell(quantization="q4_0", speed=1, size=4000)
    assert found("F4", *CASES["F4"].holds, other).numbers["pairs"].value == 1
    assert found("F4", CASES["F4"].holds[0], replace(other, model_bytes=400)).numbers["pairs"].value == 1


def test_f5_goes_by_sixteen_bits_where_nobody_tried() -> None:
    alone = seven("q4_0", size=3_800_000_000)
    finding = found("F5", alone)
    assert finding.verdict is Verdict.holds, "13.5 GB exceed 8 GB"
    assert finding.numbers["weight_ratio_median"].value == pytest.approx(3.547, abs=0.01)
    roomy = replace(alone, device=OTHER)
    assert found("F5", roomy).verdict is Verdict.fails
    tried_in_32 = seven("f32", device=OTHER, state="skipped", cause="memory")
    assert found("F5", roomy, tried_in_32).verdict is Verdict.fails, "32 bits that do not fit say nothing of 16"
    other_reason = seven("f16", state="failed", cause="timeout")
    assert found("F5", alone, other_reason).verdict is Verdict.holds, "a timeout is no lack of memory; the sum decides"


def test_f5_a_small_model_that_does_not_fit_speaks_for_the_claim() -> None:
    tiny = replace(HOST, memory_bytes=2 * 10**9)
    finding = found("F5", cell("gemma-2b", parameters=2.5e9, size=1_400_000_000, device=tiny))
    assert finding.verdict is Verdict.holds
    assert "7 billion" in finding.notes[0]


def test_f5_computes_whether_a_model_fits_in_4_bits_where_another_ran_so() -> None:
    roomy = replace(HOST, memory_bytes=24 * 10**9)
    other = cell("tinyllama", size=640_000_000, parameters=1.1e9, device=roomy)
    skipped = cell("llama-2-13b", "as-is", parameters=13e9, device=roomy, state="skipped", cause="memory")
    finding = found("F5", other, skipped)
    assert finding.verdict is Verdict.holds, finding.reason
    assert finding.numbers["weight_ratio_median"].value == pytest.approx(16 / (8 * 0.64 / 1.1))
    assert "llama-2-13b did not run in 4 bits" in finding.notes[-1]
    small = [replace(one, device=HOST) for one in (other, skipped)]
    assert found("F5", *small).verdict is Verdict.not_testable, "7.6 of 8 GB are too much"
    tried = replace(skipped, quantization="q4_0")
    assert found("F5", other, skipped, tried).verdict is Verdict.not_testable, "it was tried, and does not fit"


def test_a_file_as_it_came_is_unquantized_unless_it_says_otherwise() -> None:
    assert unquantised(cell(quantization="as-is"))
    assert unquantised(cell(quantization="as-is", size=200, parameters=100))
    assert not unquantised(cell(quantization="as-is", size=60, parameters=100))
    assert not unquantised(cell(quantization="as-is", requantized_from="Q4_1"))
    assert [unquantised(cell(quantization=q)) for q in ("f16", "f32", "q0f16", "q8_0", "odd")] == [True] * 3 + [
        False
    ] * 2


def test_f6_small_models_must_lose_more_where_two_sizes_are_known() -> None:
    def ladder(name: str, parameters: float, low: int) -> list[CellResult]:
        points = (("f16", 600), ("q4_K", 590), ("q3_K", low))
        return [cell(name, q, parameters=parameters, scores=scores(k)) for q, k in points]

    assert found("F6", *ladder("s", 1e8, 400), *ladder("l", 1e9, 550)).verdict is Verdict.holds
    assert found("F6", *ladder("s", 1e8, 550), *ladder("l", 1e9, 400)).verdict is Verdict.fails
    assert "one size" in found("F6", *ladder("s", 1e8, 400)).notes[-1]


def test_f6_tells_where_too_few_were_asked() -> None:
    few = [cell(quantization=q, scores=scores(k, n=30)) for q, k in (("f16", 15), ("q4_K", 16), ("q3_K", 14))]
    finding = found("F6", *few)
    assert finding.verdict is Verdict.fails
    assert any("says little" in note for note in finding.notes)
    many = [
        cell(quantization=q, scores=scores(k, n=20000)) for q, k in (("f16", 10000), ("q4_K", 10001), ("q3_K", 10002))
    ]
    assert not any("says little" in note for note in found("F6", *many).notes)


def test_f10_tells_that_sizes_are_of_one_model() -> None:
    four = [replace(one, model="m", quantization=f"q{i + 2}_0") for i, one in enumerate(CASES["F10"].holds)]
    assert "one model" in found("F10", *four).notes[0]
    assert found("F10", *four[:3]).verdict is Verdict.not_testable


def test_f6_puts_the_tasks_of_several_cells_together() -> None:
    spread = [
        replace(one, workload=score.task, cell=f"{one.cell}-{score.task}", scores=(score,))
        for one in CASES["F6"].holds
        for score in one.scores
    ]
    finding = found("F6", *spread)
    assert finding.verdict is Verdict.holds
    assert finding.numbers == found("F6", *CASES["F6"].holds).numbers
    assert len(finding.evidence) == 6


def test_f6_takes_scores_of_the_same_questions_that_count_right_answers() -> None:
    agreement = [
        replace(one, scores=tuple(replace(s, metric="same_top") for s in one.scores)) for one in CASES["F6"].holds
    ]
    assert found("F6", *agreement).verdict is Verdict.not_testable
    first, *others = CASES["F6"].holds
    assert found("F6", replace(first, scores=scores(300, n=500)), *others).verdict is Verdict.not_testable


def test_f6_tells_that_the_reference_was_quantized_before() -> None:
    cells = [replace(one, requantized_from="Q4_1") for one in CASES["F6"].holds]
    assert any("Q4_1" in note for note in found("F6", *cells).notes)


def test_scores_that_cannot_be_right_are_told() -> None:
    (wrong,) = scores(600, tasks=["arc_easy"])
    cells = [
        replace(CASES["F6"].holds[0], scores=(replace(wrong, value=0.7), *scores(600)[1:])),
        *CASES["F6"].holds[1:],
    ]
    finding = found("F6", *cells)
    assert any(note.startswith("not-k-over-n") for note in finding.notes)
    assert check_scores(scores_of(table(*CASES["F6"].holds))) == ()


def test_f14_takes_out_what_the_context_costs() -> None:
    """Speed falls by the context alone: 50 ms a token, and 0.05 ms more for each token in the context."""

    def speed(position: float, heat: float = 1.0) -> float:
        return 1 / (heat * (0.05 + 0.00005 * position))

    def held(conversation: int, count: int, *, heats: bool = False) -> tuple[TurnResult, ...]:
        plain = turns([1.0] * count, conversation=conversation, n_gen=60, grow=80)
        return tuple(
            replace(
                t,
                generation_tps=speed(t.n_past - 30, 1.5 if heats and t.turn >= count // 2 else 1.0),
                began_s=t.turn * 3.5,
            )
            for t in plain
        )

    macro = cell(workload="macro", speed=10, turns=held(0, 8) + held(1, 8))
    cool = cell(workload="sustained", speed=10, turns=held(0, 48))
    hot = cell(workload="sustained", speed=10, turns=held(0, 48, heats=True))
    assert found("F14", cool).verdict is Verdict.not_testable
    finding = found("F14", cool, macro)
    assert finding.verdict is Verdict.fails, finding.numbers
    assert finding.numbers["last_over_first_lowest"].value < 0.5
    assert finding.numbers["corrected_lowest"].value == pytest.approx(1, abs=0.02)
    assert found("F14", hot, macro).verdict is Verdict.holds


def test_f14_needs_load_that_lasts() -> None:
    quick = cell(speed=10, turns=turns([20.0] * 8 + [10.0] * 8, grow=0, n_gen=4))
    assert "30 s" in found("F14", quick).reason
    paused = turns([20.0] * 16 + [10.0] * 16, grow=0, n_gen=60)
    idle = cell(speed=10, turns=tuple(replace(turn, began_s=turn.turn * 100) for turn in paused))
    assert found("F14", idle).verdict is Verdict.not_testable
    brief = found("F14", cell(speed=10, turns=paused))
    assert brief.verdict is Verdict.holds
    assert "minutes" in brief.notes[0]


def test_f20_tells_where_heat_may_be_the_cause() -> None:
    alone = cell("other", speed=10, turns=turns(FLAT))
    finding = found("F20", *CASES["F20"].holds, alone)
    assert (finding.verdict, finding.numbers["cells"].value) == (Verdict.fails, 2)
    assert "1 of 2 cells had one conversation" in finding.notes[0]
    assert found("F20", *CASES["F20"].holds).notes == ()


def test_f21_needs_rest_to_be_low_where_it_was_measured() -> None:
    assert found("F21", powers(8, 5, idle_power_w=4.9)).verdict is Verdict.fails
    untold = found("F21", powers(8, 5))
    assert untold.verdict is Verdict.holds
    assert "idle_s" in untold.notes[0]


def test_f22_names_causes() -> None:
    finding = found("F22", *CASES["F22"].holds)
    assert finding.numbers["failed_memory"].value == 1
    assert "needs 9 GB" in finding.notes[0]


def test_f22_what_ran_in_a_later_campaign_has_run() -> None:
    again = [replace(one, state="measured", cause=None) for one in CASES["F22"].holds]
    assert found("F22", *CASES["F22"].holds, *again).verdict is Verdict.fails


def test_nothing_is_divided_by_zero() -> None:
    assert found("F21", powers(0, 0, idle_power_w=0)).verdict is Verdict.not_testable
    none_right = [replace(one, scores=scores(0, tasks=["arc_easy"])) for one in CASES["F6"].holds]
    assert found("F6", *none_right).verdict is Verdict.not_testable
    no_charge = {**CHARGE, "generation_charge_mah": 0.0, "prefill_charge_mah": 0.0}
    for id in ("F12", "F13"):
        assert found(id, cell(device=PHONE, speed=1, metrics=no_charge)).verdict is Verdict.not_testable
    same_size = [replace(one, model_bytes=10**9) for one in CASES["F1"].holds]
    assert found("F1", *same_size).verdict is Verdict.not_testable


def test_reasons_cannot_steer_a_terminal() -> None:
    skipped = replace(CASES["F22"].holds[-1], reason="needs \x1b[2J\x9b more")
    results = table(*CASES["F22"].holds[:-1], skipped)
    findings = evaluate(results)
    for shown in (as_text(findings, results), as_json(findings, results)):
        assert "more" in shown
        assert not set(shown) & {"\x1b", "\x9b"}


@pytest.mark.parametrize(
    ("name", "budget"),
    [("15W", 15), ("MODE_30W", 30), ("MAXN", float("inf")), ("MAXN_SUPER", float("inf")), ("EDP", None), (None, None)],
)
def test_budgets_of_power_modes(name: str | None, budget: float | None) -> None:
    assert watts(name) == budget


def laptop() -> list[CellResult]:
    """What the smoke profile of the study gives on a machine without gated weights, lab and power sensors."""
    found: list[CellResult] = []
    roomy = replace(HOST, memory_bytes=24 * 10**9)
    models = {"tinyllama-1.1b": (1.1e9, 1.0), "zephyr-3b": (2.8e9, 2.5), "gemma-2b": (2.5e9, 2.3)}
    for model, (parameters, factor) in models.items():
        for quantization, gb in {"q3_K": 0.55, "q4_K": 0.67, "q4_0": 0.64}.items():
            size = round(gb * factor * 1e9)
            speed = 6e9 / size
            found.append(
                cell(
                    model,
                    quantization,
                    device=roomy,
                    workload="short",
                    synthetic=True,
                    parameters=parameters,
                    size=size,
                    speed=speed,
                    metrics={"prefill_tps": 5 * speed},
                    turns=turns([speed, speed], prefill=5 * speed),
                )
            )
    found.append(
        cell(
            "llama-2-13b",
            "as-is",
            device=roomy,
            workload="short",
            synthetic=True,
            parameters=13e9,
            state="skipped",
            cause="memory",
        )
    )
    small: dict[str, Any] = {"model": "smollm2-135m", "device": roomy, "parameters": 1.3e8, "speed": 60.0}
    for quantization, k in {"f16": 700, "q8_0": 699, "q6_K": 698, "q4_K": 680, "q4_0": 670, "q3_K": 640}.items():
        falling = turns([60.0 * f for f in (1, 0.97, 0.95, 0.9, 0.88, 0.87)])
        found.append(cell(quantization=quantization, workload="macro", size=10**8, turns=falling, **small))
        found.append(cell(quantization=quantization, workload="accuracy", scores=scores(k), **small))
    held = [turn for i in range(12) for turn in turns([60.0] * 4, conversation=i, n_gen=48, began_s=i * 3.7)]
    found.append(cell(workload="sustained", turns=tuple(held), **small))
    for workload, past, kq in (("near", MICRO, 0.03), ("far", LONG, 0.12)):
        found.append(cell(workload=workload, operators=operators(ffn_up=0.87, kq=kq), turns=past, **small))
    return found


def test_one_laptop_decides_ten_findings() -> None:
    decided = {one.id for one in evaluate(table(*laptop())) if one.decided}
    assert decided == {"F1", "F2", "F4", "F5", "F6", "F8", "F9", "F14", "F20", "F22"}


def test_as_text_and_as_json() -> None:
    results = table(*laptop())
    findings = evaluate(results)
    text = as_text(findings, results)
    assert text.splitlines()[0] == f"c: {tally(findings)}"
    assert all(len(line) <= 116 for line in text.splitlines())
    assert "F1   HOLDS (synthetic): " in text
    assert "F12  NOT TESTABLE HERE: " in text
    assert "(quoted by others)" in text
    loaded = json.loads(as_json(findings, results))
    assert [one["id"] for one in loaded["findings"]] == [one.id for one in DEFINITIONS]
    assert as_json(evaluate(results), results) == as_json(findings, results)


def test_the_page_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "findings.md"
    assert page.read_text() == document(), "run: python -m meltrepro.report.findings.registry > docs/findings.md"


@pytest.mark.parametrize("id", ["F8", "F9"])
def test_a_profile_that_is_mostly_the_profiler_decides_nothing(id: str) -> None:
    slow = [replace(one, profile_slowdown=6.3) for one in CASES[id].holds]
    finding = next(one for one in evaluate(table(*slow)) if one.id == id)
    assert finding.verdict is Verdict.not_testable
    assert "slowed generation 6.3 times" in finding.reason
    swift = [replace(one, profile_slowdown=1.4) for one in CASES[id].holds]
    assert next(one for one in evaluate(table(*swift)) if one.id == id).verdict is Verdict.holds
