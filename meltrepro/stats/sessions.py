"""How much a device varies within a session and from one session to the next, and which differences that hides.

A session is one campaign: devices are opened, programs deployed, trials follow each other. All figures are shares, found on
logarithms, so that they hold for any metric and any speed. The level of a session is its 20 % trimmed mean.

The spread of levels is that of the sessions as they are, what varies within them included: it is never too small for that
reason, and has as many degrees of freedom as sessions, less one for each way in which they were held.

Imports numpy and scipy: import this module only where a comparison is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.special import stdtrit

from meltrepro.stats.ratio import comparable, locate, logarithms

_TRIMMED, _SMALL = 1.15, 2.0
"""The variance that the bootstrap finds for a 20 % trimmed mean of n normal values, over that of their mean, is about
1.15 (1 + 2 / n): what is trimmed, and what the bootstrap adds for small samples (tests/unit/test_sessions.py simulates it)."""
_POWER = 0.8
_LEVEL = 0.975
_NORMAL = 1.959964
"""The quantile of a normal distribution at that level."""
MOST_REPETITIONS = 200


@dataclass(frozen=True)
class Spread:
    """Of one metric of one device."""

    within: float
    """Standard deviation of the trials of a session, as a share."""
    between: float
    """Standard deviation of the levels of sessions, as a share."""
    sessions: int
    values: int
    df: float
    """Degrees of freedom of `between`."""
    within_df: float

    @property
    def usual(self) -> float:
        """Ratio of two sessions that is exceeded in one of twenty cases without any cause, less one."""
        return math.expm1(-float(stdtrit(self.df, (1 - 0.95) / 2)) * math.sqrt(2) * self.between)

    @property
    def session_cv(self) -> float:
        """`between` where it must stand for a spread that is known: larger by how few sessions it was found in."""
        return math.log1p(self.usual) / (_NORMAL * math.sqrt(2))

    def smallest(self, repetitions: int, *, sessions: bool = False) -> float | None:
        """Smallest difference, as a share, that so many repetitions on each side show in four of five cases.

        Of cells of one campaign, or of two `sessions`; `None` where one repetition shows none. Two-sided at 5 %.
        """
        if repetitions < 2:
            return None
        variance = 2 * _TRIMMED * (1 + _SMALL / repetitions) * self.within**2 / repetitions
        df = 2.0 * (repetitions - 1)
        if sessions:
            total = variance + 2 * self.between**2
            parts = variance**2 / df + (2 * self.between**2) ** 2 / self.df
            variance, df = total, total**2 / parts if parts else math.inf
        reach = float(stdtrit(df, _LEVEL)) + float(stdtrit(df, _POWER))
        return math.expm1(reach * math.sqrt(variance))

    def repetitions(self, difference: float) -> int | None:
        """Fewest repetitions on each side that show this difference between cells of a campaign; `None` for more than 200."""
        for repetitions in range(3, MOST_REPETITIONS + 1):
            smallest = self.smallest(repetitions)
            if smallest is not None and smallest <= difference:
                return repetitions
        return None


def spread(arms: Mapping[str, Sequence[Sequence[float]]]) -> Spread | None:
    """The spread of a metric over sessions, which were held in one or several ways (`arms`); the ways may differ in level.

    `None` where fewer than two sessions of a way have two comparable values each.
    """
    levels: list[float] = []
    squares, within_df, values, df = 0.0, 0, 0, 0
    for number, sessions in enumerate(arms.values()):
        usable = [session for session in sessions if len(session) > 1 and comparable(session)]
        if not usable:
            continue
        found = []
        for place, session in enumerate(usable):
            logs = logarithms(session)
            squares += float(((logs - logs.mean()) ** 2).sum())
            within_df += logs.size - 1
            values += logs.size
            found.append(locate(logs, 0, stream=1000 * number + place).centre)
        mean = fmean(found)
        levels += [level - mean for level in found]
        df += len(found) - 1
    if df < 1 or within_df < 1:
        return None
    between = math.sqrt(math.fsum(level * level for level in levels) / df)
    return Spread(math.sqrt(squares / within_df), between, len(levels), values, df, within_df)
