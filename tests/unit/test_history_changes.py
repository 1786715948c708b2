"""Where the level of a history changes: how often wrongly, how often rightly; the benchmark of that name prints the table."""

from __future__ import annotations

import numpy as np
import pytest

from meltrepro.errors import RecordError
from meltrepro.history.changes import Measured, enough, find_steps
from tests.benchmarks.history_changes import Shape, histories


def flat(*levels: float, sessions: str = "", spread: float = 0.01) -> list[Measured]:
    """Positions with three repetitions each around their levels; sessions by one letter each, all the same without."""
    shares = (1 - spread, 1.0, 1 + spread)
    return [
        Measured(place, (sessions or "a" * len(levels))[place], [level * share for share in shares])
        for place, level in enumerate(levels)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [Shape(17, 17), Shape(17, 1), Shape(12, 4, repetitions=3), Shape(9, 9, strays=0.03)])
def test_a_history_without_a_change_shows_none(shape: Shape) -> None:
    """Were one of twelve a false alarm, more than 12 of 200 would be seen with probability 0.85; 5 % are promised."""
    assert sum(map(bool, histories(shape, 200))) <= 12


@pytest.mark.slow
@pytest.mark.parametrize(("after", "least"), [(0, 50), (7, 57), (15, 50)])
def test_a_twentieth_is_found_where_it_is(after: int, least: int) -> None:
    """Of 60 histories; fewer behind the first place and before the last one, where one place stands against all others."""
    steps = list(histories(Shape(17, 17), 60, 0.05, after))
    assert sum(any(abs(step.after - after) <= 1 for step in found) for found in steps) >= least


def test_a_step_has_its_size_and_its_place() -> None:
    (step,) = find_steps(flat(100, 101, 100, 80, 80.5, 80))
    assert step.after == 2
    assert step.low < 0.799 < step.high and step.low > 0.77 and step.high < 0.83


def test_several_steps_are_found_in_order() -> None:
    assert [step.after for step in find_steps(flat(100, 100, 100, 80, 80, 80, 120, 120))] == [2, 5]


def test_what_lies_between_two_sessions_must_exceed_what_sessions_differ() -> None:
    """A step of 4 % is one within a session. Between sessions that differ by 2 % each, it is none."""
    levels = (100, 100, 100, 104, 104, 104)
    assert find_steps(flat(*levels, spread=0.005), 0.02) != []
    assert find_steps(flat(*levels, sessions="aaabbb", spread=0.005), 0.02) == []


def test_a_place_that_two_sessions_share_joins_them() -> None:
    """Both measured the middle release, so that what the days differ by falls out: the step that is left is the release's."""
    shared = [
        *flat(100, 100, 100, spread=0.004),
        *(Measured(place, "b", [110.2, 110.6, 110.4]) for place in (2, 3)),
        *(Measured(place, "b", [104.8, 105.0, 104.9]) for place in (4, 5)),
    ]
    (step,) = find_steps(shared, 0.05)
    assert step.after == 3
    assert step.ratio == pytest.approx(0.95, abs=0.01)


def test_places_that_scatter_by_themselves_show_no_steps() -> None:
    """Each release is laid out otherwise in memory: repetitions agree within 0.1 %, releases within 1 %."""
    rng = np.random.default_rng(5)
    levels = (100 * np.exp(rng.normal(0, 0.01, 20))).tolist()
    assert find_steps(flat(*levels, spread=0.001)) == []


def test_sizes_that_never_vary_have_steps_and_no_rounding_errors() -> None:
    assert [step.after for step in find_steps(flat(500, 500, 500, 510, 510, spread=0))] == [2]
    assert find_steps(flat(500, 500, 500, 500.01, 500.01, spread=0)) == []


def test_one_repetition_each_says_nothing() -> None:
    single = [Measured(place, "a", [100.0 + place]) for place in range(4)]
    assert not enough(single)
    assert not enough([Measured(0, "a", [1.0, 2.0]), Measured(0, "b", [1.0, 2.0])])
    assert enough([*single, Measured(4, "a", [100.0, 101.0])])


def test_what_has_no_logarithm_is_refused() -> None:
    with pytest.raises(RecordError, match="above zero"):
        find_steps([Measured(0, "a", [0.0, 1.0]), Measured(1, "a", [1.0, 1.0])])
