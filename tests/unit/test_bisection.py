"""Halving finds the first bad place, with as few tries as there can be, also where some cannot be tried and figures are noisy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.stats.bisection import Bisection, Side
from meltrepro.stats.equivalence import Baseline, Design, decide


@given(st.integers(2, 200), st.data())
def test_the_first_bad_place_is_found_with_the_fewest_tries(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, count - 1))
    search, tries = Bisection(count), 0
    promised = search.steps_left
    while (place := search.next) is not None:
        search.known[place] = Side.bad if place >= first else Side.good
        tries += 1
    assert list(search.suspects) == [first] and search.found and search.steps_left == 0
    assert tries <= promised == (math.ceil(math.log2(count - 1)) if count > 2 else 0)


@given(st.integers(2, 60), st.data())
def test_what_cannot_be_tried_stays_suspected(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, count - 1))
    broken = data.draw(st.sets(st.integers(1, count - 1), max_size=count)) - {count - 1}
    search = Bisection(count)
    while (place := search.next) is not None:
        search.known[place] = Side.skipped if place in broken else Side.bad if place >= first else Side.good
    assert first in search.suspects
    assert all(place in broken for place in search.suspects[:-1])
    assert search.found or broken


@pytest.mark.slow
def test_a_planted_slowdown_is_found_among_64_releases() -> None:
    """5 % slower from one on, trials of CV 2 %, each release beside the good one in pairs, levels of builds apart by 0.3 %."""
    generator = np.random.default_rng(20261203)
    right, builds = 0, []
    for run in range(20):
        first = int(generator.integers(1, 64))
        levels = np.exp(generator.normal(0, 0.003, 64)) * np.where(np.arange(64) >= first, 1 / 1.05, 1.0)

        def ratio(place: int, margin: float, run: int = run, levels: np.ndarray = levels) -> float:
            pairs = generator.normal(0, 0.02, (2, 60))
            design = Design(reference=Baseline.control, margin=margin, maximum=60, seed=run)
            good, tried = (
                list(level * np.exp(noise)) for level, noise in zip((levels[0], levels[place]), pairs, strict=True)
            )
            return decide(good, tried, design).ratio

        end = ratio(63, 0.02)
        margin = math.sqrt(1 / end) - 1
        search = Bisection(64)
        while (place := search.next) is not None:
            search.known[place] = Side.bad if ratio(place, margin) < 1 / (1 + margin) else Side.good
        right += list(search.suspects) == [first]
        builds.append(len(search.known) - 1)
    assert right >= 19
    assert max(builds) <= 7, "the bad end among them"


def test_two_releases_need_no_try() -> None:
    assert Bisection(2).next is None and list(Bisection(2).suspects) == [1]
    with pytest.raises(ValueError, match="empty"):
        _ = Bisection(1).good
