"""False alarms and power of a comparison of campaigns; the benchmark of that name prints the whole table."""

from __future__ import annotations

from meltrepro.stats.equivalence import ReplayVerdict
from tests.benchmarks.false_alarms import operate

PAIRS = 40


def test_campaigns_that_are_alike_do_not_differ() -> None:
    for name, counts in operate(0.02, 0.0, PAIRS, 10).items():
        assert counts["any"] <= 0.05 * PAIRS, name


def test_a_tenth_is_found_and_never_called_the_same() -> None:
    found = operate(0.02, 0.10, PAIRS, 10)
    assert all(counts[ReplayVerdict.reproduced] == 0 for counts in found.values())
    assert found["margin 5 %"]["any"] >= 0.5 * PAIRS
    assert found["margin 1 %"]["any"] >= 0.9 * PAIRS
