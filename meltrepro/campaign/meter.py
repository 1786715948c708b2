"""An external meter during a trial: what its file gained meanwhile goes into the record, on the meter's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from meltrepro.errors import RecordError, StoreError
from meltrepro.measure.meterfile import clipped, complete_bytes, in_order, read_meter
from meltrepro.measure.metering import Metered, device_moment, on_device_clock
from meltrepro.measure.samples import Recording, SampleWriter
from meltrepro.measure.traces import Trace
from meltrepro.spec.manifest import Meter
from meltrepro.spec.record import ClockReadings

_MARGIN_NS = 5 * 10**9
"""Kept before and after a trial of a file that was recorded as a whole."""
_POLL_S = 0.1
_T = TypeVar("_T")


class MeterError(RecordError):
    """A meter's file is missing, damaged, or does not grow."""


@dataclass(frozen=True)
class FileMeter:
    """A meter by the file that its program writes."""

    path: Path
    meter: Meter

    def begin(self) -> Metering:
        """Remember how long the file is now; raises `MeterError` where there is none."""
        if not self.path.is_file():
            raise MeterError(
                f"the meter's file {self.path} does not exist",
                hint="start the program of the meter before the campaign, or mend targets.NAME.meter.file",
            )
        return Metering(self, _told(lambda: complete_bytes(self.path)))


@dataclass(frozen=True)
class Metering:
    """One trial's part of a meter's file."""

    source: FileMeter
    start: int
    """Length of the file when the trial began."""

    def end(self, target: Path, trace: Trace, readings: ClockReadings) -> Metered:
        """Write what the file has gained to `target`, or of a file that does not grow what lies around the trial.

        Raises `MeterError` where there is nothing, `StoreError` where it cannot be written.
        """
        path, meter = self.source.path, self.source.meter
        grows = _told(lambda: complete_bytes(path)) > self.start or _grown(path, self.start, meter.linger_s)
        if grows:
            time.sleep(meter.linger_s)
        found = _told(lambda: read_meter(path, meter, self.start if grows else 0))
        metered = on_device_clock(found, trace, readings)
        if not grows:
            found = _around(found, metered, trace)
            if not any(series.t_ns for series in found.series):
                raise MeterError(
                    f"the meter's file {path} did not grow while the trial ran, and nothing in it is of its time",
                    hint="is the program of the meter still writing?",
                )
        try:
            _write(target, found)
        except RecordError as error:
            raise StoreError(error.message, hint=error.hint) from error
        return metered


def _around(found: Recording, metered: Metered, trace: Trace) -> Recording:
    """The part of a whole recording that belongs to a trial, on the meter's clock; all of it where that is unknown."""
    if metered.recording is None:
        return found
    begin_ns, end_ns = trace.hello.t_ns - _MARGIN_NS, trace.done_ns + _MARGIN_NS
    return clipped(found, device_moment(found, metered, begin_ns), device_moment(found, metered, end_ns))


def _write(target: Path, recording: Recording) -> None:
    with SampleWriter(target, recording.header) as writer:
        writer.samples(in_order(recording))
        for fault in recording.faults:
            writer.fault(fault)
        if recording.end_ns is not None:
            writer.end(recording.end_ns, 0.0)


def _grown(path: Path, start: int, within_s: float) -> bool:
    """Whether a file gets longer soon: programs write in blocks."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        time.sleep(_POLL_S)
        if _told(lambda: complete_bytes(path)) > start:
            return True
    return False


def _told(read: Callable[[], _T]) -> _T:
    try:
        return read()
    except MeterError:
        raise
    except RecordError as error:
        raise MeterError(error.message, hint=error.hint) from error
