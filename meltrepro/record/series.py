"""A quantity over time: a channel, its samples, and what is wrong with them.

Times are nanoseconds on one clock, by default the device's CLOCK_MONOTONIC. Standard library only: the process that
samples on the device's side imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Literal

from meltrepro.errors import RecordError
from meltrepro.record.trace import Span

Kind = Literal["gauge", "counter"]


@dataclass(frozen=True)
class SensorChannel:
    """One quantity that a sampler reads."""

    name: str
    unit: str
    kind: Kind
    """A gauge is a value of the moment; a counter adds up and never falls, except where it wraps."""
    source: str
    """Where it is read: a path, a rail of a meter, a column of a file."""
    refresh_s: float | None
    """How often the source itself takes a new value; `None` where that is not known."""
    wraps_at: float | None = None
    """Of a counter: the value that it never reaches, because it starts again at 0 instead; `None`: it never wraps."""


@dataclass(frozen=True)
class SensorSeries:
    """Samples of one channel, times strictly increasing; raises `RecordError` for anything else."""

    channel: SensorChannel
    t_ns: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.t_ns) != len(self.values):
            raise RecordError(f"{self.channel.name}: {len(self.t_ns)} times for {len(self.values)} values")
        if any(after <= before for before, after in pairwise(self.t_ns)):
            raise RecordError(f"{self.channel.name}: time does not increase from sample to sample")
        if not all(map(math.isfinite, self.values)):
            raise RecordError(f"{self.channel.name}: a value is not finite")

    def __len__(self) -> int:
        return len(self.t_ns)

    @cached_property
    def seconds(self) -> Sequence[float]:
        """Times since the first sample."""
        return [(t - self.t_ns[0]) / 1e9 for t in self.t_ns]

    @cached_property
    def running(self) -> Sequence[float]:
        """Integral from the first sample to each, by the trapezoidal rule, in units times seconds."""
        pairs = zip(pairwise(self.values), pairwise(self.seconds), strict=True)
        return list(accumulate(((x + y) / 2 * (b - a) for (x, y), (a, b) in pairs), initial=0.0))

    def stuck(self, longer_than_s: float, fewest: int = 3) -> tuple[Span, ...]:
        """Where at least `fewest` samples in a row over more than this time have one and the same value.

        Whether that is a fault depends on the channel: a current is never quite constant, a charge state is.
        """
        found = []
        first = 0
        for i in range(1, len(self) + 1):
            if i == len(self) or self.values[i] != self.values[first]:
                if i - first >= fewest and self.t_ns[i - 1] - self.t_ns[first] > longer_than_s * 1e9:
                    found.append(Span(self.t_ns[first], self.t_ns[i - 1]))
                first = i
        return tuple(found)

    def unwrapped(self, fastest: float | None = None) -> SensorSeries:
        """A counter without its wraps: values from the first one on, never falling.

        `fastest` (units per second) is the most that the counter can grow. With it, a step that it cannot have made (a
        counter that was reset) and a pause in which it may have wrapped unseen are both found. Raises `RecordError`.
        """
        wraps_at, name = self.channel.wraps_at, self.channel.name
        if self.channel.kind != "counter":
            raise RecordError(f"{name} is a gauge, which does not wrap")
        if wraps_at is not None and any(not 0 <= value < wraps_at for value in self.values):
            raise RecordError(f"{name}: a value lies outside 0 to {wraps_at}, where the counter is said to wrap")
        total = list(self.values[:1])
        for i in range(1, len(self)):
            step, pause_s = self.values[i] - self.values[i - 1], (self.t_ns[i] - self.t_ns[i - 1]) / 1e9
            if step < 0 and wraps_at is None:
                raise RecordError(f"{name}: the counter fell at {self.t_ns[i]} ns, and it is not said to wrap")
            if step < 0 and wraps_at is not None:
                step += wraps_at
            if fastest is not None and step > fastest * pause_s:
                raise RecordError(f"{name}: the counter made an impossible step at {self.t_ns[i]} ns: it was reset")
            if fastest is not None and wraps_at is not None and fastest * pause_s >= wraps_at + step:
                raise RecordError(f"{name}: {pause_s:.3g} s without a sample, in which the counter may have wrapped")
            total.append(total[-1] + step)
        return SensorSeries(self.channel, self.t_ns, tuple(total))
