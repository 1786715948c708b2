"""Where the level of a series of measurements changes: proposed by ruptures, judged by what the measurements vary by themselves.

A history is a row of positions (releases, days), each measured in one or several sessions. Everything is of logarithms. A
session moves all that it measures by a level of its own (`session_cv`), which falls out where two positions share a session
and widens their difference where they do not: generalised least squares over both (Aitken 1935). Where a step may be is PELT's
to propose (Killick, Fearnhead and Eckley 2012, JASA 107); its penalty, and what a proposed step must exceed, is the largest
statistic of a step that `1 - LEVEL` of histories without any stay below, drawn anew for each shape of a history.

Imports numpy and ruptures: import this module only where changes are looked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruptures.base import BaseCost
from ruptures.detection import Pelt
from scipy.special import stdtrit

from meltrepro.stats.ratio import exp, locate, logarithms

Vector = NDArray[np.float64]

LEVEL = 0.04
"""Of the test of a whole history; with the few steps that come in pairs, false alarms stay below 5 % (docs/history.md)."""
CONFIDENCE = 0.95
_DRAWS = 10_000
_SEED = 20240711
_LEAST_CV = 1e-4
"""Repetitions that agree better than that, such as sizes, do not make a step of every rounding."""
_SAMPLES, _MANY = 400, 30
"""Of how many simulated samples the spread of a level is known, and up to how many values."""
_TO_SEE_SCATTER = 9
"""Positions from which on their own scatter can be told from steps."""
_SMALL = 0.75
"""Part of the differences between neighbours that their scatter is told by."""


@dataclass(frozen=True)
class Measured:
    """What one session measured at one position."""

    position: int
    """From 0, in the order of the history."""
    session: str
    values: Sequence[float]
    """Of the repetitions: at least one, all above zero."""


@dataclass(frozen=True)
class LevelChange:
    """A change of the level."""

    after: int
    """Index, among the positions that were measured, of the last one before the change."""
    ratio: float
    """Level after it over level before it."""
    low: float
    high: float
    """Of the ratio, 95 %."""


def enough(measured: Sequence[Measured]) -> bool:
    """Whether anything can be said of changes: two positions, and repetitions that show how values vary."""
    return len({each.position for each in measured}) > 1 and any(len(each.values) > 1 for each in measured)


def find_steps(measured: Sequence[Measured], session_cv: float = 0.01, level: float = LEVEL) -> list[LevelChange]:
    """The steps of a history, in its order; raises `RecordError` for a value that has no logarithm.

    `session_cv` is the standard deviation of the level of a session, as a share. Needs what `enough` asks for.
    """
    levels, covariance, df = _levels(measured, session_cv)
    if (scatter := _scatter(levels, covariance)) > 1:
        covariance = covariance * scatter
    contrasts = _contrasts(covariance)
    least = _least(contrasts, covariance, df, level)
    found = _proposed(levels, covariance, contrasts, least)
    while found:
        steps, errors = _fit(levels, covariance, found)
        sizes = np.abs(steps) / errors
        weakest = int(sizes.argmin())
        if sizes[weakest] > least:
            reach = -float(stdtrit(df, (1 - CONFIDENCE) / 2))
            return [
                LevelChange(after, exp(step), exp(step - reach * error), exp(step + reach * error))
                for after, step, error in zip(found, steps.tolist(), errors.tolist(), strict=True)
            ]
        del found[weakest]
    return []


def _levels(measured: Sequence[Measured], session_cv: float) -> tuple[Vector, Vector, float]:
    """Logarithm of the level at each position, their covariance, and the degrees of freedom of what repetitions vary by."""
    samples = [locate(logarithms(each.values), _SEED, stream) for stream, each in enumerate(measured)]
    known = [(sample, *_known_spread(min(sample.n, _MANY))) for sample in samples if sample.n > 1]
    df = sum(df for _, _, df in known)
    pooled = sum(df * sample.n * sample.variance / excess for sample, excess, df in known) / df
    pooled = max(pooled, _LEAST_CV**2)
    sessions = list(dict.fromkeys(each.session for each in measured))
    shared = np.array([[each.session == session for session in sessions] for each in measured], dtype=float)
    positions = sorted({each.position for each in measured})
    design = np.array([[each.position == position for position in positions] for each in measured], dtype=float)
    noise = np.diag([pooled / sample.n for sample in samples])
    if len(sessions) > 1:
        noise = noise + session_cv**2 * shared @ shared.T
    weighted = np.linalg.solve(noise, design).T
    covariance = np.linalg.inv(weighted @ design)
    levels = covariance @ weighted @ np.array([sample.centre for sample in samples])
    return levels, (covariance + covariance.T) / 2, df


@lru_cache(maxsize=_MANY)
def _known_spread(n: int) -> tuple[float, float]:
    """Of the bootstrap variance of a trimmed mean of `n` normal values: how many times too large it is, and its degrees of freedom."""
    generator = np.random.default_rng([_SEED, n])
    found = [locate(sample, _SEED, 0) for sample in generator.standard_normal((_SAMPLES, n))]
    variance = np.array([each.variance for each in found])
    cut = n // 5
    many = np.sort(generator.standard_normal((20_000, n)), axis=1)[:, cut : n - cut].mean(axis=1)
    return float(variance.mean() / many.var()), float(2 * variance.mean() ** 2 / variance.var())


def _scatter(levels: Vector, covariance: Vector) -> float:
    """How many times more neighbours differ than their repetitions and sessions explain, as a ratio of variances.

    The largest quarter of the differences is left out, so that steps do not count.
    """
    if levels.size < _TO_SEE_SCATTER:
        return 1.0
    generator = np.random.default_rng(_SEED)
    by_chance = np.linalg.cholesky(covariance) @ generator.standard_normal((levels.size, 2000))
    variance = np.diag(covariance)
    between = variance[:-1] + variance[1:] - 2 * np.diag(covariance, 1)

    def small(rows: Vector) -> Vector:
        squares = np.sort(np.diff(rows, axis=0) ** 2 / between[:, None], axis=0)
        return np.asarray(squares[: math.ceil(_SMALL * between.size)].mean(axis=0))

    return float(small(levels[:, None])[0] / small(by_chance).mean())


def _fit(levels: Vector, covariance: Vector, after: Sequence[int]) -> tuple[Vector, Vector]:
    """The sizes of steps behind these positions, and their standard errors."""
    positions = np.arange(levels.size)
    design = np.column_stack([np.ones(levels.size), *(positions > each for each in after)])
    weighted = np.linalg.solve(covariance, design).T
    inverse = np.linalg.inv(weighted @ design)
    return (inverse @ weighted @ levels)[1:], np.sqrt(np.diag(inverse))[1:]


def _contrasts(covariance: Vector) -> Vector:
    """For each place of a single step, the weights that make its statistic of the levels: step over standard error."""
    rows = []
    size = covariance.shape[0]
    precision = np.linalg.inv(covariance)
    ones = np.ones(size)
    for after in range(size - 1):
        later = (np.arange(size) > after).astype(float)
        rest = later - ones * (ones @ precision @ later) / (ones @ precision @ ones)
        weights = precision @ rest
        rows.append(weights / math.sqrt(float(rest @ weights)))
    return np.array(rows)


def _least(contrasts: Vector, covariance: Vector, df: float, level: float) -> float:
    """What the largest statistic exceeds in this share of histories without a step."""
    generator = np.random.default_rng(_SEED)
    root = contrasts @ np.linalg.cholesky(covariance)
    largest = np.empty(_DRAWS)
    for start in range(0, _DRAWS, 1000):
        drawn = root @ generator.standard_normal((covariance.shape[0], 1000))
        largest[start : start + 1000] = np.abs(drawn).max(axis=0)
    estimated = np.sqrt(generator.chisquare(df, _DRAWS) / df)
    return float(np.quantile(largest / estimated, 1 - level))


def _proposed(levels: Vector, covariance: Vector, contrasts: Vector, least: float) -> list[int]:
    """Positions behind which steps may be: PELT's, and the likeliest place of a single one."""
    cost = _WeightedCost(np.diag(np.linalg.inv(covariance)))
    ends: list[int] = Pelt(custom_cost=cost, min_size=1, jump=1).fit(levels.reshape(-1, 1)).predict(pen=least**2)
    statistics = np.abs(contrasts @ levels)
    likeliest = {int(statistics.argmax())} if statistics.max() > least else set()
    return sorted({end - 1 for end in ends[:-1]} | likeliest)


class _WeightedCost(BaseCost):  # type: ignore[misc]
    """Weighted sum of squares around the weighted mean of a segment."""

    model = "weighted"
    min_size = 1

    def __init__(self, weights: Vector) -> None:
        self._weights = weights

    def fit(self, signal: Vector) -> _WeightedCost:
        self.signal = signal
        values = signal[:, 0]
        sums = (self._weights, self._weights * values, self._weights * values**2)
        self._sums = np.array([np.concatenate([[0.0], np.cumsum(each)]) for each in sums])
        return self

    def error(self, start: int, end: int) -> Any:
        weight, first, second = self._sums[:, end] - self._sums[:, start]
        return second - first**2 / weight
