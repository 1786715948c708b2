"""Error spending: how one error rate is divided over the looks of a sequential test.

A test that is repeated while trials are added errs more often than its level says. Here each look has its own, smaller
level, chosen so that all looks together err with probability `alpha`: by look k, at information fraction t_k, the share
alpha * t_k**rho has been spent (Lan and DeMets 1983; this family: Kim and DeMets 1987). Levels follow from the joint
distribution of the looks by recursive numerical integration (Armitage, McPherson and Rowe 1969; Jennison and Turnbull
2000, chapter 19). They are applied to Student's t as significance levels, which keeps the error rate well for an
unknown variance (Jennison and Turnbull 2000, chapter 4).

Imports numpy and scipy: import this module only where a comparison is made.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

_GRID = 801
_TAIL = 8.0
"""Standard deviations below zero at which the integration starts."""


@lru_cache(maxsize=256)
def nominal_levels(information: tuple[float, ...], alpha: float, rho: float) -> tuple[float, ...]:
    """One-sided level of each look; `information` rises, only its proportions count."""
    fractions = tuple(value / information[-1] for value in information)
    return levels(fractions, tuple(alpha * fraction**rho for fraction in fractions))


def levels(fractions: tuple[float, ...], spent: tuple[float, ...]) -> tuple[float, ...]:
    """One-sided level of each look, given the information fraction and the error rate spent up to each."""
    # Brownian motion b(t) with one upper boundary: `density` is that of paths which have not crossed so far.
    boundary = -float(ndtri(spent[0])) * math.sqrt(fractions[0])
    grid = _grid(fractions[0], boundary)
    density = _normal_density(grid, math.sqrt(fractions[0]))
    result = [spent[0]]
    for k in range(1, len(fractions)):
        step = math.sqrt(fractions[k] - fractions[k - 1])
        weights = density * _simpson(grid)
        boundary = _solve(grid, weights, step, spent[k] - spent[k - 1], math.sqrt(fractions[k]))
        result.append(float(ndtr(-boundary / math.sqrt(fractions[k]))))
        ahead = _grid(fractions[k], boundary)
        density = _normal_density(ahead[:, None] - grid[None, :], step) @ weights
        grid = ahead
    return tuple(result)


def _solve(
    grid: NDArray[np.float64], weights: NDArray[np.float64], step: float, increment: float, scale: float
) -> float:
    """Boundary that paths cross at this look with probability `increment`, by bisection."""
    low, high = -_TAIL * scale, _TAIL * scale
    while high - low > 1e-10:
        middle = (low + high) / 2
        if float(weights @ ndtr((grid - middle) / step)) > increment:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _grid(fraction: float, boundary: float) -> NDArray[np.float64]:
    return np.linspace(-_TAIL * math.sqrt(fraction), boundary, _GRID)


def _simpson(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.full(grid.size, 2.0)
    weights[1::2] = 4.0
    weights[0] = weights[-1] = 1.0
    return np.asarray(weights * (grid[1] - grid[0]) / 3)


def _normal_density(x: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * (x / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi)))
