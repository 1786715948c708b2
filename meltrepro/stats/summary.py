"""Median and interval of the repetitions of one metric.

The interval goes from one repetition's value to another's: the sign test turned round (Thompson 1936, Ann. Math. Stat. 7). How
often it holds the true median follows from their number alone, whatever the distribution (binomial with p = 1/2), so that
nothing is estimated and nothing drawn at random. It is the narrowest that holds at 95 %, or, of fewer than `FEWEST` values,
the smallest and the largest, which hold at less: `level` says at how much. `docs/protocol.md` has how often others hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, median, stdev

from meltrepro.errors import RecordError

CONFIDENCE = 0.95
FEWEST = 6
"""Values from which on an interval holds at that."""
TO_JUDGE = 3
"""Values from which on a result is more than a first look."""
TOO_FEW = "too few to judge"
"""What is said of fewer, wherever they are shown."""
INTERVAL = (
    "interval of the median that holds at 95 % whatever the distribution; of 5 repetitions and fewer from the smallest to the"
    " largest, which holds at 94 % (5), 88 % (4) or 75 % (3)"
)
"""What `low` and `high` are, for people."""


@dataclass(frozen=True)
class Summary:
    n: int
    median: float
    low: float
    high: float
    mean: float
    cv: float | None
    """Standard deviation of the sample as a share of the mean; `None` for a single value or a mean of zero."""
    minimum: float
    maximum: float

    @property
    def level(self) -> float:
        """Probability with which the true median lies from `low` to `high`, if repetitions are independent; 0 for one value."""
        return _bounds(self.n)[1]

    @property
    def too_few(self) -> bool:
        return self.n < TO_JUDGE


def summarize(values: Sequence[float]) -> Summary:
    """Summary of at least one value; raises `RecordError` for none and for values that are not finite."""
    if not values:
        raise RecordError("there are no values to summarise")
    for value in values:
        if not math.isfinite(value):
            raise RecordError(f"a value to summarise is not finite: {value}")
    ordered = sorted(map(float, values))
    n, mean = len(ordered), fmean(ordered)
    sd = stdev(ordered) if n > 1 else None
    cut, _ = _bounds(n)
    return Summary(
        n=n,
        median=median(ordered),
        low=ordered[cut],
        high=ordered[n - 1 - cut],
        mean=mean,
        cv=sd / abs(mean) if sd is not None and mean != 0 else None,
        minimum=ordered[0],
        maximum=ordered[-1],
    )


@lru_cache(maxsize=256)
def _bounds(n: int) -> tuple[int, float]:
    """How many of `n` sorted values lie outside of the interval on either side, and at what level it holds."""
    cut, beyond, level = 0, 1, 1 - 2 * 0.5**n
    for more in range(1, (n + 1) // 2):
        beyond += math.comb(n, more)
        narrower = 1 - 2 * (beyond / 2**n)
        if narrower < CONFIDENCE:
            break
        cut, level = more, narrower
    return cut, level
