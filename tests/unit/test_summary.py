"""Summaries: the interval against an independent implementation, and its coverage by simulation."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from meltrepro.errors import RecordError
from meltrepro.stats.summary import FEWEST, _resampled_medians, summarize

finite = st.floats(-1e12, 1e12)


@pytest.mark.parametrize("n", [5, 6, 9, 12, 25])
def test_interval_is_the_limit_of_a_simulated_bca_bootstrap(n: int) -> None:
    rng = random.Random(n)
    values = [rng.lognormvariate(0, 1) for _ in range(n)]
    expected = stats.bootstrap(
        (values,), np.median, method="BCa", n_resamples=40_000, rng=np.random.default_rng(1)
    ).confidence_interval
    summary = summarize(values)
    possible = sorted({a if n % 2 else a / 2 + b / 2 for a in values for b in (values if n % 2 == 0 else [a])})
    # Both end at values that the median can take, at the same one unless a level falls right between two.
    for mine, theirs in ((summary.low, expected.low), (summary.high, expected.high)):
        places = np.searchsorted(possible, [mine - 1e-9, theirs - 1e-9])
        assert abs(int(places[0]) - int(places[1])) <= (0 if n % 2 else 1)


@pytest.mark.parametrize(("n", "least", "most"), [(5, 0.90, 0.97), (10, 0.90, 0.98), (20, 0.90, 0.98)])
@pytest.mark.parametrize("skewed", [False, True])
def test_coverage(n: int, least: float, most: float, skewed: bool) -> None:
    rng = random.Random(7)
    campaigns = 1000
    draw = rng.lognormvariate if skewed else rng.gauss
    truth = 1.0 if skewed else 0.0
    covered = 0
    for _ in range(campaigns):
        summary = summarize([draw(0, 1) for _ in range(n)])
        covered += summary.low <= truth <= summary.high
    assert least <= covered / campaigns <= most


@pytest.mark.parametrize("n", [5, 6, 20, 21, 100, 1000, 9999, 10_000])
def test_medians_of_all_resamples_have_probability_one(n: int) -> None:
    assert sum(p for _, _, p in _resampled_medians(n)) == pytest.approx(1, abs=1e-9)


def test_medians_of_all_resamples_of_four_by_counting() -> None:
    """4**4 resamples are few enough to look at each."""
    from collections import Counter
    from itertools import product

    counted = Counter(tuple(sorted(draw)[1:3]) for draw in product(range(4), repeat=4))
    computed = {(i, j): p for i, j, p in _resampled_medians(4)}
    assert {pair: n / 4**4 for pair, n in counted.items()} == pytest.approx(computed)


@given(st.lists(finite, min_size=1, max_size=40))
def test_order_of_values_is_irrelevant_and_bounds_hold(values: list[float]) -> None:
    summary = summarize(values)
    assert summary == summarize(list(reversed(values)))
    slack = 1e-9 * max(map(abs, values))
    assert summary.minimum <= summary.low + slack
    assert summary.low <= summary.median + slack
    assert summary.median <= summary.high + slack
    assert summary.high <= summary.maximum + slack
    assert summary.n == len(values)
    assert summary.interval == ("single" if summary.n == 1 else "range" if summary.n < FEWEST else "bca")


@given(st.lists(st.integers(1, 1000), min_size=5, max_size=20), st.sampled_from([2.0, 1024.0]))
def test_interval_scales_with_the_unit(values: list[int], factor: float) -> None:
    plain, scaled = summarize(values), summarize([value * factor for value in values])
    assert (scaled.low, scaled.median, scaled.high) == (plain.low * factor, plain.median * factor, plain.high * factor)
    assert scaled.cv == pytest.approx(plain.cv)


def test_few_values_give_their_range() -> None:
    summary = summarize([3, 1, 2])
    assert (summary.median, summary.low, summary.high, summary.interval) == (2, 1, 3, "range")
    assert (summary.mean, summary.cv) == (2, 0.5)


def test_one_value_is_flagged() -> None:
    summary = summarize([4.5])
    assert (summary.median, summary.low, summary.high, summary.interval) == (4.5, 4.5, 4.5, "single")
    assert summary.cv is None


def test_equal_values_have_an_interval_of_no_width() -> None:
    summary = summarize([7.0] * 12)
    assert (summary.low, summary.median, summary.high, summary.cv) == (7, 7, 7, 0)


def test_wider_confidence_gives_a_wider_interval() -> None:
    values = [float(value) for value in range(20)]
    narrow, wide = summarize(values, confidence=0.5), summarize(values, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_what_cannot_be_summarised_is_refused(values: list[float]) -> None:
    with pytest.raises(RecordError):
        summarize(values)
