"""Virtual power traces whose energy is known exactly: piecewise linear, sampled as real meters sample."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from meltrepro.record.series import SensorChannel, SensorSeries
from meltrepro.record.trace import Span

S = 10**9


@dataclass(frozen=True)
class Power:
    """Power over time: corners (seconds, watts), straight lines between them; two corners at one time are a step."""

    corners: tuple[tuple[float, float], ...]

    @cached_property
    def times(self) -> list[float]:
        """Seconds of the corners."""
        return [t for t, _ in self.corners]

    def at(self, t: float) -> float:
        """Watts; after a step, those behind it."""
        i = bisect_right(self.times, t) - 1
        if i < 0:
            return self.corners[0][1]
        if i == len(self.corners) - 1:
            return self.corners[-1][1]
        (t0, p0), (t1, p1) = self.corners[i], self.corners[i + 1]
        return p0 + (p1 - p0) * (t - t0) / (t1 - t0) if t1 > t0 else p1

    def energy(self, begin: float, end: float) -> float:
        """Joules between two times, exactly."""
        times = [begin, *(t for t, _ in self.corners if begin < t < end), end]
        total = 0.0
        for a, b in pairwise(times):
            width = b - a
            total += width * (self.at(a + width * 1e-9) + self.at(b - width * 1e-9)) / 2
        return total


def steps(levels: Sequence[tuple[float, float]]) -> Power:
    """Levels that each last some seconds: (seconds, watts)."""
    corners, t = [], 0.0
    for seconds, watts in levels:
        corners += [(t, watts), (t + seconds, watts)]
        t += seconds
    return Power(tuple(corners))


def sampled(
    power: Power,
    seconds: float,
    rate_hz: float,
    *,
    seed: int = 0,
    jitter: float = 0.0,
    dropped: float = 0.0,
    noise: float = 0.0,
    channel: SensorChannel | None = None,
) -> SensorSeries:
    """What a meter shows: jitter in periods, a share of samples dropped, noise in watts (standard deviation)."""
    chance = random.Random(seed)
    times: list[int] = []
    values: list[float] = []
    for i in range(int(seconds * rate_hz) + 1):
        t = min(max((i + chance.uniform(-jitter, jitter) / 2) / rate_hz, 0.0), seconds)
        inside = 0 < i < int(seconds * rate_hz)
        if (inside and chance.random() < dropped) or (times and round(t * S) <= times[-1]):
            continue
        times.append(round(t * S))
        values.append(power.at(t) + chance.gauss(0, noise))
    return SensorSeries(
        channel or SensorChannel("meter.power", "W", "gauge", "virtual", None), tuple(times), tuple(values)
    )


def span(begin: float, end: float) -> Span:
    """A span in seconds."""
    return Span(round(begin * S), round(end * S))
