"""Location and ratio of samples, with intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltrepro.errors import RecordError, UsageError
from meltrepro.stats.ratio import Location, LogRatio, comparable, exp, locate, paired, ratio_interval, unpaired
from tests.support.examples import examples

positive = st.floats(1e-6, 1e6)
samples = st.lists(positive, min_size=2, max_size=12)


def normal(n: int, *seed: int) -> list[float]:
    return [float(x) for x in np.exp(np.random.default_rng(seed).normal(3, 0.05, n))]


def test_location_ignores_strays_on_both_ends() -> None:
    assert ratio_interval([1.0], [10, 10, 10, 10, 1000]).ratio == pytest.approx(10)
    assert ratio_interval([1.0], [0.001, 10, 10, 10, 10]).ratio == pytest.approx(10)
    assert ratio_interval([1.0], [2, 8]).ratio == pytest.approx(4)


@pytest.mark.slow
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


@settings(max_examples=examples(60), deadline=None)
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
    with pytest.raises(RecordError) as caught:
        ratio_interval(values, [1.0])
    said = f"one is {values[-1]}" if values else "the sample is empty"
    assert caught.value.message == f"a ratio needs finite values above zero; {said}"
    assert caught.value.hint == "compare such a metric by its difference, or leave it out of the comparison"


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_senseless_confidence(confidence: float) -> None:
    with pytest.raises(UsageError, match=f"^confidence must lie between 0 and 1, got {confidence}$"):
        ratio_interval([1.0], [1.0], confidence)


def test_a_seed_gives_the_same_interval_on_every_machine() -> None:
    """A record that is judged again must be judged alike: these numbers may change only with a note to users."""
    few = ratio_interval(normal(8, 1), normal(7, 2), 0.9, seed=3)
    assert (few.low, few.ratio, few.high) == pytest.approx(
        (0.9274572908304469, 0.9842766109081632, 1.0445768838728886), rel=1e-9
    )
    many = locate(np.log(normal(3000, 1)), 0, 0)  # resampled in four pieces, the last of one row
    assert (many.centre, many.variance, many.n) == pytest.approx((3.0000581897842444, 9.238650522125737e-07, 3000))
    assert ratio_interval(normal(8, 1), normal(7, 2)) == ratio_interval(normal(8, 1), normal(7, 2), 0.95, 0)


def test_degrees_of_freedom_are_those_of_welch_and_satterthwaite() -> None:
    found = unpaired(Location(1.0, 0.04, 5), Location(1.5, 0.09, 10), session_cv=0.3)
    assert (found.estimate, found.fixed_variance, found.shrinking_variance) == pytest.approx((0.5, 0.22, 0.09))
    assert found.df == pytest.approx(0.31**2 / (0.04**2 / 4 + 0.09**2 / 9))
    assert unpaired(Location(1.0, 0.0, 2), Location(1.5, 0.0, 2)).df == math.inf
    assert unpaired(Location(1.0, 0.1, 2), Location(1.5, math.inf, 1)).df == 0
    assert paired(Location(0.5, 0.01, 7)) == LogRatio(0.5, 0.0, 0.01, 6)


def test_bounds_are_those_of_student() -> None:
    low, high = LogRatio(0.5, 0.03, 0.01, 4).bounds(0.025)
    reach = 2.7764451 * 0.2
    assert (low, high) == pytest.approx((0.5 - reach, 0.5 + reach))
    assert LogRatio(0.5, 0.0, 0.0, 4).bounds(0.025) == (0.5, 0.5)
    assert LogRatio(0.5, 0.03, 0.01, 0).bounds(0.025) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, 1.0), (708.0, math.exp(708)), (709.0, math.inf), (709.9, math.inf)]
)
def test_an_exponential_beyond_floats_is_infinite(value: float, expected: float) -> None:
    assert exp(value) == expected
