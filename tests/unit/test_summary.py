"""Summaries: the interval against an independent implementation, and how often it holds, by simulation."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from meltrepro.errors import RecordError
from meltrepro.stats.summary import CONFIDENCE, FEWEST, INTERVAL, summarize

finite = st.floats(-1e12, 1e12)


DRAWS: dict[str, tuple[Callable[[random.Random], float], float]] = {
    "normal": (lambda rng: rng.gauss(100, 1), 100),
    "lognormal": (lambda rng: rng.lognormvariate(0, 0.5), 1),
    "uniform": (lambda rng: rng.uniform(95, 105), 100),
    "exponential": (lambda rng: 100 - rng.expovariate(1), 100 - math.log(2)),
    "every fifth disturbed": (lambda rng: rng.uniform(70, 90) if rng.random() < 0.2 else rng.uniform(99, 101), 99.75),
}


@pytest.mark.parametrize("n", [3, 5, 6, 8, 13, 30])
@pytest.mark.parametrize("distribution", DRAWS)
def test_an_interval_holds_at_the_level_that_is_said(n: int, distribution: str) -> None:
    draw, truth = DRAWS[distribution]
    rng = random.Random(7)
    campaigns = 1000
    summaries = [summarize([draw(rng) for _ in range(n)]) for _ in range(campaigns)]
    held = sum(one.low <= truth <= one.high for one in summaries) / campaigns
    assert held == pytest.approx(summaries[0].level, abs=4 * math.sqrt(0.25 * 0.25 / campaigns) + 0.01)
    assert summaries[0].level >= CONFIDENCE or n < FEWEST


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 20, 21, 1000, pytest.param(9999, marks=pytest.mark.slow)])
def test_the_level_is_that_of_the_sign_test(n: int) -> None:
    summary = summarize(list(range(n)))
    outside = int(summary.low)
    assert summary.high == n - 1 - outside
    assert summary.level == pytest.approx(1 - 2 * stats.binom.cdf(outside, n, 0.5))
    assert 1 - 2 * stats.binom.cdf(outside + 1, n, 0.5) < CONFIDENCE, "no narrower one would do"


def test_what_is_said_of_few_is_so() -> None:
    said = [f"{100 * summarize([0.0] * n).level:.0f} % ({n})" for n in (3, 4, 5)]
    assert all(text in INTERVAL for text in said)


@pytest.mark.parametrize(("n", "few"), [(1, True), (2, True), (3, False)])
def test_fewer_than_three_are_too_few_to_judge(n: int, few: bool) -> None:
    assert summarize([1.0] * n).too_few is few


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
    assert 0 <= summary.level < 1


@given(st.lists(st.integers(1, 1000), min_size=5, max_size=20), st.sampled_from([2.0, 1024.0]))
def test_interval_scales_with_the_unit(values: list[int], factor: float) -> None:
    plain, scaled = summarize(values), summarize([value * factor for value in values])
    assert (scaled.low, scaled.median, scaled.high) == (plain.low * factor, plain.median * factor, plain.high * factor)
    assert scaled.cv == pytest.approx(plain.cv)


def test_few_values_give_their_range() -> None:
    summary = summarize([3, 1, 2])
    assert (summary.median, summary.low, summary.high) == (2, 1, 3)
    assert (summary.mean, summary.cv) == (2, 0.5)


def test_one_value_is_flagged() -> None:
    summary = summarize([4.5])
    assert (summary.median, summary.low, summary.high) == (4.5, 4.5, 4.5)
    assert summary.cv is None


def test_equal_values_have_an_interval_of_no_width() -> None:
    summary = summarize([7.0] * 12)
    assert (summary.low, summary.median, summary.high, summary.cv) == (7, 7, 7, 0)


def test_two_values_have_a_spread() -> None:
    assert summarize([1.0, 3.0]).cv == pytest.approx(math.sqrt(2) / 2)
    assert summarize([-1.0, -3.0]).cv == pytest.approx(math.sqrt(2) / 2)
    assert summarize([-1.0, 1.0]).cv is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "there are no values to summarise"),
        ([1.0, float("nan")], "a value to summarise is not finite: nan"),
        ([float("inf")], "a value to summarise is not finite: inf"),
    ],
)
def test_what_cannot_be_summarised_is_refused(values: list[float], message: str) -> None:
    with pytest.raises(RecordError, match=f"^{message}$"):
        summarize(values)
