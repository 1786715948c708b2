"""Spread, order, drift and outliers of repetitions: against simulated truth and independent implementations."""

from __future__ import annotations

import math
import random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from meltrepro.errors import RecordError
from meltrepro.stats.stability import FEWEST, autocorrelation, components, copies, drift, outliers

samples = st.lists(st.floats(-1e6, 1e6), min_size=FEWEST, max_size=30)


@pytest.mark.parametrize(("within", "between"), [(2.0, 1.0), (0.5, 3.0), (1.0, 0.0)])
def test_spread_within_and_between_runs(within: float, between: float) -> None:
    """Twenty runs of unequal length, many times: the variances are estimated without bias."""
    chance = random.Random(1)
    found = []
    for _ in range(400):
        runs = []
        for _ in range(20):
            level = chance.gauss(50, between)
            runs.append([chance.gauss(level, within) for _ in range(chance.randrange(2, 12))])
        part = components(runs)
        assert part is not None
        found.append(part)
    assert fmean(part.within**2 for part in found) == pytest.approx(within**2, rel=0.03)
    if between:
        assert fmean(part.between**2 for part in found) == pytest.approx(between**2, rel=0.06)
    else:
        assert sum(part.between == 0 for part in found) > 100, "no spread between runs is made up"
    assert found[0].within_cv == pytest.approx(found[0].within / found[0].mean)


def test_components_of_equal_runs_are_those_of_the_textbook() -> None:
    part = components([[1.0, 3.0], [5.0, 7.0], [6.0, 8.0]])
    assert part is not None
    within, between = 2.0, 2 * ((2 - 5) ** 2 + (6 - 5) ** 2 + (7 - 5) ** 2) / 2
    assert part.within == pytest.approx(math.sqrt(within))
    assert part.between == pytest.approx(math.sqrt((between - within) / 2))
    assert (part.runs, part.values, part.mean) == (3, 6, 5)


def test_components_of_unequal_runs() -> None:
    """By hand: means 2 and 8 around 6, and a mean size of (6 - (2^2 + 4^2) / 6) / 1."""
    part = components([[1.0, 3.0], [5.0, 7.0, 9.0, 11.0]])
    assert part is not None
    within, between, size = (2 + 20) / 4, 2 * 16 + 4 * 4, (6 - 20 / 6) / 1
    assert part.within == pytest.approx(math.sqrt(within))
    assert part.between == pytest.approx(math.sqrt((between - within) / size))


def test_spread_that_cannot_be_told_apart() -> None:
    assert components([[1.0, 2.0]]) is None
    assert components([[1.0], [2.0], []]) is None
    same = components([[4.0, 4.0], [4.0, 4.0]])
    assert same is not None
    assert (same.within, same.between) == (0, 0)


@pytest.mark.parametrize("n", [5, 10, 30, 100])
def test_independent_values_pass_nineteen_times_in_twenty(n: int) -> None:
    chance = random.Random(n)
    results = [autocorrelation([chance.gauss(10, 1) for _ in range(n)]) for _ in range(2000)]
    assert 0.93 <= fmean(result is not None and result.independent for result in results) <= 0.985


def test_autocorrelation_by_hand() -> None:
    """Off the mean of 4 by -3, -2, 0, 4, 1: neighbours 10, squares 30. Values that differ by next to nothing say nothing."""
    found = autocorrelation([1.0, 2.0, 4.0, 8.0, 5.0])
    assert found is not None
    reach = stats.norm.ppf(0.975) * 3 / (5 * 2)
    assert (found.coefficient, found.low, found.high) == pytest.approx((10 / 30, -0.2 - reach, -0.2 + reach))
    assert autocorrelation([0.0, 0.0, 0.0, 0.0, 1e-300]) is None


def test_values_that_wander_are_found() -> None:
    chance, found = random.Random(2), 0
    for _ in range(200):
        values = [0.0]
        for _ in range(29):
            values.append(0.7 * values[-1] + chance.gauss(0, 1))
        result = autocorrelation(values)
        found += result is not None and not result.independent
    assert found > 160
    alternating = autocorrelation([1.0, 2.0] * 10)
    assert alternating is not None
    assert alternating.coefficient < -0.9
    assert not alternating.independent
    assert autocorrelation([3.0] * 10) is None
    assert autocorrelation([1.0, 2.0, 3.0, 4.0]) is None


@given(samples)
def test_slope_and_interval_against_another_implementation(values: list[float]) -> None:
    times = [10.0 * i for i in range(len(values))]
    found = drift(times, values)
    assert found is not None
    theirs = stats.theilslopes(values, times, alpha=0.95)
    scale = max(map(abs, values)) * 1e-6 + 1e-9
    assert found.per_hour / 3600 == pytest.approx(theirs.slope, abs=scale)
    # Ties narrow their interval; ours may be wider by a rank.
    assert found.low / 3600 <= theirs.low_slope + scale
    assert found.high / 3600 >= theirs.high_slope - scale


@pytest.mark.parametrize("n", range(FEWEST, 45))
def test_the_interval_of_a_slope_is_that_of_kendall(n: int) -> None:
    """Hollander and Wolfe 1999, section 9.3: slopes of the ranks (N - C) / 2 and (N + C) / 2."""
    chance = random.Random(n)
    times, values = [1000.0 + 7 * i for i in range(n)], [chance.gauss(50, 1) for _ in range(n)]
    slopes = np.sort([(values[j] - values[i]) / (7 * (j - i)) for i in range(n) for j in range(i + 1, n)])
    reach = stats.norm.ppf(0.975) * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    rank = max(1, math.floor((slopes.size - reach) / 2))
    found = drift(times, values)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((3600 * slopes[rank - 1], 3600 * slopes[-rank]))
    assert found.per_hour == pytest.approx(3600 * np.median(slopes))
    assert found.change == pytest.approx(np.median(slopes) * 7 * (n - 1) / np.median(values))


def test_values_of_one_moment_have_no_slope_between_them() -> None:
    found = drift([0.0, 0.0, 1.0, 2.0, 3.0, 4.0], [-1.0, -1.0, 1.0, 3.0, 5.0, 7.0])
    assert found is not None
    assert (found.per_hour, found.low, found.high) == (7200, 7200, 7200)
    level = drift([0.0, 1.0, 2.0, 3.0, 4.0], [-1.0, -1.0, 0.0, 1.0, 1.0])
    assert level is not None
    assert level.change is None, "of nothing there is no share"


def test_a_drift_is_established_and_chance_is_none() -> None:
    chance = random.Random(3)
    times = [60.0 * i for i in range(20)]
    false_alarms = 0
    for _ in range(300):
        level = drift(times, [chance.gauss(50, 1) for _ in times])
        assert level is not None
        false_alarms += level.established
    assert false_alarms <= 24
    falling = drift(times, [50 * (1 - 0.06 * t / times[-1]) + chance.gauss(0, 0.3) for t in times])
    assert falling is not None
    assert falling.established
    assert falling.change == pytest.approx(-0.06, abs=0.02)
    assert falling.low <= -0.06 * 50 / (times[-1] / 3600) <= falling.high


def test_a_long_campaign_is_thinned_and_a_short_one_says_nothing() -> None:
    n = 5000
    long = drift([float(i) for i in range(n)], [float(np.float64(i) * 2 + i % 7) for i in range(n)])
    assert long is not None
    assert long.per_hour / 3600 == pytest.approx(2, abs=0.001)
    swing = [k for i in range(400) for k in (float(i % 7), -float(i % 7))]
    paired = drift([float(i) for i in range(800)], swing)
    assert paired is not None
    assert (paired.low, paired.high) == (0, 0), "neighbours were averaged, from the first on"
    assert drift([0.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]) is None
    assert drift([0.0] * 10, [float(i) for i in range(10)]) is None


def test_stray_values_are_reported() -> None:
    values = [10.0, 10.2, 9.9, 10.1, 13.0, 10.0, 9.8]
    assert outliers(values) == (4,)
    assert outliers([10.0] * 9 + [10.5]) == (9,), "where most values are the same, the one that differs is found"
    assert outliers([10.0] * 10) == ()
    assert outliers([10.0, 10.1, 9.9, 10.2, 99.0]) == (4,), "five are enough"
    assert outliers([1.0, 1.0, 1.0, 99.0]) == (), "four values say nothing"
    chance = random.Random(4)
    assert fmean(len(outliers([chance.gauss(0, 1) for _ in range(20)])) / 20 for _ in range(300)) < 0.01


@pytest.mark.parametrize("value", [0.1, 1.1, 123.456])
@pytest.mark.parametrize("n", [5, 7, 12, 30])
def test_values_that_are_all_the_same_hang_together_in_no_way(value: float, n: int) -> None:
    assert autocorrelation([value] * n) is None


@given(samples)
def test_outliers_do_not_depend_on_the_unit_and_are_few(values: list[float]) -> None:
    values = [round(value, 2) for value in values]
    assert outliers([value * 1024 for value in values]) == outliers(values)
    assert len(outliers(values)) < len(values) / 2


def test_rows_that_were_copied() -> None:
    """MELT's artifact, section 8, item 7: one model's scores stand again under the name of another."""
    rows = {
        "tinyllama": [0.2191, 0.3768, 0.2081, 0.3757],
        "gemma": [0.2754, 0.2796, 0.2735, 0.2866],
        "zephyr": [0.2191, 0.3768, 0.2081, 0.3757],
        "counts": [34.0, 34.0],
        "more counts": [34.0, 34.0],
    }
    assert copies(rows) == (("tinyllama", "zephyr"),)
    assert copies({"a": [1.5, 2.5], "b": [1.5, 2.5], "c": [1.5, 2.5]}) == (("a", "b"), ("a", "c"))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_none(bad: float) -> None:
    values = [1.0, 2.0, 3.0, 4.0, bad]
    for call in (
        lambda: components([values, values]),
        lambda: autocorrelation(values),
        lambda: drift([0.0, 1.0, 2.0, 3.0, 4.0], values),
        lambda: outliers(values),
    ):
        with pytest.raises(RecordError, match="not finite"):
            call()
    with pytest.raises(RecordError, match="5 times for 4 values"):
        drift([0.0, 1.0, 2.0, 3.0, 4.0], values[:4])


@pytest.mark.parametrize("n", [5, 7, 8, 12, 30])
def test_steady_values_seldom_hold_an_outlier(n: int) -> None:
    chance = random.Random(n)
    found = sum(bool(outliers([chance.gauss(0, 1) for _ in range(n)])) for _ in range(1000))
    assert found <= 75, "5 % of samples, with room for chance"
