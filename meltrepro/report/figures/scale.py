"""Axes: where a value lies, and which values get a tick."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meltrepro.report.values import number

_LOG_FROM = 15.0
"""Ratio of the largest to the smallest value from which on an axis is logarithmic."""

_LEAST = 1e-9
"""Part of the values that an axis spans at least, so that its ticks are more than rounding."""
_LOG_TO = 1e30
"""Ratio from which on it is not: no device spans so much, and floats end near there."""


@dataclass(frozen=True)
class Scale:
    """A range of values on a stretch of the drawing."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        """Where a value lies; one outside the range lies at its edge."""
        low, high, value = (self._in(v) for v in (self.low, self.high, min(max(value, self.low), self.high)))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def _in(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def named(self, name: str) -> str:
        """The name of the axis, with what a reader would take wrongly otherwise."""
        return f"{name} (logarithmic)" if self.log else name

    def ticks(self, most: int = 7) -> list[tuple[float, str]]:
        """Round values within the range, with their names."""
        values = _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)
        return [(value, _name(value)) for value in values]


def scale(values: Iterable[float], start: float, end: float, *, log: bool | None = False, zero: bool = False) -> Scale:
    """A range that holds all values with a little room; `log=None` decides by their spread, `zero` begins at zero."""
    found = [value if abs(value) > 1 / _LOG_TO else 0.0 for value in values if math.isfinite(value)]
    positive = [value for value in found if value > 0]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    if log is None:
        log = bool(positive) and len(positive) == len(found) and high / low > _LOG_FROM
    if log and positive and high / min(positive) < _LOG_TO:
        low = min(positive)
        room = max((high / low) ** 0.06, 1.08)
        return Scale(low / room, high * room, start, end, True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    size = max(abs(low), abs(high))
    span = max(high - low, _LEAST * size) if high > low else size or 1.0
    return Scale(low if zero and low == 0 else low - 0.06 * span, high + 0.06 * span, start, end, False)


def _linear_ticks(low: float, high: float, most: int) -> Sequence[float]:
    raw = (high - low) / max(most - 1, 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> Sequence[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    best: list[float] = []
    for factors in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        values = [factor * 10.0**decade for decade in decades for factor in factors]
        best = [value for value in values if low <= value <= high]
        if len(best) <= most:
            break
    if len(best) > most:
        best = best[:: math.ceil(len(best) / most)]
    return best if len(best) > 2 else _linear_ticks(low, high, 4)


def _name(value: float) -> str:
    if value and not 1e-4 <= abs(value) < 1e6:
        return number(value)
    return f"{value:,.6f}".rstrip("0").rstrip(".")
