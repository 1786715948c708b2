"""CSV files of external meters as recordings, on the clock that the file shows; how their rows are read is in `meterrows`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from heapq import merge
from itertools import pairwise, repeat
from pathlib import Path
from statistics import median

from meltrepro.errors import RecordError
from meltrepro.manifest.meters import Meter, MeterUnit
from meltrepro.measure.meterrows import Rows
from meltrepro.measure.metertext import Text
from meltrepro.record.samples import Header, Recording
from meltrepro.record.series import Kind, SensorChannel, SensorSeries
from meltrepro.untrusted import open_regular

SAMPLER = "meter"
PREFIX = "meter."
_UNITS: Mapping[MeterUnit, tuple[str, float, Kind]] = {
    "W": ("W", 1.0, "gauge"),
    "mW": ("W", 1e-3, "gauge"),
    "uW": ("W", 1e-6, "gauge"),
    "kW": ("W", 1e3, "gauge"),
    "A": ("A", 1.0, "gauge"),
    "mA": ("A", 1e-3, "gauge"),
    "uA": ("A", 1e-6, "gauge"),
    "V": ("V", 1.0, "gauge"),
    "mV": ("V", 1e-3, "gauge"),
    "degC": ("degC", 1.0, "gauge"),
    "J": ("J", 1.0, "counter"),
    "mJ": ("J", 1e-3, "counter"),
    "uJ": ("J", 1e-6, "counter"),
    "Wh": ("J", 3600.0, "counter"),
    "mWh": ("J", 3.6, "counter"),
    "kWh": ("J", 3.6e6, "counter"),
    "C": ("C", 1.0, "counter"),
    "mAh": ("C", 3.6, "counter"),
    "Ah": ("C", 3600.0, "counter"),
}
"""SI unit, factor, and whether it adds up."""
_NAMES = {"W": "power", "A": "current", "V": "voltage", "J": "energy", "C": "charge", "degC": "temperature"}
_NOT_THERE = "start the program of the meter before the campaign, or mend targets.NAME.meter.file"


def read_meter(path: Path, meter: Meter, start: int = 0) -> Recording:
    """What a meter's file shows from byte `start` on, which is the beginning of a line; raises `RecordError`."""
    with _rows(path, meter) as rows:
        rows.read(start)
    rows.complain()
    rows.require_two()
    return _recording(rows, path.name)


def check_meter(path: Path, meter: Meter) -> None:
    """Look at the end of what a meter's file holds by now; raises `RecordError` where more of it could not be read.

    A file that has no whole line yet passes.
    """
    with _rows(path, meter) as rows:
        if not rows.text.begun():
            return
        rows.read_last()
    if not rows.undecided:
        rows.complain()


def complete_bytes(path: Path, meter: Meter | None = None) -> int:
    """Length of a file up to the end of its last whole line; 0 for a file that is not there. Raises `RecordError`."""
    try:
        with open_regular(path) as file:
            return Text(file, str(path), meter.encoding if meter else None).whole_bytes()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise RecordError(f"the meter's file {path} cannot be read: {error.strerror or error}") from error


@contextmanager
def _rows(path: Path, meter: Meter) -> Iterator[Rows]:
    """A file that is open, with no row read yet; raises `RecordError`."""
    counters = [_UNITS[unit][2] == "counter" for unit in meter.columns.values()]
    try:
        with open_regular(path) as file:
            yield Rows(str(path), meter, Text(file, str(path), meter.encoding), counters)
    except OSError as error:
        raise RecordError(
            f"the meter's file {path} cannot be read: {error.strerror or error}", hint=_NOT_THERE
        ) from error


def _recording(rows: Rows, name: str) -> Recording:
    meter = rows.meter
    steps = [(after - before) / 1e9 for before, after in pairwise(rows.times)]
    coarse_s = min(steps) if rows.merged else 0.0  # how far apart times are that can be told from each other
    channels = tuple(_channel(rows, name, heading, unit, coarse_s) for heading, unit in meter.columns.items())
    series = tuple(
        SensorSeries(channel, tuple(t), tuple(value * _UNITS[unit][1] for value in values))
        for channel, unit, (t, values) in zip(channels, meter.columns.values(), rows.columns, strict=True)
    )
    bound_s = meter.clock_bound_s + (0.0 if meter.clock == "own" else coarse_s)  # marks show where samples belong
    header = Header(SAMPLER, 1 / median(steps), channels, None, meter.clock, bound_s)
    return Recording(header, series, tuple(rows.faults), rows.times[-1], None, torn=rows.torn)


def _channel(rows: Rows, file: str, heading: str, unit: MeterUnit, coarse_s: float) -> SensorChannel:
    meter = rows.meter
    base, _, kind = _UNITS[unit]
    same = [name for name, other in meter.columns.items() if _UNITS[other][0] == base]
    name = PREFIX + _NAMES[base] + (f".{same.index(heading)}" if len(same) > 1 else "")
    source = f"{file}: {heading} ({unit})"
    if rows.merged:
        source += f", {'last' if kind == 'counter' else 'mean'} of rows with one time ({rows.merged} more)"
    return SensorChannel(name, base, kind, source, max(meter.refresh_s or 0.0, coarse_s) or None)


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
