"""An external meter during a trial: what its file gained meanwhile goes into the record, on the meter's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TypeVar

from meltrepro.errors import ManifestError, Problem, RecordError, StoreError
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.manifest.meters import Meter
from meltrepro.measure.meterfile import check_meter, clipped, complete_bytes, in_order, read_meter
from meltrepro.measure.metering import Metered, on_device_clock
from meltrepro.record.samples import Recording, SampleWriter
from meltrepro.record.trace import Trace
from meltrepro.record.trial import ClockReadings

_MARGIN_NS = 5 * 10**9
"""Kept after a trial of a file that was recorded as a whole."""
_POLL_S = 0.1
_T = TypeVar("_T")


class MeterError(RecordError):
    """A meter's file is missing, damaged, or does not grow."""


def require_meters(loaded: LoadedManifest, used: Collection[str]) -> None:
    """Raise `ManifestError` where the file of a meter of the targets in use is not there, or could not be read as declared."""
    wrong: list[Problem] = []
    for name in sorted(used):
        meter = loaded.manifest.targets[name].meter
        if meter is None:
            continue
        path = loaded.path.parent / meter.file
        if not path.is_file():
            missing = f"{path} does not exist", "start the program of the meter before the campaign"
            wrong.append(problem_at(loaded, ("targets", name, "meter", "file"), *missing))
            continue
        try:
            check_meter(path, meter)
        except RecordError as error:
            hint = error.hint.replace("targets.NAME", f"targets.{name}") if error.hint else None
            wrong.append(problem_at(loaded, ("targets", name, "meter"), error.message, hint))
    if wrong:
        raise ManifestError(wrong)


@dataclass(frozen=True)
class FileMeter:
    """A meter by the file that its program writes."""

    path: Path
    meter: Meter

    def begin(self) -> Metering:
        """Remember which file it is and how long it is now; raises `MeterError` where there is none."""
        if not self.path.is_file():
            raise MeterError(
                f"the meter's file {self.path} does not exist",
                hint="start the program of the meter before the campaign, or mend targets.NAME.meter.file",
            )
        return Metering(self, _as_meter_error(lambda: complete_bytes(self.path, self.meter)), _inode(self.path))


@dataclass(frozen=True)
class Metering:
    """One trial's part of a meter's file."""

    source: FileMeter
    start: int
    """Length of the file when the trial began."""
    inode: int | None
    """Which file it was: a program may begin another one under the same name."""

    def end(self, target: Path, trace: Trace, readings: ClockReadings) -> Metered:
        """Write what the file has gained to `target`, or of a file that does not grow what lies around the trial.

        Raises `MeterError` where there is nothing, `StoreError` where it cannot be written.
        """
        path, meter = self.source.path, self.source.meter
        if self._grew_soon():
            time.sleep(meter.linger_s)
        grew = self._grew()
        found = _as_meter_error(lambda: read_meter(path, meter, self.start if grew else 0))
        metered = on_device_clock(found, trace, readings)
        if not grew and metered.recording is not None:
            found = _around(found, metered, trace, readings)
            metered = on_device_clock(found, trace, readings)  # as it is for whoever reads the record
        _check(path, metered, trace, grew=grew)
        try:
            _write(target, found)
        except RecordError as error:
            raise StoreError(error.message, hint=error.hint) from error
        return metered

    def _grew(self) -> bool:
        """Whether the file is the same one and has more lines."""
        return (
            _inode(self.source.path) == self.inode
            and _as_meter_error(lambda: complete_bytes(self.source.path, self.source.meter)) > self.start
        )

    def _grew_soon(self) -> bool:
        """Whether the file has more lines, or gets them soon: programs write in blocks."""
        until = time.monotonic() + self.source.meter.linger_s
        while not (grew := self._grew()) and time.monotonic() < until:
            time.sleep(_POLL_S)
        return grew


def _around(found: Recording, metered: Metered, trace: Trace, readings: ClockReadings) -> Recording:
    """The part of a whole recording that belongs to a trial, on the meter's clock.

    As of a file that grows, it begins with the trial: what was before is not the device at rest.
    """
    began_ns = min(answer_ns for _, answer_ns, _ in readings.device_before)
    begin_ns = began_ns - ceil(metered.bound_ns(began_ns, began_ns))
    return clipped(found, metered.own_ns(begin_ns), metered.own_ns(trace.done_ns + _MARGIN_NS))


def _check(path: Path, metered: Metered, trace: Trace, *, grew: bool) -> None:
    """Raise `MeterError` where it is known that no sample is of the time in which the runner ran."""
    if metered.recording is None or any(
        trace.hello.t_ns <= t_ns <= trace.done_ns for series in metered.recording.series for t_ns in series.t_ns
    ):
        return
    if grew:
        raise MeterError(
            f"{path}: none of its samples is of the trial's time",
            hint="are targets.NAME.meter.clock and time_unit right?",
        )
    raise MeterError(
        f"the meter's file {path} did not grow while the trial ran, and none of its samples is of the trial's time",
        hint="is the program of the meter still writing? are targets.NAME.meter.clock and time_unit right?",
    )


def _write(target: Path, recording: Recording) -> None:
    with SampleWriter(target, recording.header) as writer:
        writer.samples(in_order(recording))
        for fault in recording.faults:
            writer.fault(fault)
        if recording.end_ns is not None:
            writer.end(recording.end_ns, 0.0)


def _inode(path: Path) -> int | None:
    """Which file a name stands for; `None` where there is none."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _as_meter_error(read: Callable[[], _T]) -> _T:
    try:
        return read()
    except MeterError:
        raise
    except RecordError as error:
        raise MeterError(error.message, hint=error.hint) from error
