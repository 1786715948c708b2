"""Median and interval of the repetitions of one metric.

The interval is the BCa bootstrap interval of the median (Efron 1987). Nothing is drawn at random: the distribution of
the median over all n**n resamples is known in closed form (Maritz and Jarrett 1978), so the interval is the limit that
a simulated one approaches, and the same on every machine. Its coverage on skewed and symmetric data is 0.87 to 0.97 for
5 to 9 values and 0.92 to 0.97 from there on, at a nominal 0.95: the median of few values takes few values.

Below `FEWEST` values a bootstrap says nothing; the interval is then the range, and of a single value that value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean, median, stdev
from typing import Literal

from meltrepro.errors import RecordError

FEWEST = 5
"""Values from which on a bootstrap interval is given."""
_NEGLIGIBLE = 1e-18
_NORMAL = NormalDist()

Interval = Literal["bca", "range", "single"]


@dataclass(frozen=True)
class Summary:
    n: int
    median: float
    low: float
    high: float
    interval: Interval
    """What `low` and `high` are: an interval of the median, smallest and largest value, or the only value there is."""
    mean: float
    cv: float | None
    """Standard deviation of the sample as a share of the mean; `None` for a single value or a mean of zero."""
    minimum: float
    maximum: float


def summarize(values: Sequence[float], *, confidence: float = 0.95) -> Summary:
    """Summary of at least one value; raises `RecordError` for none and for values that are not finite."""
    if not values:
        raise RecordError("there are no values to summarise")
    for value in values:
        if not math.isfinite(value):
            raise RecordError(f"a value to summarise is not finite: {value}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    ordered = sorted(map(float, values))
    n, mean = len(ordered), fmean(ordered)
    sd = stdev(ordered, mean) if n > 1 else None
    low, high = _bca(ordered, confidence) if n >= FEWEST else (ordered[0], ordered[-1])
    return Summary(
        n=n,
        median=median(ordered),
        low=low,
        high=high,
        interval="bca" if n >= FEWEST else "range" if n > 1 else "single",
        mean=mean,
        cv=sd / abs(mean) if sd is not None and mean != 0 else None,
        minimum=ordered[0],
        maximum=ordered[-1],
    )


def _bca(ordered: Sequence[float], confidence: float) -> tuple[float, float]:
    """Bias-corrected and accelerated interval of the median of sorted values."""
    centre = median(ordered)
    resampled = sorted((_midpoint(ordered[i], ordered[j]), p) for i, j, p in _resampled_medians(len(ordered)))
    below = sum(p for value, p in resampled if value < centre)
    equal = sum(p for value, p in resampled if value == centre)
    bias = _NORMAL.inv_cdf(min(max(below + equal / 2, 1e-9), 1 - 1e-9))
    acceleration = _acceleration(ordered)

    def bound(level: float) -> float:
        z = bias + _NORMAL.inv_cdf(level)
        return _quantile(resampled, _NORMAL.cdf(bias + z / (1 - acceleration * z)))

    return bound((1 - confidence) / 2), bound((1 + confidence) / 2)


def _quantile(distribution: Sequence[tuple[float, float]], level: float) -> float:
    """Smallest value whose cumulated probability reaches the level."""
    cumulated = 0.0
    for value, probability in distribution:
        cumulated += probability
        if cumulated >= level - 1e-12:
            return value
    return distribution[-1][0]


def _acceleration(ordered: Sequence[float]) -> float:
    """Skewness of the medians that are left when one value is taken out; there are at most three different ones."""
    n = len(ordered)
    if n % 2:
        m = n // 2
        groups = [
            (m, _midpoint(ordered[m], ordered[m + 1])),
            (1, _midpoint(ordered[m - 1], ordered[m + 1])),
            (m, _midpoint(ordered[m - 1], ordered[m])),
        ]
    else:
        groups = [(n // 2, ordered[n // 2]), (n // 2, ordered[n // 2 - 1])]
    mean = sum(count * value for count, value in groups) / n
    scale = max(abs(value - mean) for _, value in groups)
    if scale == 0:
        return 0.0
    second = sum(count * ((mean - value) / scale) ** 2 for count, value in groups)
    third = sum(count * ((mean - value) / scale) ** 3 for count, value in groups)
    return float(third / (6 * second**1.5))


def _midpoint(a: float, b: float) -> float:
    return a / 2 + b / 2


@lru_cache(maxsize=64)
def _resampled_medians(n: int) -> tuple[tuple[int, int, float], ...]:
    """Ranks (from 0) whose midpoint is the median of a resample of n values, with the probability of each pair."""
    half = (n + 1) // 2
    reach = [_binomial_tail(n, k, half) for k in range(n + 1)]
    # reach[k]: probability that the half-th smallest of a resample is among the k smallest values.
    single = [reach[k + 1] - reach[k] for k in range(n)]
    if n % 2:
        return tuple((k, k, p) for k, p in enumerate(single) if p > _NEGLIGIBLE)
    pairs = []
    for i in range(n):
        for j in range(i + 1, n):
            p = _split(n, i, j)
            if p <= _NEGLIGIBLE:  # and it only gets smaller from here
                break
            pairs.append((i, j, p))
            single[i] -= p
    pairs += [(i, i, p) for i, p in enumerate(single) if p > _NEGLIGIBLE]
    return tuple(pairs)


def _binomial_tail(n: int, k: int, least: int) -> float:
    """Probability that at least `least` of n draws fall among k of n values."""
    if k in (0, n):
        return float(k == n)
    inside, outside = math.log(k / n), math.log1p(-k / n)
    # Add up the side of `least` that lies away from the most likely number: its terms only get smaller.
    counts = range(least, n + 1) if k < least else range(least - 1, -1, -1)
    total = 0.0
    for r in counts:
        p = math.exp(_log_choose(n, r) + r * inside + (n - r) * outside)
        total += p
        if p < _NEGLIGIBLE:
            break
    return total if k < least else 1 - total


def _split(n: int, i: int, j: int) -> float:
    """Probability that of n draws one half ends exactly at rank i and the other begins exactly at rank j > i."""
    half = n // 2
    return math.exp(_log_choose(n, half) + _log_reaches(half, i, n) + _log_reaches(half, n - 1 - j, n))


def _log_reaches(draws: int, rank: int, n: int) -> float:
    """Logarithm of the probability that the largest of some draws has this rank of n."""
    return draws * math.log((rank + 1) / n) + math.log1p(-((rank / (rank + 1)) ** draws))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
