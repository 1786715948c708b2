"""What repetitions say of each other is told beside the summary; no value is dropped for it."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from meltrepro.measure.records import read_campaign
from meltrepro.measure.validity import steadiness
from tests.support.campaigns import MS, Cell, Trial, Turn, build_campaign
from tests.unit.test_results_table import shown


def remarks(values: list[float], every_s: float = 60) -> list[str]:
    return steadiness("x", [(f"r{i:03d}", i * every_s, value) for i, value in enumerate(values)]).remarks()


def test_steady_repetitions_get_no_remark() -> None:
    chance = random.Random(1)
    odd = sum(bool(remarks([chance.gauss(100, 2) for _ in range(12)])) for _ in range(200))
    assert odd <= 30, "about 5 % each for drift, autocorrelation and outliers"


def test_an_outlier_is_named_and_stays() -> None:
    values = [100, 101, 99, 100.5, 60, 99.5, 100.2]
    assert remarks(values) == ["x: r004 is an outlier"]
    assert remarks([*values, 170, 99.8, 100.1])[0] == "x: r004, r007 are outliers"


def test_values_that_differ_by_nothing_that_matters_get_no_remark() -> None:
    assert remarks([10.0] * 11 + [10.0000001]) == []
    assert remarks([0.1] * 12) == [], "their mean is not 0.1 to the last bit"


def test_drift_over_the_campaign() -> None:
    chance = random.Random(2)
    (remark,) = remarks([100 - i + chance.gauss(0, 0.3) for i in range(12)])
    assert remark.startswith("x: falls by 1") and remark.endswith("% over the campaign")


def test_a_drift_too_small_to_matter_is_not_told() -> None:
    assert (
        remarks([100 + i * 0.01 for i in range(12)]) == []
        or "depend" in remarks([100 + i * 0.01 for i in range(12)])[0]
    )


def test_repetitions_that_hang_together() -> None:
    (remark,) = remarks([100, 101, 102, 103, 103, 102, 101, 100, 99, 98, 97, 97, 98, 99, 100, 101] * 2)
    assert remark.startswith("x: repetitions depend on the one before (autocorrelation 0.")


@given(st.lists(st.floats(1, 1e6), max_size=30))
def test_the_order_in_which_trials_are_named_does_not_matter(values: list[float]) -> None:
    named = [(f"r{i:03d}", float(i), value) for i, value in enumerate(values)]
    shuffled = named[:]
    random.Random(len(values)).shuffle(shuffled)
    assert steadiness("x", named) == steadiness("x", shuffled)


def test_within_and_between_trials_apart(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell("q8_0", 40)], repetitions=8)
    (cell,) = read_campaign(folder).cells
    spread = cell.token_spread
    assert spread is not None and spread.runs == 8
    assert spread.within_cv is not None and 0.01 < spread.within_cv < 0.03, "made with 2 %"
    assert spread.between_cv is not None and 0.02 < spread.between_cv < 0.09, "made with 5 %"


def test_a_remark_stands_below_the_table(tmp_path: Path) -> None:
    slow = Trial(conversations=[[Turn(gaps_ns=(60 * MS,) * 9)]])
    folder = build_campaign(tmp_path, [Cell("q8_0", 40)], repetitions=7)
    text = shown(folder)
    assert "outlier" not in text
    other = build_campaign(tmp_path / "other", [Cell("q8_0", 40, trial=slow)], repetitions=7)
    assert "outlier" not in shown(other), "all the same is nothing odd"
