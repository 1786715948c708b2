"""How two quantities go together: a straight line through points, a line within groups, and rank correlation.

Imports numpy and scipy where they are needed, so that importing this module costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

_ROUNDING = 1e-12
"""Part of a sum of squares that rounding alone may leave."""


@dataclass(frozen=True)
class Line:
    """Least squares: y = intercept + slope x."""

    slope: float
    intercept: float
    r2: float
    """Part of the variance of y that x explains; 0 where y does not vary."""
    p: float
    """Two-sided: probability of a slope at least this far from 0, if there were none."""
    n: int


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """The line through at least three points; `None` for fewer, and where x does not vary. Raises `ValueError`."""
    return fit_within([(x, y)])


def fit_within(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Line | None:
    """The common slope of several groups of points, each with a level of its own (fixed effects).

    Both coordinates are centred on the mean of their group; the degrees of freedom are points - groups - 1. The
    intercept is that of the mean level. `None` where there are too few points or x does not vary within any group.
    Raises `ValueError` for groups whose coordinates are not of one length, or not finite.
    """
    if any(len(x) != len(y) for x, y in groups):
        raise ValueError("as many values of y as of x are needed")
    used = [(x, y) for x, y in groups if len(x) > 1]
    if not all(math.isfinite(value) for x, y in used for value in (*x, *y)):
        raise ValueError("a value is not finite")
    n = sum(len(x) for x, _ in used)
    df = n - len(used) - 1
    if df < 1:
        return None
    sxx = sxy = syy = scale = 0.0
    for x, y in used:
        mean_x, mean_y = fmean(x), fmean(y)
        sxx += math.fsum((a - mean_x) ** 2 for a in x)
        syy += math.fsum((b - mean_y) ** 2 for b in y)
        sxy += math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
        scale += math.fsum(a * a for a in x)
    if sxx <= _ROUNDING * scale:
        return None
    slope = sxy / sxx
    residual = max(0.0, syy - slope * sxy)
    r2 = 1 - residual / syy if syy > 0 else 0.0
    level_x = math.fsum(a for x, _ in used for a in x) / n
    level_y = math.fsum(b for _, y in used for b in y) / n
    return Line(slope, level_y - slope * level_x, r2, _p_of_slope(slope, sxx, residual, syy, df), n)


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Rank correlation, ties at their mean rank; `None` for fewer than three points or where one does not vary.

    Raises `ValueError` for samples that are not of one length.
    """
    if len(x) != len(y):
        raise ValueError("as many values of y as of x are needed")
    if len(set(y)) == 1:
        return None
    from scipy.stats import rankdata

    line = fit_line([float(rank) for rank in rankdata(x)], [float(rank) for rank in rankdata(y)])
    if line is None:
        return None
    return math.copysign(math.sqrt(line.r2), line.slope)


def _p_of_slope(slope: float, sxx: float, residual: float, syy: float, df: int) -> float:
    if slope == 0:
        return 1.0
    if residual <= _ROUNDING * syy:
        return 0.0
    from scipy.special import stdtr

    t = abs(slope) / math.sqrt(residual / df / sxx)
    return float(2 * stdtr(df, -t))
