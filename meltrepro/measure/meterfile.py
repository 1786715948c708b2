"""CSV files of external meters as recordings, on the clock that the file shows.

Lines before the heading are skipped, whatever they hold; a heading that comes again before what is read counts from there
on. A last line without its end is still being written. A cell that holds no number is a fault of its channel, a time that
does not increase damages the file.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge
from itertools import pairwise, repeat
from pathlib import Path
from statistics import median
from typing import BinaryIO

from meltrepro.errors import RecordError
from meltrepro.manifest.meters import Meter, MeterUnit
from meltrepro.record.samples import MOST_NS, FaultKind, Header, Recording, SensorFault, measurable
from meltrepro.record.series import Kind, SensorChannel, SensorSeries
from meltrepro.untrusted import open_regular

SAMPLER = "meter"
PREFIX = "meter."
_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
_UNITS: Mapping[MeterUnit, tuple[str, float, Kind]] = {
    "W": ("W", 1.0, "gauge"),
    "mW": ("W", 1e-3, "gauge"),
    "uW": ("W", 1e-6, "gauge"),
    "A": ("A", 1.0, "gauge"),
    "mA": ("A", 1e-3, "gauge"),
    "uA": ("A", 1e-6, "gauge"),
    "V": ("V", 1.0, "gauge"),
    "mV": ("V", 1e-3, "gauge"),
    "degC": ("degC", 1.0, "gauge"),
    "J": ("J", 1.0, "counter"),
    "mJ": ("J", 1e-3, "counter"),
    "Wh": ("J", 3600.0, "counter"),
    "mWh": ("J", 3.6, "counter"),
    "C": ("C", 1.0, "counter"),
    "mAh": ("C", 3.6, "counter"),
}
"""SI unit, factor, and whether it adds up."""
_LONGEST_LINE = 1 << 20
"""Bytes; a longer one is taken for the end of the file, as one that is still being written."""
_HEADING_WITHIN = 50
"""Lines in which the first heading must be found."""
_NAMES = {"W": "power", "A": "current", "V": "voltage", "J": "energy", "C": "charge", "degC": "temperature"}


def read_meter(path: Path, meter: Meter, start: int = 0) -> Recording:
    """What a meter's file shows from byte `start` on, which is the beginning of a line; raises `RecordError`."""
    try:
        with open_regular(path) as file:
            rows = _Rows(str(path), meter)
            rows.read(file, start)
    except OSError as error:
        raise RecordError(
            f"the meter's file {path} cannot be read: {error.strerror or error}",
            hint="start the program of the meter before the campaign, or mend targets.NAME.meter.file",
        ) from error
    return rows.recording()


def complete_bytes(path: Path) -> int:
    """Length of a file up to the end of its last whole line; 0 for a file that is not there. Raises `RecordError`."""
    try:
        with open_regular(path) as file:
            end = file.seek(0, 2)
            while end > 0:
                begin = max(0, end - 4096)
                file.seek(begin)
                found = file.read(end - begin).rfind(b"\n")
                if found >= 0:
                    return begin + found + 1
                end = begin
            return 0
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise RecordError(f"the meter's file {path} cannot be read: {error.strerror or error}") from error


@dataclass
class _Rows:
    """A file on its way to a recording."""

    name: str
    meter: Meter
    times: list[int] = field(default_factory=list)
    columns: list[tuple[list[int], list[float]]] = field(default_factory=list)
    faults: list[SensorFault] = field(default_factory=list)
    torn: bool = False

    def read(self, file: BinaryIO, start: int) -> None:
        at, indices, number = self._heading(file, start)
        self.columns = [([], []) for _ in indices]
        faulty = [False] * len(indices)
        for line in self._lines(file):
            number += 1
            cells = self._row(line, number)
            if not any(cell.strip() for cell in cells):
                continue
            t_ns = self._time(cells, at, number)
            self.times.append(t_ns)
            for place, index in enumerate(indices):
                found = _number(cells[index] if index < len(cells) else "")
                value = measurable(found) if found is not None else None
                if value is None:
                    if not faulty[place]:
                        shown = ascii(cells[index])[:60] if index < len(cells) else "no cell"
                        self.faults.append(SensorFault(t_ns, place, FaultKind.not_a_number, shown))
                    faulty[place] = True
                    continue
                faulty[place] = False
                self.columns[place][0].append(t_ns)
                self.columns[place][1].append(value)

    def recording(self) -> Recording:
        meter = self.meter
        steps = [(after - before) / 1e9 for before, after in pairwise(self.times)]
        if not steps:
            raise RecordError(
                f"{self.name}: fewer than two samples were added while the trial ran",
                hint="is the program of the meter still writing?",
            )
        period = median(steps)
        channels = tuple(self._channel(heading, unit) for heading, unit in meter.columns.items())
        series = tuple(
            SensorSeries(channel, tuple(t), tuple(value * _UNITS[unit][1] for value in values))
            for channel, unit, (t, values) in zip(channels, meter.columns.values(), self.columns, strict=True)
        )
        header = Header(SAMPLER, 1 / period, channels, None, meter.clock, meter.clock_bound_s)
        return Recording(header, series, tuple(self.faults), self.times[-1], None, torn=self.torn)

    def _channel(self, heading: str, unit: MeterUnit) -> SensorChannel:
        base, _, kind = _UNITS[unit]
        same = [name for name, other in self.meter.columns.items() if _UNITS[other][0] == base]
        name = PREFIX + _NAMES[base] + (f".{same.index(heading)}" if len(same) > 1 else "")
        return SensorChannel(name, base, kind, f"{Path(self.name).name}: {heading} ({unit})", self.meter.refresh_s)

    def _heading(self, file: BinaryIO, start: int) -> tuple[int, list[int], int]:
        """Place of the time, places of the columns, and how many lines were read: up to `start` and the heading.

        The last heading before `start` counts, or the first one where there is none.
        """
        wanted = [self.meter.time, *self.meter.columns]
        seen: list[str] = []
        found: tuple[int, list[int]] | None = None
        number = end = 0
        while end < start or (found is None and number < _HEADING_WITHIN):
            line = file.readline(_LONGEST_LINE)
            if not line.endswith(b"\n"):
                break
            number, begin, end = number + 1, end, end + len(line)
            if begin < start < end:
                raise self._rewritten()
            if number > _HEADING_WITHIN and self.meter.time.encode() not in line:
                continue  # a long file has few headings
            try:
                cells = [cell.strip() for cell in self._cells(line.decode("utf-8-sig", "replace"))]
            except csv.Error:
                continue
            if all(heading in cells for heading in wanted):
                found = cells.index(wanted[0]), [cells.index(heading) for heading in wanted[1:]]
            elif len(cells) > len(seen):
                seen = cells
        if end < start:
            raise self._rewritten()
        if found is None:
            missing = [heading for heading in wanted if heading not in seen]
            raise RecordError(
                f"{self.name}: no line has the headings {', '.join(map(repr, wanted))}; missing are "
                f"{', '.join(map(repr, missing))}, found was {', '.join(map(ascii, seen))[:200] or 'nothing'}",
                hint="name the columns as the file does, in targets.NAME.meter",
            )
        return *found, number

    def _rewritten(self) -> RecordError:
        return RecordError(
            f"{self.name}: the file was rewritten while the trial ran",
            hint="let the program of the meter append to its file for as long as the campaign runs",
        )

    def _lines(self, file: BinaryIO) -> Iterator[str]:
        while line := file.readline(_LONGEST_LINE):
            if not line.endswith(b"\n"):
                self.torn = True
                return
            yield line.decode("utf-8", "replace")

    def _row(self, line: str, number: int) -> list[str]:
        try:
            return self._cells(line)
        except csv.Error as error:
            raise RecordError(
                f"{self.name}:{number}: expected a row of cells, got {ascii(line)[:60]}: {error}",
                hint="the line is damaged; repeat the trial",
            ) from error

    def _cells(self, line: str) -> list[str]:
        """The cells of one line, so that a quote that is never closed spoils no other; raises `csv.Error`."""
        return next(csv.reader([line.rstrip("\r\n")], delimiter=self.meter.delimiter), [])

    def _time(self, cells: list[str], at: int, number: int) -> int:
        cell = cells[at] if at < len(cells) else ""
        value = _number(cell)
        where = f"{self.name}:{number}"
        if value is None:
            shown = ascii(cell)[:60] if at < len(cells) else "no cell"
            raise RecordError(
                f"{where}: {shown} is no time",
                hint="name the column of the times in targets.NAME.meter.time; if it is the right one, the line is damaged",
            )
        t_ns = _exact_ns(cell, value, self.meter.time_unit)
        if t_ns > MOST_NS:
            raise RecordError(
                f"{where}: {ascii(cell)[:60]} is no time in {self.meter.time_unit}",
                hint="is targets.NAME.meter.time_unit right?",
            )
        if t_ns < 0:
            raise RecordError(
                f"{where}: the time is negative, {ascii(cell)[:60]}; expected times from 0 on",
                hint="name a column that counts from 0 or shows Unix time, in targets.NAME.meter.time",
            )
        if self.times and t_ns == self.times[-1]:
            raise RecordError(
                f"{where}: the time is that of the row before, {t_ns} ns: the times are too coarse for the meter's rate",
                hint="let the program of the meter write times with more digits, or fewer samples",
            )
        if self.times and t_ns < self.times[-1]:
            raise RecordError(
                f"{where}: the time does not increase, from {self.times[-1]} to {t_ns} ns",
                hint="the meter's clock was set, or its file holds several recordings",
            )
        return t_ns


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _exact_ns(text: str, value: float, unit: str) -> int:
    """A time without the rounding of floating point, which loses 100 ns of a Unix time in seconds."""
    from decimal import Decimal, InvalidOperation

    try:
        return round(Decimal(text.strip()) * Decimal(_NS[unit]))
    except InvalidOperation:
        return round(value * _NS[unit])


def clipped(recording: Recording, begin_ns: int, end_ns: int) -> Recording:
    """The part of a recording between two times of its own clock."""

    def part(series: SensorSeries) -> SensorSeries:
        kept = [(t, x) for t, x in zip(series.t_ns, series.values, strict=True) if begin_ns <= t <= end_ns]
        return SensorSeries(series.channel, tuple(t for t, _ in kept), tuple(x for _, x in kept))

    series = tuple(map(part, recording.series))
    last = max((each.t_ns[-1] for each in series if each.t_ns), default=None)
    faults = tuple(fault for fault in recording.faults if begin_ns <= fault.t_ns <= end_ns)
    return Recording(recording.header, series, faults, last, recording.cpu_s, recording.torn)


def in_order(recording: Recording) -> Iterable[tuple[int, int, float]]:
    """All samples as `SampleWriter` takes them: time, index of the channel, value; sorted by time."""
    return merge(*(zip(series.t_ns, repeat(place), series.values) for place, series in enumerate(recording.series)))
