"""Location and ratio of samples, with intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltrepro.errors import RecordError, UsageError
from meltrepro.stats.ratio import comparable, locate, paired, ratio_interval, unpaired

positive = st.floats(1e-6, 1e6)
samples = st.lists(positive, min_size=2, max_size=12)


def normal(n: int, *seed: int) -> list[float]:
    return [float(x) for x in np.exp(np.random.default_rng(seed).normal(3, 0.05, n))]


def test_location_ignores_strays_on_both_ends() -> None:
    assert ratio_interval([1.0], [10, 10, 10, 10, 1000]).ratio == pytest.approx(10)
    assert ratio_interval([1.0], [0.001, 10, 10, 10, 10]).ratio == pytest.approx(10)
    assert ratio_interval([1.0], [2, 8]).ratio == pytest.approx(4)


@pytest.mark.parametrize("n", [5, 10, 30])
def test_interval_covers_the_truth_as_often_as_it_says(n: int) -> None:
    held = sum(
        interval.low <= 1 <= interval.high
        for interval in (ratio_interval(normal(n, 1, i), normal(n, 2, i), 0.90, seed=i) for i in range(800))
    )
    assert 0.87 <= held / 800 <= 0.97


def test_interval_narrows_with_trials_and_widens_with_confidence() -> None:
    few, many = ratio_interval(normal(6, 1), normal(6, 2)), ratio_interval(normal(60, 1), normal(60, 2))
    assert math.log(many.high / many.low) < math.log(few.high / few.low) / 2
    wide = ratio_interval(normal(6, 1), normal(6, 2), 0.999)
    assert wide.low < few.low < few.ratio < few.high < wide.high


def test_large_samples_are_resampled_in_pieces() -> None:
    interval = ratio_interval(normal(5000, 1), normal(5000, 2))
    assert interval.high / interval.low == pytest.approx(1.004, abs=0.002)


def test_same_seed_same_interval() -> None:
    assert ratio_interval(normal(8, 1), normal(8, 2), seed=3) == ratio_interval(normal(8, 1), normal(8, 2), seed=3)
    assert ratio_interval(normal(8, 1), normal(8, 2), seed=3) != ratio_interval(normal(8, 1), normal(8, 2), seed=4)


def test_single_values_have_a_ratio_without_bounds() -> None:
    interval = ratio_interval([2.0], [1.0, 1.1, 1.2])
    assert (interval.low, interval.high) == (0, math.inf)
    assert ratio_interval([2.0], [1.0]).ratio == pytest.approx(0.5)


def test_constant_samples_have_a_point() -> None:
    interval = ratio_interval([4.0] * 3, [5.0] * 3)
    assert interval.low == interval.ratio == interval.high == pytest.approx(1.25)


@settings(max_examples=60, deadline=None)
@given(samples, samples, st.floats(0.1, 10))
def test_ratio_follows_a_factor_and_lies_in_its_interval(a: list[float], b: list[float], factor: float) -> None:
    plain, scaled = ratio_interval(a, b), ratio_interval(a, [factor * x for x in b])
    assert scaled.ratio == pytest.approx(factor * plain.ratio, rel=1e-6)
    assert plain.low <= plain.ratio * (1 + 1e-12) and plain.ratio <= plain.high * (1 + 1e-12)
    assert not math.isnan(plain.low) and not math.isnan(plain.high)


def test_pairs_remove_what_is_common() -> None:
    common = np.linspace(0, 1, 20)
    a, b = common + np.log(normal(20, 1)), common + np.log(normal(20, 2))
    apart = unpaired(locate(a, 0, 0), locate(b, 0, 1))
    together = paired(locate(b - a, 0, 0))
    assert together.error < apart.error / 3
    assert together.df == 19 and apart.df == pytest.approx(38, abs=3)


def test_session_variance_is_added_to_what_trials_cannot_reduce() -> None:
    a, b = (locate(np.log(normal(10, i)), 0, i) for i in (1, 2))
    plain, widened = unpaired(a, b), unpaired(a, b, session_cv=0.03)
    assert widened.fixed_variance == pytest.approx(plain.fixed_variance + 2 * 0.03**2)
    assert widened.shrinking_variance == plain.shrinking_variance


@pytest.mark.parametrize("values", [[], [0.0], [1.0, -2.0], [math.nan], [math.inf]])
def test_values_without_logarithm(values: list[float]) -> None:
    assert not comparable(values)
    with pytest.raises(RecordError):
        ratio_interval(values, [1.0])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_senseless_confidence(confidence: float) -> None:
    with pytest.raises(UsageError):
        ratio_interval([1.0], [1.0], confidence)
