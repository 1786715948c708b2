"""Whether repetitions are what their summary takes them for: independent draws from one unchanging distribution.

Nothing here changes a figure or drops a value; each function says something about the values as they are, in the order
in which they were measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median

from meltrepro.errors import RecordError

FEWEST = 5
"""Values from which on order, drift and outliers can be judged."""
_OUTLYING = ((5, 7.92), (7, 5.86), (9, 5.09), (12, 4.58), (20, 4.36))
"""Up to so many values: standard deviations from the median beyond which at least one of as many normal values lies in at
most 5 % of samples (200,000 simulated samples each; the rule is that of Davies and Gather 1993, JASA 88)."""
_OUTLYING_MANY = 4.1
"""The same for more, up to a thousand."""
_Z = NormalDist().inv_cdf(0.975)
_MAD_TO_SD = 1 / NormalDist().inv_cdf(0.75)
_MEAN_DEVIATION_TO_SD = math.sqrt(math.pi / 2)
_MOST_POINTS = 400
"""A slope is taken for each pair of points: more than these are averaged first."""


@dataclass(frozen=True)
class Components:
    """Where the spread of a metric comes from; standard deviations in the metric's unit."""

    mean: float
    within: float
    """Of the values of one run around the mean of the run."""
    between: float
    """Of the true means of the runs; 0 where the runs differ no more than their values would have them."""
    runs: int
    values: int

    @property
    def within_cv(self) -> float | None:
        """`None` for a mean of 0, as below."""
        return self.within / abs(self.mean) if self.mean else None

    @property
    def between_cv(self) -> float | None:
        return self.between / abs(self.mean) if self.mean else None


@dataclass(frozen=True)
class Autocorrelation:
    """How alike neighbours are."""

    coefficient: float
    """Of each value with the next: 0 for independent ones (-1/n on average), towards 1 for values that wander."""
    low: float
    high: float
    """Where 95 % of the coefficients of independent values lie."""

    @property
    def independent(self) -> bool:
        """Whether the values may be independent. If they are not, intervals of them are too narrow or too wide."""
        return self.low <= self.coefficient <= self.high


@dataclass(frozen=True)
class Drift:
    """How a metric moves while a campaign runs."""

    per_hour: float
    """Slope in the metric's unit."""
    low: float
    high: float
    """Of the slope, 95 %."""
    change: float | None
    """From the first value to the last along the slope, as a share of the median; `None` for a median of 0."""

    @property
    def established(self) -> bool:
        """Whether the values rise or fall by more than chance."""
        return self.low > 0 or self.high < 0


def components(runs: Sequence[Sequence[float]]) -> Components | None:
    """Spread within and between runs: one-way random effects, estimated by analysis of variance for runs of unequal
    length (Searle, Casella and McCulloch 1992, Variance Components, chapter 3).

    `None` where there are not two runs, or none has two values; raises `RecordError` for values that are not finite.
    """
    runs = [run for run in runs if run]
    n = sum(map(len, runs))
    if len(runs) < 2 or n == len(runs):
        return None
    _check([value for run in runs for value in run])
    means = [fmean(run) for run in runs]
    mean = math.fsum(value for run in runs for value in run) / n
    within = math.fsum((value - m) ** 2 for run, m in zip(runs, means, strict=True) for value in run) / (n - len(runs))
    between = math.fsum(len(run) * (m - mean) ** 2 for run, m in zip(runs, means, strict=True)) / (len(runs) - 1)
    size = (n - sum(len(run) ** 2 for run in runs) / n) / (len(runs) - 1)
    return Components(mean, math.sqrt(within), math.sqrt(max(0.0, (between - within) / size)), len(runs), n)


def autocorrelation(values: Sequence[float]) -> Autocorrelation | None:
    """Lag-1 autocorrelation, with its limits for independent normal values (moments: Moran 1948, Biometrika 35).

    `None` for fewer than `FEWEST` values and for values that are all the same; raises `RecordError`.
    """
    _check(values)
    n = len(values)
    if n < FEWEST or min(values) == max(values):  # their mean may differ from them by a rounding
        return None
    mean = fmean(values)
    off = [value - mean for value in values]
    spread = math.fsum(x * x for x in off)
    if spread == 0:
        return None
    coefficient = math.fsum(off[i] * off[i + 1] for i in range(n - 1)) / spread
    reach = _Z * (n - 2) / (n * math.sqrt(n - 1))
    return Autocorrelation(coefficient, -1 / n - reach, -1 / n + reach)


def drift(times_s: Sequence[float], values: Sequence[float]) -> Drift | None:
    """Median of the slopes between all pairs of values, with its interval by Kendall's statistic (Theil 1950; Sen 1968).

    A stray value moves it little. `None` for fewer than `FEWEST` times that differ; raises `RecordError`.
    """
    if len(times_s) != len(values):
        raise RecordError(f"{len(times_s)} times for {len(values)} values")
    _check([*times_s, *values])
    points = _thinned(sorted(zip(times_s, values, strict=True)))
    if len({t for t, _ in points}) < FEWEST:
        return None
    slopes = sorted((y - x) / (b - a) for i, (a, x) in enumerate(points) for b, y in points[i + 1 :] if b > a)
    n = len(points)
    reach = _Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    lowest = max(0, math.floor((len(slopes) - reach) / 2) - 1)
    slope, centre = median(slopes), median(values)
    return Drift(
        per_hour=slope * 3600,
        low=slopes[lowest] * 3600,
        high=slopes[-1 - lowest] * 3600,
        change=slope * (max(times_s) - min(times_s)) / abs(centre) if centre else None,
    )


def outliers(values: Sequence[float]) -> tuple[int, ...]:
    """Places of values that lie too far from the median to be one of a sample of normal ones, at 5 % for all together.

    Distances are in standard deviations, which are estimated by the median absolute deviation, or the mean one where that
    is 0 (Iglewicz and Hoaglin 1993). To be reported, never dropped.
    """
    _check(values)
    if len(values) < FEWEST:
        return ()
    centre = median(values)
    off = [abs(value - centre) for value in values]
    deviation = _MAD_TO_SD * median(off) or _MEAN_DEVIATION_TO_SD * fmean(off)
    limit = next((limit for most, limit in _OUTLYING if len(values) <= most), _OUTLYING_MANY)
    return tuple(i for i, x in enumerate(off) if x > limit * deviation)


def copies(rows: Mapping[str, Sequence[float]]) -> tuple[tuple[str, str], ...]:
    """Pairs of rows whose measured values are the same to the last bit: one was copied, or both come from one run.

    A row needs two different values to be compared: a count may well be the same everywhere.
    """
    first: dict[tuple[float, ...], str] = {}
    return tuple(
        (first[values], name)
        for name, values in ((name, tuple(row)) for name, row in rows.items())
        if len(set(values)) > 1 and first.setdefault(values, name) != name
    )


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `_MOST_POINTS`, each the mean of as many neighbours."""
    size = max(1, math.ceil(len(points) / _MOST_POINTS))
    blocks = [points[i : i + size] for i in range(0, len(points), size)]
    return [(fmean(t for t, _ in block), fmean(x for _, x in block)) for block in blocks]


def _check(values: Sequence[float]) -> None:
    for value in values:
        if not math.isfinite(value):
            raise RecordError(f"a value is not finite: {value}")
