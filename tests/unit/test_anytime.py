"""The interval that may be looked at as often as one likes: how often it errs, and what stopping by it saves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import hypergeom

from meltrepro.stats.anytime import ALPHA, known_within, share_interval

RUNS = 3000
TOTAL, EVERY = 400, 20


def looks(right: int, seed: int) -> Iterator[list[tuple[int, int]]]:
    """Of each simulated run: how many were asked and right at each look, when `right` of `TOTAL` would be."""
    random = np.random.default_rng(seed)
    answers = np.arange(TOTAL) < right
    for _ in range(RUNS):
        counts = np.cumsum(random.permutation(answers))
        yield [(asked, int(counts[asked - 1])) for asked in range(EVERY, TOTAL + 1, EVERY)]


def holds(asked: int, right: int, truth: float) -> bool:
    low, high = share_interval(asked, right, TOTAL)
    return low <= truth <= high


@pytest.mark.parametrize(("right", "missed"), [(0, 0), (20, 15), (120, 43), (200, 31), (380, 13)])
def test_the_truth_is_outside_at_any_look_as_seldom_as_it_says(right: int, missed: int) -> None:
    """3,000 runs of 20 looks each; seeded, so that the number of runs with any miss is the same every time."""
    found = [all(holds(*look, right / TOTAL) for look in run) for run in looks(right, seed=1)]
    assert found.count(False) == missed
    assert missed / RUNS <= ALPHA


def test_an_interval_for_one_look_errs_far_more_often_over_many() -> None:
    """Why that is needed: Wald's interval of 95 %, looked at after each 20 of so many questions."""

    def wald(asked: int, right: int) -> bool:
        share = right / asked
        off = 1.96 * np.sqrt(share * (1 - share) / (asked - 1) * (1 - asked / TOTAL))
        return bool(abs(share - 0.3) <= off + 1e-12)

    assert np.mean([not all(wald(*look) for look in run) for run in looks(120, seed=2)]) > 0.25


@pytest.mark.parametrize(
    ("right", "within", "asked"), [(120, 0.1, 161), (200, 0.1, 169), (20, 0.05, 213), (120, 0.05, 300)]
)
def test_stopping_keeps_the_level_and_saves_questions(right: int, within: float, asked: int) -> None:
    stops = [next(look for look in run if known_within(*look, TOTAL, within)) for run in looks(right, seed=3)]
    off = [abs(k / n - right / TOTAL) for n, k in stops]
    assert np.mean([each > within + 1e-12 for each in off]) <= ALPHA
    assert np.mean([n for n, _ in stops]) == pytest.approx(asked, abs=1)


def test_the_interval_is_what_the_theorem_says() -> None:
    """Held against scipy's hypergeometric distribution: what is inside has a ratio below 1 / alpha, what is outside has not."""
    asked, right, total = 60, 22, 200
    low, high = share_interval(asked, right, total)
    inside = [
        whole
        for whole in range(total + 1)
        if (likely := hypergeom.pmf(right, total, whole, asked)) > 0 and 1 / (asked + 1) / likely < 1 / ALPHA
    ]
    assert (low, high) == (inside[0] / total, inside[-1] / total)
    assert inside == list(range(inside[0], inside[-1] + 1))


def test_when_all_was_asked_all_is_known() -> None:
    assert share_interval(50, 20, 50) == (0.4, 0.4)
    assert known_within(50, 20, 50, 1e-9)
    assert not known_within(0, 0, 50, 0.5)
    low, high = share_interval(1, 1, 1000)
    assert low < 0.03
    assert high == 1
