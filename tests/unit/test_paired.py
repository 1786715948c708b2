"""Two sides on the same questions: the exact test, and how often the interval holds the true difference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from meltrepro.stats.paired import Pairs, paired


def test_only_common_questions_count() -> None:
    first = {"a": True, "b": True, "c": False, "d": True}
    second = {"b": False, "c": True, "d": True, "e": True}
    assert paired(first, second) == Pairs(3, 1, 1)
    assert paired(first, {"z": True}) is None


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 2 / 2**5),
        (1, 9, 2 * 11 / 2**10),
        (10, 2, 2 * (1 + 12 + 66) / 2**12),
    ],
)
def test_mcnemars_exact_test_is_the_binomial_one(lost: int, won: int, p: float) -> None:
    assert Pairs(100, lost, won).p == pytest.approx(p)


def test_the_interval_is_that_of_bonett_and_price() -> None:
    """By hand: (won + 1 - lost - 1) / (n + 2), and Wald's width with these counts."""
    low, high = Pairs(50, 8, 2).interval()
    middle, share = (3 - 9) / 52, (3 + 9) / 52
    off = 1.959964 * math.sqrt((share - middle**2) / 52)
    assert (low, high) == pytest.approx((middle - off, middle + off))
    assert Pairs(50, 8, 2).difference == pytest.approx(-0.12)
    assert Pairs(1, 0, 1).interval()[1] <= 1
    assert Pairs(200, 0, 0).interval() == pytest.approx((-0.0137, 0.0137), abs=1e-4), (
        "nothing seen is not nothing there"
    )


@pytest.mark.parametrize(
    ("n", "lost", "won"), [(40, 0.05, 0.05), (100, 0.08, 0.02), (300, 0.15, 0.10), (1000, 0.02, 0.01)]
)
def test_the_interval_holds_what_it_says(n: int, lost: float, won: float) -> None:
    """4,000 draws of questions that each side alone answers right so often: 95 % within what chance allows, or more."""
    draws = np.random.default_rng(7).multinomial(n, [lost, won, 1 - lost - won], size=4000)
    held = [low <= won - lost <= high for low, high in (Pairs(n, *map(int, row[:2])).interval() for row in draws)]
    assert 0.94 <= np.mean(held) <= 0.99


def test_the_test_errs_as_seldom_as_it_says() -> None:
    draws = np.random.default_rng(8).multinomial(150, [0.06, 0.06, 0.88], size=4000)
    assert np.mean([Pairs(150, *map(int, row[:2])).p < 0.05 for row in draws]) <= 0.05
