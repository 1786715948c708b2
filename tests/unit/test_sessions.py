"""What is said of sessions holds: simulated devices whose trials and sessions vary as was planted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from meltrepro.stats.equivalence import Design, ReplayVerdict, decide, sessions_decide
from meltrepro.stats.ratio import ratio_interval
from meltrepro.stats.sessions import MOST_REPETITIONS, Spread, spread

GENERATOR = np.random.default_rng(20261203)


def sessions(count: int, trials: int, within: float, between: float, level: float = 100.0) -> list[list[float]]:
    """Log-normal trials around levels that vary log-normally."""
    levels = level * np.exp(GENERATOR.normal(0, between, count))
    return [list(each * np.exp(GENERATOR.normal(0, within, trials))) for each in levels]


def test_the_planted_spread_is_found() -> None:
    found = [spread({"a": sessions(6, 5, 0.02, 0.04), "b": sessions(6, 5, 0.02, 0.04, 130)}) for _ in range(200)]
    assert all(each is not None and each.df == 10 and each.sessions == 12 and each.values == 60 for each in found)
    within = np.mean([each.within**2 for each in found if each]) ** 0.5
    between = np.mean([each.between**2 for each in found if each]) ** 0.5
    assert within == pytest.approx(0.02, rel=0.05)
    # Levels carry what varies within sessions: a trimmed mean of five has a variance of about 1.1 / 5.
    assert between == pytest.approx(math.hypot(0.04, 0.02 * math.sqrt(1.1 / 5)), rel=0.07)


def test_two_sessions_of_one_device_seldom_lie_farther_apart_than_usual() -> None:
    outside = []
    for _ in range(400):
        known = spread({"a": sessions(5, 4, 0.02, 0.03)})
        assert known is not None
        one, other = sessions(2, 4, 0.02, 0.03)
        outside.append(abs(math.log(np.mean(other) / np.mean(one))) > math.log1p(known.usual))
    assert 0.02 <= np.mean(outside) <= 0.08


@pytest.mark.parametrize("repetitions", [5, 10, 30])
def test_the_smallest_difference_is_shown_in_four_of_five_cases(repetitions: int) -> None:
    known = Spread(within=0.03, between=0.02, sessions=6, values=30, df=5, within_df=24)
    smallest = known.smallest(repetitions)
    assert smallest is not None
    shown = 0
    for _ in range(400):
        one = list(np.exp(GENERATOR.normal(0, known.within, repetitions)))
        other = list((1 + smallest) * np.exp(GENERATOR.normal(0, known.within, repetitions)))
        interval = ratio_interval(one, other)
        shown += interval.low > 1
    assert 0.74 <= shown / 400 <= 0.92
    across = known.smallest(repetitions, sessions=True)
    assert across is not None and across > smallest + 2 * known.between


def test_repetitions_for_a_difference() -> None:
    known = Spread(within=0.03, between=0.02, sessions=6, values=30, df=5, within_df=24)
    few, many = known.repetitions(0.10), known.repetitions(0.02)
    assert few is not None and many is not None and 3 <= few < many <= MOST_REPETITIONS
    for difference, found in ((0.10, few), (0.02, many)):
        now, before = known.smallest(found), known.smallest(found - 1)
        assert now is not None and now <= difference
        assert found == 3 or (before is not None and before > difference)
    assert known.repetitions(0.001) is None
    assert known.smallest(1) is None
    assert replace(known, within=0.0).repetitions(0.001) == 3


def test_what_tells_nothing_of_sessions() -> None:
    one = [1.0, 1.1, 1.05]
    assert spread({}) is None
    assert spread({"a": [one]}) is None
    assert spread({"a": [one], "b": [one]}) is None, "one session of each way says nothing of sessions"
    assert spread({"a": [one, [1.0], []]}) is None, "a single trial has no level"
    assert spread({"a": [one, [0.0, 1.0], one]}) is not None, "what cannot be compared is left out"
    same = spread({"a": [[2.0, 2.0], [2.0, 2.0]]})
    assert same is not None and same.within == same.between == same.usual == 0


def test_recorded_values_do_where_sessions_are_steady_enough() -> None:
    design = Design(session_cv=0.005, session_df=5)
    assert sessions_decide(0.01, 10, design)
    assert not sessions_decide(0.01, 10, replace(design, session_cv=0.03))
    assert not sessions_decide(0.01, 10, replace(design, session_df=1)), "two sessions say little"
    assert not sessions_decide(0.2, 10, design)
    assert not sessions_decide(0.01, 2, design)
    assert sessions_decide(0.01, 10, replace(design, session_cv=0.03, margin=0.5))


def test_a_measured_spread_of_sessions_keeps_the_error_rate() -> None:
    """No difference but that of sessions: DIFFERS stays rare, though the spread is only estimated from four sessions."""
    wrong = 0
    for seed in range(150):
        known = spread({"a": sessions(4, 5, 0.01, 0.05)})
        assert known is not None
        recorded, replayed = sessions(2, 10, 0.01, 0.05)
        design = Design(margin=0.01, maximum=10, session_cv=known.between, session_df=known.df, seed=seed)
        wrong += decide(recorded, replayed, design).verdict is ReplayVerdict.differs
    assert wrong / 150 <= 0.1, "at most alpha in each direction"
