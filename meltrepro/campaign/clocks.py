"""Comparisons of this machine's clocks with the device's, before and after each trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from meltrepro.record.trial import ClockReadings, Readings
from meltrepro.targets.base import Target

_PROBES = 8
"""Questions each time; the one with the shortest round trip counts, the others show that it is not by chance."""


@dataclass(frozen=True)
class Comparison:
    """One comparison of all clocks."""

    device: Readings
    wall: Readings


def compare(target: Target) -> Comparison:
    """Ask the device and this machine for their time; raises `TargetLost`."""
    return Comparison(_ask(target.clock_ns), _ask(time.time_ns))


def readings(before: Comparison, after: Comparison) -> ClockReadings:
    """Two comparisons as a record keeps them."""
    return ClockReadings(
        device_before=before.device, device_after=after.device, wall_before=before.wall, wall_after=after.wall
    )


def _ask(there: Callable[[], int]) -> Readings:
    found = []
    for _ in range(_PROBES):
        sent_ns = time.monotonic_ns()
        answer_ns = there()
        found.append((sent_ns, answer_ns, time.monotonic_ns()))
    return found
