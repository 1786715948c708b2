"""A meter's samples on the device's clock, with the bound of how far they may be off.

A meter that shows the device's own clock needs nothing. One that shows the host's Unix time goes through the host's
monotonic clock, by the comparisons of `clocks.json`. One with a clock of its own is aligned by the sync marks before and
after the conversations: two anchors give offset and drift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import starmap

from meltrepro.errors import RecordError
from meltrepro.measure import energy
from meltrepro.measure.alignment import align
from meltrepro.measure.clocks import MOST_DRIFT, ClockMap, ClockProbe, fit, join
from meltrepro.measure.integrals import NoValue
from meltrepro.record.samples import Recording
from meltrepro.record.series import SensorSeries
from meltrepro.record.trace import Trace
from meltrepro.record.trial import ClockReadings, Readings

_RISE_S = 0.01
"""How long the power takes to follow the load: voltage regulators settle within milliseconds."""
_SEARCH_S = 1.0
"""Around the place where the first mark says the second must be."""


@dataclass(frozen=True)
class Metered:
    """A meter's recording with device times, or why it has none."""

    recording: Recording | None
    bound_ns: Callable[[int, int], float] = lambda begin_ns, end_ns: 0.0
    """How far its times may be off between two of the device's."""
    problem: str | None = None
    own_ns: Callable[[int], int] = lambda t_ns: t_ns
    """A device's moment on the meter's own clock."""


def _clock(before: Readings, after: Readings) -> ClockMap:
    """From the host's monotonic clock to another; raises `RecordError` where one was set or stood still."""
    return fit(list(starmap(ClockProbe, before)), list(starmap(ClockProbe, after)), resolution_ns=1)


def jump_s(readings: ClockReadings) -> float:
    """The most by which two clocks moved apart between the comparisons, in seconds: 0 with nothing to compare.

    A device that was suspended, and a clock that was set, show here; drift and round trips are subtracted.
    """
    pairs = (
        (readings.device_before, readings.device_after),
        (readings.wall_before, readings.wall_after),
    )
    largest = 0.0
    for before, after in pairs:
        if before and after:
            first, last = (
                min(starmap(ClockProbe, part), key=lambda probe: probe.round_trip_ns) for part in (before, after)
            )
            moved = abs((last.there_ns - first.there_ns) - (last.sent_ns - first.sent_ns))
            allowed = MOST_DRIFT * (last.sent_ns - first.sent_ns) + first.round_trip_ns + last.round_trip_ns
            largest = max(largest, (moved - allowed) / 1e9)
    return largest


def on_device_clock(meter: Recording, trace: Trace, readings: ClockReadings | None) -> Metered:
    """The recording of a meter with the device's times, or why they cannot be known."""
    try:
        return _placed(meter, trace, readings)
    except RecordError as error:
        return Metered(None, problem=error.one_line)


def _placed(meter: Recording, trace: Trace, readings: ClockReadings | None) -> Metered:
    extra_ns = meter.header.clock_bound_s * 1e9
    if meter.header.clock == "device":
        return Metered(meter, lambda begin_ns, end_ns: extra_ns)
    if meter.header.clock == "host":
        if readings is None:
            raise RecordError("the clocks of host and device were not compared")
        wall = _clock(readings.wall_before, readings.wall_after)
        device = _clock(readings.device_before, readings.device_after)

        def bound_ns(begin_ns: int, end_ns: int) -> float:
            begin_ns, end_ns = device.here(begin_ns), device.here(end_ns)
            return wall.widest_ns(begin_ns, end_ns) + device.widest_ns(begin_ns, end_ns) + extra_ns

        mapped = _mapped(meter, lambda t_ns: device.there(wall.here(t_ns)))
        return Metered(mapped, bound_ns, own_ns=lambda t_ns: wall.there(device.here(t_ns)))
    clock = _by_marks(meter, trace)
    return Metered(_mapped(meter, clock.here), clock.widest_ns, own_ns=clock.there)


def _by_marks(meter: Recording, trace: Trace) -> ClockMap:
    """From the device's clock to the meter's own, by the sync marks."""
    power = _power(meter)
    first_ns = trace.conversations[0].begin_ns if trace.conversations else trace.done_ns
    before = [pulse for pulse in trace.pulses if pulse.end_ns <= first_ns]
    after = [pulse for pulse in trace.pulses if pulse.end_ns > first_ns]
    if not before:
        raise RecordError("the runner made no sync mark, and the meter has a clock of its own")
    if not after:
        return join(align(power, before, rise_s=_RISE_S).anchor)
    first = align(power, before, later=after, rise_s=_RISE_S).anchor
    passed_ns = after[-1].end_ns - before[-1].end_ns
    search_s = _SEARCH_S + MOST_DRIFT * passed_ns / 1e9
    last = align(power, after, around_ns=first.offset_ns, search_s=search_s, rise_s=_RISE_S).anchor
    return join(first, last)


def _power(meter: Recording) -> SensorSeries:
    """What shows the pulses: power, or a current, or the growth of a counter."""
    try:
        supply = energy.supply_of(meter)
    except NoValue as error:
        current = next((s for s in meter.series if s.channel.unit == energy.CURRENT and s.t_ns), None)
        if current is None:
            raise RecordError(f"the meter shows nothing that a sync mark could be seen in: {error}") from error
        return energy.positive(current)
    if supply.power is not None:
        return supply.power
    counter = supply.counter
    assert counter is not None
    if len(counter) < 2:
        raise RecordError("the meter's counter has fewer than two samples")
    steps = [
        (counter.values[i] - counter.values[i - 1]) / ((counter.t_ns[i] - counter.t_ns[i - 1]) / 1e9)
        for i in range(1, len(counter))
    ]
    return SensorSeries(counter.channel, counter.t_ns[1:], tuple(steps))


def _mapped(meter: Recording, device_ns: Callable[[int], int]) -> Recording:
    """With the device's times, of faults and the end too."""
    series = tuple(SensorSeries(s.channel, tuple(map(device_ns, s.t_ns)), s.values) for s in meter.series)
    faults = tuple(replace(fault, t_ns=device_ns(fault.t_ns)) for fault in meter.faults)
    end_ns = None if meter.end_ns is None else device_ns(meter.end_ns)
    return replace(meter, series=series, faults=faults, end_ns=end_ns)
