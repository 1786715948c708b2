"""The ratio of two samples of one metric, with its uncertainty.

Location is the 20 % trimmed mean of the logarithms: a stray slow trial is cut off, and without strays it varies less
than the median does. Its standard error comes from a seeded bootstrap, corrected by sqrt(n / (n - 1)) for small
samples, and the interval is estimate -/+ t * error: the bootstrap standard interval (Efron and Tibshirani 1993, chapters
12 and 13) with Student's t; trimmed means with a t interval go back to Tukey and McLaughlin 1963 and Yuen 1974.
Percentile and BCa intervals read their bounds off the tails of the resamples. A sequential design asks for levels near
0.001 from five trials, where those tails are empty; a t interval errs on the safe side there (`docs/replay-statistics.md`
holds the figures).

Imports numpy and scipy: import this module only where a comparison is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from meltrepro.errors import RecordError, UsageError

Vector = NDArray[np.float64]

RESAMPLES = 1000
_CHUNK = 1_000_000
"""Values that are resampled at once: bounds the memory of a large sample."""


@dataclass(frozen=True)
class Location:
    """Trimmed mean of a sample of logarithms, and the bootstrap variance of that mean."""

    centre: float
    variance: float
    """Infinite for a single value, 0 for values that are all the same."""
    n: int


@dataclass(frozen=True)
class LogRatio:
    """Estimate of log(replayed / reference); its variance is kept apart by what more replayed trials can do to it."""

    estimate: float
    fixed_variance: float
    """Of the recorded sample and of the change of session: further replayed trials leave it as it is."""
    shrinking_variance: float
    """Of the replayed trials, or of the pairs: falls as one over their number."""
    df: float
    """Degrees of freedom of the error; 0 where a sample of one value says nothing about it."""

    @property
    def error(self) -> float:
        """Standard error of the estimate."""
        return math.sqrt(self.fixed_variance + self.shrinking_variance)

    @property
    def ratio(self) -> float:
        return math.exp(self.estimate)

    def bounds(self, level: float) -> tuple[float, float]:
        """Bounds of the log ratio, each of which is wrong with probability `level`."""
        if self.df == 0:
            return -math.inf, math.inf
        if self.error == 0:
            return self.estimate, self.estimate
        reach = -float(stdtrit(self.df, level)) * self.error
        return self.estimate - reach, self.estimate + reach


@dataclass(frozen=True)
class RatioInterval:
    """Second sample over first, with a two-sided interval; low 0 and high infinite where a sample has one value."""

    ratio: float
    low: float
    high: float


def comparable(values: Sequence[float]) -> bool:
    """Whether a ratio can be taken of these values: there are some, all finite and above zero."""
    return len(values) > 0 and all(math.isfinite(value) and value > 0 for value in values)


def ratio_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95, seed: int = 0) -> RatioInterval:
    """Interval of the ratio of the robust centres of two independent samples, b over a.

    Raises `RecordError` for a value that is not above zero, `UsageError` for a confidence outside 0 to 1.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, got {confidence}")
    estimate = unpaired(locate(logarithms(a), seed, stream=0), locate(logarithms(b), seed, stream=1))
    low, high = estimate.bounds((1 - confidence) / 2)
    return RatioInterval(estimate.ratio, exp(low), exp(high))


def logarithms(values: Sequence[float]) -> Vector:
    """Logarithms of a sample; raises `RecordError` where a value has none."""
    if not comparable(values):
        bad = next((value for value in values if not comparable([value])), None)
        raise RecordError(
            "a ratio needs finite values above zero; " + ("the sample is empty" if bad is None else f"one is {bad}"),
            hint="compare such a metric by its difference, or leave it out of the comparison",
        )
    return np.log(np.asarray(values, dtype=np.float64))


def locate(sample: Vector, seed: int, stream: int) -> Location:
    """Location of a sample of logarithms; each `stream` of a seed draws resamples of its own."""
    n = sample.size
    centre = float(_trimmed_mean(sample))
    if n == 1:
        return Location(centre, math.inf, n)
    if np.ptp(sample) == 0:
        return Location(centre, 0.0, n)
    generator = np.random.default_rng([seed, stream, n])
    rows = max(1, _CHUNK // n)
    centres = [
        _trimmed_mean(sample[generator.integers(0, n, (min(rows, RESAMPLES - start), n))])
        for start in range(0, RESAMPLES, rows)
    ]
    return Location(centre, float(np.concatenate(centres).var(ddof=1)) * n / (n - 1), n)


def unpaired(
    reference: Location, replayed: Location, session_cv: float = 0.0, session_df: float = math.inf
) -> LogRatio:
    """Log ratio of two independent samples, with the degrees of freedom of Welch and Satterthwaite.

    `session_cv` is the standard deviation of the level of a session, as a share; each sample is one session. `session_df`
    are its own degrees of freedom, where it was estimated.
    """
    session = 2 * session_cv**2
    estimate = replayed.centre - reference.centre
    if min(reference.n, replayed.n) == 1:
        df = 0.0
    else:
        parts = sum(sample.variance**2 / (sample.n - 1) for sample in (reference, replayed)) + session**2 / session_df
        df = (reference.variance + replayed.variance + session) ** 2 / parts if parts else math.inf
    return LogRatio(estimate, reference.variance + session, replayed.variance, df)


def paired(differences: Location) -> LogRatio:
    """Log ratio from the differences of trials that ran in pairs: what drifts slowly is common to a pair and cancels."""
    return LogRatio(differences.centre, 0.0, differences.variance, differences.n - 1)


def exp(value: float) -> float:
    """Exponential that is infinite where a float ends."""
    return math.exp(value) if value < 709 else math.inf


def _trimmed_mean(sample: Vector) -> Vector:
    """20 % trimmed mean along the last axis; the plain mean below five values."""
    n = sample.shape[-1]
    cut = n // 5
    return np.asarray(np.sort(sample, axis=-1)[..., cut : n - cut].mean(axis=-1))
