"""Warm-ups end when the cell is steady, and a rerun decides the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.campaign.runner import is_steady
from tests.support.campaigns import Cell, Trial, Turn, build_campaign

MS = 1_000_000


def cell(tmp_path: Path, *gaps_ms: int) -> Path:
    """A cell whose warm-ups have these times per token; 0: the warm-up failed."""
    folder = tmp_path / "cell"
    for number, gap_ms in enumerate(gaps_ms):
        trial = Trial(conversations=[[Turn(gaps_ns=(max(gap_ms, 1) * MS,) * 4)]])
        failing = {0: "crashed: x"} if gap_ms == 0 else {}
        made = build_campaign(tmp_path / f"h{number}", [Cell(trial=trial, failing=failing)], repetitions=1, warmups=0)
        (source,) = made.glob("cells/*/*/*/*/*/r000")
        folder.mkdir(exist_ok=True)
        source.rename(folder / f"w{number:03d}")
    return folder


@pytest.mark.parametrize(
    ("gaps_ms", "steady"),
    [
        ((), False),
        ((20,), False),
        ((20, 21), False),
        ((30, 21, 20), False),
        ((30, 100, 101), True),
        ((100, 101, 200), True),
        ((100, 0, 100), False),
    ],
)
def test_two_in_a_row_within_the_limit(tmp_path: Path, gaps_ms: tuple[int, ...], steady: bool) -> None:
    folder = cell(tmp_path, *gaps_ms)
    assert is_steady(folder, len(gaps_ms), 0.02) is steady
    assert not is_steady(folder, len(gaps_ms), None)
    assert not is_steady(folder, min(1, len(gaps_ms)), 0.02)
