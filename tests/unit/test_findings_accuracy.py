"""Findings of accuracy, and checks of scores."""

from __future__ import annotations

from dataclasses import replace

from meltrepro.report.results import CellResult
from meltrepro.studies.melt.checks import check_scores, scores_of
from meltrepro.studies.melt.findings.model import Ruling
from tests.support.findings import (
    CASES,
    found,
)
from tests.support.results import cell, scores, table


def test_f6_small_models_must_lose_more_where_two_sizes_are_known() -> None:
    def ladder(name: str, parameters: float, low: int) -> list[CellResult]:
        points = (("f16", 600), ("q4_K", 590), ("q3_K", low))
        return [cell(name, q, parameters=parameters, scores=scores(k)) for q, k in points]

    assert found("F6", *ladder("s", 1e8, 400), *ladder("l", 1e9, 550)).verdict is Ruling.holds
    assert found("F6", *ladder("s", 1e8, 550), *ladder("l", 1e9, 400)).verdict is Ruling.fails
    assert "one size" in found("F6", *ladder("s", 1e8, 400)).notes[-1]


def test_f6_tells_where_too_few_were_asked() -> None:
    few = [cell(quantization=q, scores=scores(k, n=30)) for q, k in (("f16", 15), ("q4_K", 16), ("q3_K", 14))]
    finding = found("F6", *few)
    assert finding.verdict is Ruling.fails
    assert any("says little" in note for note in finding.notes)
    many = [
        cell(quantization=q, scores=scores(k, n=20000)) for q, k in (("f16", 10000), ("q4_K", 10001), ("q3_K", 10002))
    ]
    assert not any("says little" in note for note in found("F6", *many).notes)


def test_f6_puts_the_tasks_of_several_cells_together() -> None:
    spread = [
        replace(one, workload=score.task, cell=f"{one.cell}-{score.task}", scores=(score,))
        for one in CASES["F6"].holds
        for score in one.scores
    ]
    finding = found("F6", *spread)
    assert finding.verdict is Ruling.holds
    assert finding.numbers == found("F6", *CASES["F6"].holds).numbers
    assert len(finding.evidence) == 6


def test_f6_takes_scores_of_the_same_questions_that_count_right_answers() -> None:
    agreement = [
        replace(one, scores=tuple(replace(s, metric="same_top") for s in one.scores)) for one in CASES["F6"].holds
    ]
    assert found("F6", *agreement).verdict is Ruling.not_testable
    first, *others = CASES["F6"].holds
    assert found("F6", replace(first, scores=scores(300, n=500)), *others).verdict is Ruling.not_testable


def test_f6_tells_that_the_reference_was_quantized_before() -> None:
    cells = [replace(one, source=("**/SmolLM2-135M-Instruct.Q4_1.gguf",)) for one in CASES["F6"].holds]
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
