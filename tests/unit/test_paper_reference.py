"""The study's own figures: complete, typed, and with their known defects flagged; the checks find those by themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meltrepro.errors import RecordError
from meltrepro.studies.melt import paper
from meltrepro.studies.melt.checks import ScoreRow, check_scores, standard_error


def test_every_row_has_a_source() -> None:
    sources = [
        *(row.source for row in paper.accuracy()),
        *(row.source for row in paper.sizes()),
        *(row.source for row in (*paper.throughput(), *paper.energy())),
        *(row.source for row in paper.operators()),
    ]
    assert all(sources)
    assert [len(rows()) for rows in (paper.accuracy, paper.sizes, paper.throughput, paper.energy)] == [271, 33, 23, 31]
    assert len(paper.operators()) == 52


def test_copied_rows_are_flagged_and_replaced() -> None:
    rows = [row for row in paper.accuracy() if row.model == "zephyr-3b" and row.task == "truthfulqa"]
    suspect = {row.quantization: row.value for row in rows if "suspect_copy_of_tinyllama" in row.flags}
    right = {row.quantization: row.value for row in rows if "replaces_suspect_row" in row.flags}
    assert suspect == {"unquantised": 0.2979, "q3_k": 0.2919, "q4_k": 0.2923, "q4_0": 0.3221}
    assert right == {"unquantised": 0.3787, "q3_k": 0.3638, "q4_k": 0.3821, "q4_0": 0.3842}
    assert not any(row.sound for row in rows if "suspect_copy_of_tinyllama" in row.flags)
    assert all(row.sound for row in rows if "replaces_suspect_row" in row.flags)


def scores_of_paper() -> tuple[ScoreRow, ...]:
    """The scores that the study published, with the number of questions where a score is a count."""
    return tuple(
        ScoreRow(
            model=row.model,
            quantization=row.quantization,
            framework=row.framework,
            task=row.task,
            value=row.value,
            stderr=row.stderr,
            n=paper.SPLITS.get(row.task),
            decimals=row.decimals,
            stderr_decimals=row.stderr_decimals,
        )
        for row in paper.accuracy()
        if row.value is not None and row.kind in ("reported", "composite")
    )


def test_the_checks_find_what_was_copied_between_models() -> None:
    (copied,) = (remark for remark in check_scores(scores_of_paper()) if remark.kind == "copied-from-model")
    assert {row.model for row in copied.rows} == {"zephyr-3b", "tinyllama-1.1b-v0.5"}
    assert {row.task for row in copied.rows} == {"truthfulqa"}
    assert {row.quantization for row in copied.rows} == {"unquantised", "q3_k", "q4_k", "q4_0"}


def test_the_checks_find_the_standard_errors_of_another_model() -> None:
    found = {remark.rows[0].name for remark in check_scores(scores_of_paper()) if remark.kind == "stderr-not-of-n"}
    flagged = {
        f"{row.model} {row.quantization} {row.framework} {row.task}"
        for row in paper.accuracy()
        if "stderr_inconsistent_with_n" in row.flags
    }
    assert found == flagged
    assert len(found) == 2


def test_every_published_score_is_a_count() -> None:
    assert [remark for remark in check_scores(scores_of_paper()) if remark.kind in ("not-k-over-n", "no-share")] == []
    counted = [row for row in scores_of_paper() if row.n is not None]
    assert len(counted) == 164


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (ScoreRow("m", "q", "f", "t", value=0.5052, n=100, decimals=4), "not-k-over-n"),
        (ScoreRow("m", "q", "f", "t", value=0.5, n=100, k=51), "not-k-over-n"),
        (ScoreRow("m", "q", "f", "t", value=1.5, n=None), "no-share"),
        (ScoreRow("m", "q", "f", "t", value=float("nan"), n=10), "no-share"),
        (ScoreRow("m", "q", "f", "t", value=0.5, stderr=0.04, n=100, k=50), "stderr-not-of-n"),
    ],
)
def test_one_wrong_score(row: ScoreRow, kind: str) -> None:
    (remark,) = check_scores([row])
    assert remark.kind == kind


def test_a_right_score_passes() -> None:
    right = ScoreRow("m", "q", "f", "t", value=1 / 3, stderr=standard_error(1 / 3, 300), n=300, k=100)
    assert check_scores([right]) == ()


def test_two_quantizations_that_are_one() -> None:
    rows = [
        ScoreRow("m", q, "f", task, k / 500, n=500, k=k) for q in ("a", "b") for task, k in (("s", 250), ("t", 301))
    ]
    (remark,) = check_scores(rows)
    assert remark.kind == "same-as-quantization"
    assert check_scores(rows[:3]) == (), "one equal score is chance"


def test_sizes_that_are_no_footprints_are_flagged() -> None:
    converted = [row for row in paper.sizes() if not row.flags]
    assert all(
        abs(row.disk_gb * 1e9 / 2**30 - row.published_memory_gb) < 0.06 for row in converted if row.model != "zephyr-3b"
    )
    gemma = [row for row in paper.sizes() if row.model.startswith("gemma")]
    assert all(row.flags == ("in_memory_equals_on_disk_no_gib_conversion",) for row in gemma)


def test_what_was_only_quoted_is_told_apart() -> None:
    assert paper.figure(paper.energy(), "surface_temperature_max").secondhand
    assert not paper.figure(paper.throughput(), "decode_throughput_with_profiler").secondhand
    with pytest.raises(KeyError):
        paper.figure(paper.energy(), "battery_capacity")
    assert paper.figure(paper.energy(), "battery_capacity", "Pixel 6a").value == 4410


def test_shares_of_calls_are_no_shares_of_time() -> None:
    (head,) = (row for row in paper.operators() if row.module == "decode" and row.role == "lm head")
    assert head.plotted_share == pytest.approx(0.446, abs=0.01)
    assert head.time_share == pytest.approx(0.025, abs=0.001)


def test_a_damaged_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model_sizes.csv").write_text("model,quantization\nm,q\n")
    monkeypatch.setattr(paper, "_FOLDER", tmp_path)
    paper.sizes.cache_clear()
    with pytest.raises(RecordError, match=re.escape(str(tmp_path))):
        paper.sizes()
    paper.sizes.cache_clear()
