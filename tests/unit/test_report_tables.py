"""Every derived table from hand-made results: what it holds, and what it says where there is nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from meltrepro.report.cells import usual_workload
from meltrepro.report.content import sections
from meltrepro.report.derive import drifts, memory_use, repetition_speeds, sustained
from meltrepro.report.figures import points
from meltrepro.report.results import CellResult, Device, Score
from meltrepro.report.tables import measurements, overview
from meltrepro.report.tradeoffs import axes, tradeoffs
from meltrepro.report.values import Absent, Median, Table, Tags, Word
from meltrepro.studies.melt import tables
from meltrepro.studies.melt.paper import AccuracyRow, FigureRow, SizeRow
from tests.support.reports import (
    BOARDS,
    HOST,
    HOSTILE,
    NEW,
    OLD,
    PHONE,
    cell,
    content,
    everything,
    lost,
    results,
    spread,
    turns,
)

SMOL = cell("smollm2-135m", "q4_0", 1.35e8)


def rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip((column.key for column in table.columns), row, strict=True)) for row in table.rows]


def only(table: Table) -> Mapping[str, Any]:
    (row,) = rows(table)
    return row


def test_everything_fills_every_table_and_figure() -> None:
    for part in sections(everything()):
        assert [table.name for table in part.tables if table.reason is not None] == []
        assert [figure.name for figure in part.figures if figure.reason is not None] == []


def test_only_digests_stand_where_texts_are_cut() -> None:
    """An identifier of a campaign may be as long as one by chance."""
    tables = [table for part in sections(everything()) for table in part.tables]
    cut = [
        row[number]
        for table in tables
        for number, column in enumerate(table.columns)
        for row in table.rows
        if column.kind == "digest" and row[number] and not isinstance(row[number], Absent)
    ]
    assert cut
    assert [value for value in cut if not re.fullmatch("[0-9a-f]+", str(value))] == []


@pytest.mark.parametrize(
    "cells",
    [(), (lost("llama-2-7b", "q4_0", "skipped", "needs 4.3 GB of memory"),), (lost("a", "q4_0", "failed", "crashed"),)],
    ids=["none", "skipped", "failed"],
)
def test_nothing_measured_gives_a_reason_everywhere(cells: tuple[CellResult, ...]) -> None:
    for part in sections(content(cells)):
        for figure in part.figures:
            assert figure.reason, figure.name
            if cells:
                assert str(cells[0].reason) in figure.reason or figure.name == "power-modes"
        for table in part.tables:
            if part.id not in ("overview", "validity", "provenance"):
                assert table.reason, table.name


def test_reasons_come_from_the_records() -> None:
    silent = replace(SMOL, unavailable={"energy_per_token_j": "the device shows no power"})
    meter = replace(silent, unavailable={"energy_per_token_j": "the meter's samples have no place in time"})
    table = measurements.energy(results([silent, silent, meter]))
    assert table.reason == (
        "the device shows no power (2 of 3 cells); the meter's samples have no place in time (1 of 3 cells)"
    )


def test_throughput_has_medians_intervals_and_tags() -> None:
    synthetic = replace(SMOL, synthetic=True, device=PHONE, accelerated=True)
    row = only(measurements.throughput(results([synthetic])))
    summary = SMOL.metrics["generation_tps"]
    assert row["generation_tps"] == Median(summary.median, summary.low, summary.high, 5)
    assert row["tags"] == Tags(("virtual", "synthetic", "GPU"))
    assert row["model_gb"] == pytest.approx(0.0768, abs=1e-3)
    assert row["device"] == "phone"


def test_cells_are_in_order_of_device_and_size() -> None:
    order = [
        cell("b", "q8_0", 3e9),
        cell("b", "q4_0", 3e9),
        cell("a", "q4_0", 7e9),
        cell("c", "q4_0", 1e9, device=PHONE),
    ]
    table = rows(measurements.throughput(results(order)))
    assert [(row["device"], row["model"], row["quantization"]) for row in table] == [
        ("host", "b", "q4_0"),
        ("host", "b", "q8_0"),
        ("host", "a", "q4_0"),
        ("phone", "c", "q4_0"),
    ]


def test_memory_ratio_and_its_limit() -> None:
    size, kv = 1_000_000_000, 100_000_000
    cells = [
        replace(SMOL, model_bytes=size, kv_bytes=kv, metrics={"peak_memory_bytes": spread(peak, relative=0)})
        for peak in (1.1e9 * 1.1499, 1.1e9 * 1.1501)
    ]
    first, second = rows(measurements.memory(results(cells)))
    assert (first["within_limit"], second["within_limit"]) == ("yes", "no")
    assert first["peak_over_expected"] == pytest.approx(1.1499)
    unknown = only(measurements.memory(results([replace(cells[0], kv_bytes=None)])))
    assert isinstance(unknown["peak_over_expected"], Absent)
    assert memory_use(replace(cells[0], kv_bytes=None)) is None


def test_energy_in_both_units() -> None:
    row = only(measurements.energy(results([cell("a", "q4_0", 1e9, energy=True)])))
    assert row["energy_per_token_mwh"].median == pytest.approx(row["energy_per_token_j"].median / 3.6)
    assert row["energy_per_prompt_token_mwh"].n == 5


def test_a_cell_is_beaten_by_one_that_is_faster_and_smaller_unless_it_is_better() -> None:
    small, large = SMOL, cell("smollm2-135m", "q8_0", 1.35e8)
    found = rows(tradeoffs(results([small, large])))
    assert [(row["quantization"], str(row["beaten"])) for row in found] == [("q4_0", "no"), ("q8_0", "yes")]
    worse, better = (Score("piqa", "acc", k / 100, 0.04, 100, k) for k in (60, 70))
    scored = [replace(small, scores=(worse,)), replace(large, scores=(better,))]
    found = rows(tradeoffs(results(scored)))
    assert [(row["quality"], str(row["beaten"])) for row in found] == [(0.6, "no"), (0.7, "no")]
    elsewhere = replace(large, device=PHONE)
    assert {str(row["beaten"]) for row in rows(tradeoffs(results([small, elsewhere])))} == {"no"}


def test_scores_belong_to_weights_wherever_they_were_found() -> None:
    score = Score("piqa", "acc", 0.6, 0.04, 100, 60)
    scorer = replace(SMOL, workload="piqa", metrics={}, turns=(), scores=(score,))
    row = only(tradeoffs(results([SMOL, scorer])))
    assert row["quality"] == 0.6


def test_options_are_said_once_for_all_cells_that_share_them() -> None:
    one = replace(SMOL, options={"threads": 4, "context": 2048})
    other = replace(cell("smollm2-135m", "q8_0", 1.35e8), options={"threads": 2, "context": 2048})
    found = [(row["option"], row["value"], row["cells"]) for row in rows(overview.options(results([one, other])))]
    assert found == [("threads", "4", one.cell), ("threads", "2", other.cell), ("context", "2048", "all")]


def test_limits_that_were_changed_are_said() -> None:
    """With the default, and where campaigns differ, of which."""
    assert overview.limits(results([SMOL])) == "No limit of validity was changed from its default."
    loose = replace(SMOL, options={"threads": 4, "measure.limits.cpu_pressure": 1, "measure.limits.noise": "null"})
    told = "cpu_pressure 1 (default 0.25); noise is not judged (default 0.1)."
    assert overview.limits(results([loose, loose])) == f"Limits of validity that were changed: {told}"
    (valid,) = [part for part in sections(content([loose])) if part.id == "validity"]
    assert valid.lead.endswith(told)
    both = results([SMOL, loose])
    both = replace(
        both, cells=(both.cells[0], replace(loose, campaign="later")), names={**both.names, "later": "other"}
    )
    assert "cpu_pressure 1 (default 0.25) in campaign 2;" in overview.limits(both)


def test_a_release_without_source_says_so() -> None:
    (document,) = content([SMOL]).campaigns
    entry = document.cells[0].model_copy(update={"source_digest": hashlib.sha256(b"{}").hexdigest()})
    row = only(overview.digests([document.model_copy(update={"cells": [entry]})]))
    assert isinstance(row["source"], Absent)
    assert SMOL.release in row["source"].reason


def test_phases() -> None:
    row = only(measurements.phases(results([SMOL])))
    ratio = SMOL.metrics["prefill_tps"].median / SMOL.metrics["generation_tps"].median
    assert row["prefill_over_generation"] == pytest.approx(ratio)
    assert row["prompt_tokens_mean"] == 31


def test_speeds_of_repetitions_follow_the_definition_of_the_metric() -> None:
    made = replace(SMOL, turns=turns(20.0, 100.0, repetitions=2, count=2))
    first = [turn for turn in made.turns if turn.repetition == 0]
    seconds = sum(63 / turn.generation_tps for turn in first if turn.generation_tps)
    assert repetition_speeds(made, "generation")[0] == pytest.approx(126 / seconds)
    seconds = sum(turn.n_prompt / turn.prefill_tps for turn in first if turn.prefill_tps)
    assert repetition_speeds(made, "prefill")[0] == pytest.approx(61 / seconds)


def _long(**changes: Any) -> CellResult:
    made = turns(20, 100, repetitions=3, count=40, slope=0.4)
    return replace(SMOL, workload="sustained", turns=made, **changes)


def test_sustained_quarters() -> None:
    row = only(measurements.sustained_speed(results([_long(), SMOL])))
    assert row["prompts"] == 40
    assert row["first_quarter_tps"] == pytest.approx(20 * (1 - 0.4 * 4.5 / 39), rel=0.03)
    assert row["last_over_first"] == pytest.approx((1 - 0.4 * 34.5 / 39) / (1 - 0.4 * 4.5 / 39), rel=0.03)


def test_several_conversations_are_no_sustained_load() -> None:
    made = replace(SMOL, turns=turns(20, 100, conversations=4, count=12))
    assert sustained(made) is None
    assert "no cell held one conversation" in str(measurements.sustained_speed(results([made])).reason)


def test_temperatures_stand_at_the_prompt_that_was_answered() -> None:
    begins = [turn.began_s for turn in _long().turns if turn.repetition == 0]
    heat = ((-3.0, 30.0), (0.0, 40.0), ((begins[1] + begins[2]) / 2, 50.0), (begins[-1], 60.0), (9e9, 99.0))
    curve = sustained(_long(temperatures=heat))
    assert curve is not None
    assert [at for at, _ in curve.temperatures] == pytest.approx([1.0, 2.5, 40.0])
    assert [celsius for _, celsius in curve.temperatures] == [40.0, 50.0, 60.0]


def test_drift_pairs_within_a_campaign_before_across() -> None:
    old = cell("a", "q4_0", 1e9, campaign="x-one")
    other = replace(old, campaign="x-two")
    newer = cell("a", "q4_0", 1e9, release=NEW, speed=1.5, campaign="x-one")
    pairs = drifts(results([old, newer, other]))
    assert {(pair.older.campaign, pair.newer.release, pair.phase) for pair in pairs} == {
        ("x-one", NEW, "prefill"),
        ("x-one", NEW, "generation"),
    }
    generation = next(pair for pair in pairs if pair.phase == "generation")
    assert generation.low is not None
    assert generation.high is not None
    assert generation.low <= generation.ratio <= generation.high
    assert generation.ratio == pytest.approx(1.5, rel=0.02)
    across = rows(measurements.drift(results([other, newer])))
    assert {row["campaigns"] for row in across} == {"1 and 2"}


@pytest.mark.parametrize(
    "changes",
    [{"device": PHONE}, {"quantization": "q8_0"}, {"accelerated": True}, {"framework": "mlc"}, {"synthetic": True}],
    ids=str,
)
def test_drift_compares_nothing_that_differs_in_more_than_the_release(changes: dict[str, Any]) -> None:
    newer = replace(cell("a", "q4_0", 1e9, release=NEW), **changes)
    assert drifts(results([cell("a", "q4_0", 1e9), newer])) == []


def test_drift_of_single_repetitions_has_no_interval() -> None:
    cells = [replace(cell("a", "q4_0", 1e9, release=r), turns=turns(20, 80, repetitions=1)) for r in (OLD, NEW)]
    for row in rows(measurements.drift(results(cells))):
        assert isinstance(row["ratio_low"], Absent)
        assert row["n_older"] == row["n_newer"] == 1


def test_power_modes_from_the_smallest_budget() -> None:
    boards = [cell("a", "q4_0", 1e9, device=board, energy=True) for board in BOARDS]
    table = measurements.power_modes(results([*boards, SMOL]))
    assert [row["power_mode"] for row in rows(table)] == ["7W", "15W", "MAXN"]
    nameless = replace(SMOL, device=Device("board", "jetson", "Orin", None, virtual=False))
    assert "said which power mode" in str(measurements.power_modes(results([nameless])).reason)


def test_accuracy_has_errors_counts_and_real_bits() -> None:
    scored = replace(SMOL, scores=(Score("arc_easy", "acc", 0.5325, 0.02494, 400, 213),))
    row = only(measurements.accuracy(results([scored])))
    assert (row["value"], row["n"], row["k"]) == (0.5325, 400, 213)
    assert row["bits_per_weight"] == pytest.approx(4.55, abs=0.01)


def perplexity(context: int, value: float) -> CellResult:
    scores = (Score("perplexity", "perplexity", value, 0.1, 500, None),)
    return replace(SMOL, workload=f"text-{context}", context=context, metrics={}, scores=scores)


def test_texts_in_windows_of_several_lengths_stand_side_by_side() -> None:
    """A shorter window is no worse model: panels and the scores beside speeds are of one length each."""
    cells = [perplexity(1024, 15.0), perplexity(256, 20.0)]
    found = rows(measurements.accuracy(results(cells)))
    assert [(row["context_tokens"], row["value"]) for row in found] == [(1024, 15.0), (256, 20.0)]
    drawn = str(points.accuracy(results(cells)).svg)
    assert 0 < drawn.index("perplexity, context 1024") < drawn.index("perplexity, context 256")
    (axis,) = [axis for axis in axes(results([SMOL, *cells])) if axis.key == "quality"]
    assert (axis.title, axis.of(SMOL)) == ("quality, perplexity, context 256", (20.0, 19.9, 20.1))


def test_the_usual_workload_is_one_with_speeds() -> None:
    scored = replace(SMOL, workload="piqa", metrics={}, scores=(Score("piqa", "acc", 0.5, 0.1, 30, 15),))
    assert usual_workload(results([scored, scored, SMOL])) == "macro"


def test_synthetic_weights_are_never_scored() -> None:
    reason = measurements.accuracy(results([replace(SMOL, synthetic=True)])).reason
    assert reason == "all weights are synthetic, whose answers mean nothing"


def test_operators_add_up() -> None:
    table = [row for row in rows(measurements.operators(everything().results)) if row["phase"] == "generation"]
    assert sum(row["time_share"] for row in table) == pytest.approx(1.0)
    assert sum(row["call_share"] or 0 for row in table) == pytest.approx(1.0)
    output = next(row for row in table if row["module"] == "output")
    assert output["call_share"] > 10 * output["time_share"]


def test_coverage_tells_the_best_outcome_and_the_reason_of_others() -> None:
    failed = lost("smollm2-135m", "q4_0", "failed", "crashed")
    failed = replace(failed, campaign="x-two", device=HOST)
    row = only(overview.coverage(results([failed, SMOL])))
    assert row[f"host / llama.cpp {OLD}"] == Word("measured", "good")
    row = only(overview.coverage(results([failed])))
    assert row[f"host / llama.cpp {OLD}"] == Absent("crashed", "failed")


def test_devices_with_one_name_are_told_apart() -> None:
    other = replace(HOST, model="another machine", id="b")
    third = replace(HOST, id="c")
    made = results([SMOL, replace(SMOL, device=other), replace(SMOL, device=third)])
    titles = {made.title(device) for device in (HOST, other, third)}
    assert titles == {"host (Intel Xeon, 2 cores) #1", "host (Intel Xeon, 2 cores) #2", "host (another machine)"}
    assert len(overview.coverage(made).columns) == 6


def test_virtual_and_real_devices_never_share_a_row() -> None:
    made = content([SMOL, replace(SMOL, device=replace(HOST, virtual=True))])
    for part in sections(made):
        for table in part.tables:
            for row in rows(table):
                assert row.get("device") != "host" or "tags" in row
    assert [row["tags"] for row in rows(measurements.throughput(made.results))] == [Tags(()), Tags(("virtual",))]
    assert len(overview.coverage(made.results).columns) == 5


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("tinyllama-1.1b", "tinyllama-1.1b-v0.5"),
        ("stablelm-zephyr-3b", "zephyr-3b"),
        ("llama-2-7b-chat", "llama-2-7b"),
        ("Gemma_2B", "gemma-2b"),
        ("gemma", None),
        ("llama-2", None),
        ("smollm2", None),
        ("", None),
    ],
)
def test_models_are_matched_by_name_or_not_at_all(ours: str, theirs: str | None) -> None:
    names = ("tinyllama-1.1b-v0.5", "zephyr-3b", "llama-2-7b", "llama-2-13b", "gemma-2b", "gemma-7b")
    assert tables.same_model(names, ours) == ({theirs} if theirs else set())


def test_quantizations_by_any_of_their_names() -> None:
    assert tables.same_quantization("q3_K", "q3_k")
    assert tables.same_quantization("q4_K_M", "q4_k")
    assert tables.same_quantization("f16", "unquantised")
    assert not tables.same_quantization("q4_0", "q4_K")


def _published(model: str, value: float | None, *flags: str, task: str = "arc_easy") -> AccuracyRow:
    return AccuracyRow(model, "q4_0", "llamacpp", task, value, None, "reported", flags, "results.csv", 4, 4)


def test_the_papers_rows_carry_their_flags_and_ours_beside() -> None:
    ours = replace(cell("tinyllama-1.1b", "q4_0", 1.1e9), scores=(Score("arc_easy", "acc", 0.5, 0.02, 400, 200),))
    made = results([ours])
    size = SizeRow("tinyllama-1.1b-v0.5", "q4_0", "llamacpp", 1.1e9, 0.64, 3.1, (), "specs.csv")
    first, second = rows(tables.sizes(made, [size, replace(size, quantization="q3_k")]))
    assert first["ours_gb"] == pytest.approx(0.6256, abs=1e-3)
    assert first["difference_percent"] == pytest.approx(-2.25, abs=0.01)
    assert second["ours_gb"] is None
    published = [
        _published("zephyr-3b", 0.3221, "suspect_copy_of_tinyllama"),
        _published("tinyllama-1.1b-v0.5", 0.55),
        _published("mistral-7b-v0.1", None, "missing", task="truthfulqa_mc"),
    ]
    copied, beside, missing = rows(tables.scores(made, published))
    assert str(copied["remarks"]).startswith("copy of TinyLlama's: ")
    assert (beside["paper"], beside["ours"], beside["ours_n"]) == (0.55, 0.5, 400)
    assert missing["paper"] == Absent("missing in the paper's table")
    quoted = FigureRow(
        *("Galaxy S23", "not stated", "tinyllama-1.1b", "4-bit (scheme not stated)"),
        *("generation_throughput", 13.6, "token/s", "secondhand: a note"),
    )
    rough = only(tables.devices(made, [quoted]))
    assert str(rough["remarks"]).startswith("secondhand: quoted by others: a rough range")
    assert rough["ours"].n == 5


def test_hostile_text_reaches_tables_as_text() -> None:
    hostile = replace(SMOL, reason=HOSTILE, state="failed", metrics={})
    assert only(overview.cells(results([hostile])))["reason"] == HOSTILE


def test_results_without_campaigns() -> None:
    assert overview.campaigns(results([]), ()).reason == "no campaign was given"


def test_a_report_of_no_study_speaks_of_none() -> None:
    """What campaigns of a study say stands after the results."""
    ids = [part.id for part in sections(everything())]
    plain = [part.id for part in sections(content([SMOL]))]
    assert sorted(plain) == sorted(id for id in ids if id not in ("findings", "paper"))
    assert plain[:5] == ["overview", "validity", "throughput", "phases", "memory"], "what there is comes first"
    assert plain[-1] == "provenance"
    assert ids.index("drift") < ids.index("findings") < ids.index("paper") < ids.index("provenance")
    texts = [(part.lead, *(table.notes for table in part.tables)) for part in sections(content([SMOL]))]
    assert not re.search("MELT|paper", str(texts))
