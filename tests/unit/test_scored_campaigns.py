"""Campaigns of scorers, from records whose truth is known: verdicts, comparisons, what is shown, logged and reported."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from meltrepro.accuracy.scores import Score, counted
from meltrepro.cli.summary import show_results
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.measure.validity import judge_scores
from meltrepro.record import trial as record
from meltrepro.replay.compare import compare, overall
from meltrepro.replay.replay import judge
from meltrepro.replay.show import text
from meltrepro.report.comparison import html
from meltrepro.report.figures import points as figures
from meltrepro.report.read import read_results
from meltrepro.report.results import Results
from meltrepro.report.tables import measurements as tables
from meltrepro.report.tables.paired import quantizations
from meltrepro.report.values import Table
from meltrepro.stats.equivalence import Design, ReplayVerdict
from meltrepro.studies.melt import paper
from meltrepro.studies.melt import tables as paper_tables
from meltrepro.studies.melt.findings.model import Ruling
from meltrepro.studies.melt.findings.registry import evaluate
from meltrepro.track import content
from tests.support.campaigns import Cell, build_campaign, score_trial

CELLS = (Cell("q8_0"), Cell("q4_0"))


def scored(
    home: Path, right: Sequence[int], *, number: int = 0, asked: int = 10, task: str = "piqa", **params: float
) -> CampaignRecord:
    """A campaign of one repetition for each cell, with so many right answers."""
    cells = CELLS[: len(right)]
    folder = build_campaign(home, cells, number=number, repetitions=1, warmups=0)
    for cell, k in zip(cells, right, strict=True):
        score_trial(folder, cell, "r000", k, asked=asked, task=task, params=params)
    return read_campaign(folder)


# -- verdicts -----------------------------------------------------------------------------------------------------


ONE = counted("piqa", "acc", 10, 7)


def test_equal_scores_are_valid() -> None:
    assert judge_scores([]).valid
    assert judge_scores([[ONE]]).valid
    assert judge_scores([[ONE], [counted("piqa", "acc", 10, 7)], [ONE]]).valid


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ([counted("piqa", "acc", 10, 6)], "acc 0.7; acc 0.6"),
        ([counted("piqa", "acc", 20, 14)], "acc 0.7; acc 0.7"),
        ([], "acc 0.7; "),
        ([ONE, Score("kl-divergence", "kl_divergence", 0.25, 0.1, 9, None)], "acc 0.7; acc 0.7, kl_divergence 0.25"),
    ],
)
def test_scores_that_differ_in_anything_are_invalid(other: list[Score], told: str) -> None:
    verdict = judge_scores([[ONE], [ONE], other])
    assert not verdict.valid
    assert f"unsteady: repetitions differ: {told}" in str(verdict)


def test_a_record_whose_output_was_changed_has_no_score(tmp_path: Path) -> None:
    campaign = scored(tmp_path, [7])
    path = campaign.cells[0].repetitions[0].folder / record.STDOUT
    path.write_text(path.read_text().replace("7\t100.0", "7\t99.0"))
    with pytest.raises(Exception, match="does not add up"):
        _ = read_campaign(campaign.folder).cells[0].validity


# -- comparisons --------------------------------------------------------------------------------------------------


def verdicts(first: CampaignRecord, second: CampaignRecord) -> list[ReplayVerdict]:
    return [score.verdict for cell in compare(first, second, Design()).cells for score in cell.scores]


def test_scores_are_reproduced_only_where_they_are_equal(tmp_path: Path) -> None:
    first = scored(tmp_path, [70], asked=100)
    assert verdicts(first, scored(tmp_path, [70], asked=100, number=1)) == [ReplayVerdict.reproduced]
    assert verdicts(first, scored(tmp_path, [71], asked=100, number=2)) == [ReplayVerdict.inconclusive]
    assert verdicts(first, scored(tmp_path, [35], asked=50, number=3)) == [ReplayVerdict.inconclusive], (
        "the same share of less"
    )
    assert verdicts(first, scored(tmp_path, [40], asked=100, number=4)) == [ReplayVerdict.differs]


def test_all_right_on_both_sides_has_no_error_to_divide_by(tmp_path: Path) -> None:
    comparison = compare(scored(tmp_path, [10]), scored(tmp_path, [10], number=1), Design())
    assert comparison.cells[0].scores[0].standard_errors is None
    assert overall(comparison) is ReplayVerdict.reproduced
    assert "REPRODUCED, 10 of 10 and 10 of 10\n" in text(comparison)


def test_the_same_binary_may_not_come_to_another_score(tmp_path: Path) -> None:
    first, second = scored(tmp_path, [70, 60], asked=100), scored(tmp_path, [70, 61], asked=100, number=1)
    verdict, reasons = judge(compare(first, second, Design()))
    assert verdict is ReplayVerdict.differs, "however small the difference"
    (reason,) = reasons
    assert reason.endswith("accuracy.piqa: 0.6 -> 0.61: the same binary and model came to another score")


def test_another_binary_may_differ_by_chance(tmp_path: Path) -> None:
    first, second = scored(tmp_path, [70], asked=100), scored(tmp_path, [71], asked=100, number=1)
    (cell,) = second.document.cells
    other = second.document.model_copy(update={"cells": [cell.model_copy(update={"runner_digest": "f" * 64})]})
    (second.folder / "campaign.json").write_text(other.model_dump_json())
    verdict, reasons = judge(compare(first, read_campaign(second.folder), Design()))
    assert verdict is ReplayVerdict.inconclusive
    assert reasons[-1].endswith("0.7 -> 0.71: INCONCLUSIVE")


def test_a_cell_without_a_score_on_one_side_is_not_reproduced(tmp_path: Path) -> None:
    first, second = scored(tmp_path, [7, 6]), scored(tmp_path, [7, 6], number=1)
    place = second.cells[1].repetitions[0].folder / record.OUTCOME
    failed = {**json.loads(place.read_text()), "state": "failed", "reason": "not-scored: it gave up"}
    place.write_text(json.dumps(failed))
    verdict, reasons = judge(compare(first, read_campaign(second.folder), Design()))
    assert verdict is ReplayVerdict.inconclusive
    assert reasons == (f"{CELLS[1].id}: nothing to compare: no trial of one side gave a result",)


def test_a_comparison_shows_counts_and_distance(tmp_path: Path) -> None:
    comparison = compare(scored(tmp_path, [70], asked=100), scored(tmp_path, [60], asked=100, number=1), Design())
    errors = math.hypot(*(math.sqrt(p * (1 - p) / 99) for p in (0.7, 0.6)))
    words = f"70 of 100 and 60 of 100, {0.1 / errors:.2g} standard errors apart"
    assert f"INCONCLUSIVE, {words}" in text(comparison)
    assert words in html([comparison])
    (plain,) = comparison.as_json()["cells"][0]["scores"]
    assert (plain["name"], plain["first"]["k"], plain["verdict"]) == ("accuracy.piqa", 70, "INCONCLUSIVE")


# -- console and MLflow -------------------------------------------------------------------------------------------


def shown(folder: Path) -> list[list[str]]:
    out = io.StringIO()
    show_results(read_campaign(folder), Console(file=out, highlight=False))
    return [line.split() for line in out.getvalue().splitlines()]


def test_the_console_shows_what_a_score_rests_on(tmp_path: Path) -> None:
    lines = shown(scored(tmp_path, [7, 6], bits_per_weight=4.5).folder)
    assert ["q8_0", "accuracy.piqa", "0.7000", "0.1528", "7", "10", "4.50", "98.0"] in lines
    assert ["q4_0", "accuracy.piqa", "0.6000", "0.1633", "6", "10", "4.50", "98.0"] in lines
    assert not any("generation" in line for line in lines), "no table of speeds without a speed"


def test_the_console_says_where_there_is_no_score(tmp_path: Path) -> None:
    campaign = scored(tmp_path, [7, 6])
    place = campaign.cells[0].repetitions[0].folder / record.OUTCOME
    failed = {**json.loads(place.read_text()), "state": "failed", "reason": "not-scored: it gave up"}
    place.write_text(json.dumps(failed))
    lines = shown(campaign.folder)
    assert ["q8_0", "no", "score", "-", "-", "-", "-", "-", "98.0"] in lines
    assert any(
        " ".join(line).startswith("q8_0: 1 of 1 repetition failed: r000 not-scored: it gave up") for line in lines
    )


def test_a_score_is_logged_with_what_it_rests_on(tmp_path: Path) -> None:
    (cell,) = scored(tmp_path, [7], bits_per_weight=4.5).cells
    points = {point.key: point.value for point in content.summary_points(cell)}
    assert points == {
        "accuracy.piqa": 0.7,
        "uncertainty/accuracy.piqa.stderr": pytest.approx(0.15275, abs=1e-5),
        "uncertainty/accuracy.piqa.n": 10,
        "uncertainty/accuracy.piqa.k": 7,
        "bits_per_weight": 4.5,
    }


def test_a_single_question_has_no_error_and_no_score_has_no_points(tmp_path: Path) -> None:
    (cell,) = scored(tmp_path, [1], asked=1).cells
    assert "uncertainty/accuracy.piqa.stderr" not in {point.key for point in content.summary_points(cell)}
    place = cell.repetitions[0].folder / record.OUTCOME
    place.write_text(json.dumps({**json.loads(place.read_text()), "state": "failed", "reason": "timeout: x"}))
    assert content.summary_points(read_campaign(cell.folder.parents[5]).cells[0]) == []


# -- the report ---------------------------------------------------------------------------------------------------


def rows(table: Table) -> list[dict[str, object]]:
    names = [column.key for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def as_tinyllama(campaign: CampaignRecord) -> Results:
    """The same scores of a model that the paper has too."""
    made = read_results([campaign])
    return replace(made, cells=tuple(replace(cell, model="tinyllama-1.1b") for cell in made.cells))


def test_the_report_reads_scores_sizes_and_the_papers_row(tmp_path: Path) -> None:
    campaign = scored(tmp_path, [60, 55], asked=100, task="arc-easy", bits_per_weight=8.0)
    entries = campaign.document.cells
    sized = [
        entry.model_copy(update={"model_bytes": size}) for entry, size in zip(entries, (10**9, 6 * 10**8), strict=True)
    ]
    changed = campaign.document.model_copy(update={"cells": sized})
    (campaign.folder / "campaign.json").write_text(changed.model_dump_json())
    made = as_tinyllama(read_campaign(campaign.folder))
    found = rows(tables.accuracy(made))
    assert [(row["task"], row["value"], row["n"], row["k"], row["model_gb"]) for row in found] == [
        ("arc-easy", 0.55, 100, 55, 0.6),
        ("arc-easy", 0.6, 100, 60, 1.0),
    ]
    (pair,) = rows(quantizations(made))
    assert (pair["quantization"], pair["against"], pair["questions"]) == ("q4_0", "q8_0", 100)
    assert (pair["lost"], pair["won"], pair["points"], pair["p"]) == (5, 0, -5, 0.0625)
    assert [pair["low"], pair["high"]] == pytest.approx([-9.9, 0.1], abs=0.05)
    beside = [row for row in rows(paper_tables.scores(made, paper.accuracy())) if row["ours"] is not None]
    assert {(row["task"], row["ours"], row["ours_n"]) for row in beside} == {("arc_easy", 0.55, 100)}
    figure = figures.accuracy(made)
    assert figure.svg is not None
    assert "q4_0 (8.00)" in figure.svg and "q8_0 (8.00)" in figure.svg
    six = next(finding for finding in evaluate(made) if finding.definition.id == "F6")
    assert six.verdict is Ruling.not_testable
    assert "in 4 bits and in 3" in str(six.reason)


def test_the_papers_mc1_stands_beside_ours_and_its_mean_does_not(tmp_path: Path) -> None:
    made = as_tinyllama(scored(tmp_path, [30, 30], asked=100, task="truthfulqa"))
    beside = {row["task"] for row in rows(paper_tables.scores(made, paper.accuracy())) if row["ours"] is not None}
    assert beside == {"truthfulqa_mc1"}
