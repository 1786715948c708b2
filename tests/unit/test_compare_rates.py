"""False alarms and power of a comparison of campaigns; the benchmark of that name prints the whole table."""

from __future__ import annotations

import pytest

from meltrepro.stats.equivalence import ReplayVerdict
from tests.benchmarks.false_alarms import operate


@pytest.mark.slow
def test_campaigns_that_are_alike_do_not_differ() -> None:
    """Were one of five a false alarm, it would be seen with probability 0.93; one in twenty is what is promised."""
    for name, counts in operate(0.02, 0.0, 12, 10).items():
        assert counts["any"] == 0, name


def test_a_tenth_is_found_and_never_called_the_same() -> None:
    found = operate(0.02, 0.10, 8, 10)
    assert all(counts[ReplayVerdict.reproduced] == 0 for counts in found.values())
    assert found["margin 5 %"]["any"] >= 4
    assert found["margin 1 %"]["any"] >= 7
