"""What samplers record, and the file that holds it: `samples.jsonl`.

The file is append-only, so that a killed sampler leaves it readable. Line 1 is the header, an object:

    {"v": 1, "sampler": "linux", "clock": "monotonic", "rate_hz": 1.0, "overhead": 0.002,
     "channels": [{"name": "battery.power", "unit": "W", "kind": "gauge", "source": "/sys/...", "refresh_s": 0.25,
                   "wraps_at": null}]}

Each further line is a sample `[t_ns, channel index, value]`, or one of two objects: `{"fault": "vanished", "channel": 0,
"t": t_ns, "detail": "..."}` where a channel stops being trustworthy, and `{"end": t_ns, "cpu_s": 0.8}` as the last line
of a sampler that was stopped in order. A last line without its line end was cut off by a kill and is left out.

Times are nanoseconds on the clock that the header names, by default the device's CLOCK_MONOTONIC. Standard library
only: the process that samples on the device's side imports this module.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, get_args

from meltrepro import untrusted
from meltrepro.errors import RecordError
from meltrepro.record.series import Kind, SensorChannel, SensorSeries
from meltrepro.words import shorten

FORMAT = 1
_LONGEST_LINE = 1 << 20
MOST_NS = 2**63 - 1
"""The latest time that a recording can hold."""
_MOST, _LEAST = 1e24, 1e-24
"""Between these lies every quantity that is measured; what is smaller is nothing. Their squares and quotients are numbers."""
_BLOCK = 1 << 16
"""Samples that are written at once."""


def measurable(number: float) -> float | None:
    """A number as a recording holds it; `None` for one that is too large, or none at all."""
    if not abs(number) <= _MOST:
        return None
    return float(number) if abs(number) >= _LEAST else 0.0


class FaultKind(StrEnum):
    """Why a channel cannot be trusted from some moment on."""

    vanished = "vanished"
    denied = "denied"
    not_a_number = "not_a_number"
    stuck = "stuck"
    implausible_unit = "implausible_unit"


@dataclass(frozen=True)
class SensorFault:
    """A channel that stopped being trustworthy."""

    t_ns: int
    channel: int
    """Index in the header."""
    kind: FaultKind
    detail: str


@dataclass(frozen=True)
class Header:
    """What is known before the first sample."""

    sampler: str
    rate_hz: float
    """Nominal sweeps per second."""
    channels: tuple[SensorChannel, ...]
    overhead: float | None
    """CPU time of the sampler per wall time (share of one core), from sweeps before the first; `None`: not measured."""
    clock: str = "monotonic"
    """Whose time the samples have: `monotonic` is the device's; of meters see docs/sampling.md."""
    clock_bound_s: float = 0.0
    """How far that clock may be from the one it is named after."""


@dataclass(frozen=True)
class Recording:
    """All that a sampler recorded."""

    header: Header
    series: tuple[SensorSeries, ...]
    """One a channel, in the header's order; without samples where there were none."""
    faults: tuple[SensorFault, ...]
    end_ns: int | None
    """When the sampler was stopped; `None` where it died."""
    cpu_s: float | None
    """CPU time that the sampler took, as it said at its end."""
    torn: bool
    """Whether the last line was cut off."""

    def named(self, name: str) -> SensorSeries | None:
        """The series of a channel, if there is one."""
        return next((series for series in self.series if series.channel.name == name), None)


class SampleWriter:
    """Appends whole lines to a new `samples.jsonl`; raises `RecordError` when the disk takes no more."""

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RecordError(f"{path} cannot be created: {error.strerror or error}") from error
        self._line({"v": FORMAT, **asdict(header)})

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def samples(self, samples: Iterable[tuple[int, int, float]]) -> None:
        """Append samples: time, index of the channel, value; raises `RecordError` for a time that cannot be read again."""
        lines = map(self._sample, samples)
        while block := "".join(islice(lines, _BLOCK)):
            self._write(block)

    def fault(self, fault: SensorFault) -> None:
        self._line({"fault": fault.kind, "channel": fault.channel, "t": fault.t_ns, "detail": fault.detail})

    def end(self, t_ns: int, cpu_s: float) -> None:
        """Write the last line."""
        self._line({"end": t_ns, "cpu_s": cpu_s})

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _sample(self, sample: tuple[int, int, float]) -> str:
        t_ns, channel, value = sample
        if not 0 <= t_ns <= MOST_NS:
            raise RecordError(f"{self._path}: expected a time from 0 to {MOST_NS} ns, got {t_ns}")
        return f"[{t_ns},{channel},{value!r}]\n"

    def _line(self, value: object) -> None:
        self._write(json.dumps(value, separators=(",", ":")) + "\n")

    def _write(self, text: str) -> None:
        if self._file < 0:
            raise RecordError(f"{self._path} is closed")
        left = memoryview(text.encode())
        try:
            while left:  # the kernel may take a part only
                left = left[os.write(self._file, left) :]
        except OSError as error:
            self.close()  # nothing may follow half a line
            raise RecordError(
                f"{self._path} cannot be written: {error.strerror or error}", hint="free space on the device"
            ) from error


def read_samples(path: Path) -> Recording:
    """The recording in a file; raises `RecordError` that names file and line."""
    try:
        with untrusted.opened(path) as file:
            return parse_samples(iter(lambda: file.readline(_LONGEST_LINE), b""), str(path))
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error


def parse_samples(lines: Iterable[bytes], name: str = "samples") -> Recording:
    """The recording in lines that keep their line ends; `name` is for messages. Raises `RecordError`."""
    parser = _Parser(name)
    for line in lines:
        parser.feed(line)
    return parser.finish()


class _Parser:
    """What has been read so far."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._torn = False
        self._header: Header | None = None
        self._samples: list[tuple[list[int], list[float]]] = []
        self._faults: list[SensorFault] = []
        self._end: tuple[int, float] | None = None

    def feed(self, line: bytes) -> None:
        """Take the next line."""
        self._number += 1
        if self._torn or self._end is not None:
            self._fail("a line after the end")
        if not line.endswith(b"\n"):
            if len(line) >= _LONGEST_LINE:
                self._fail("the line is too long")
            self._torn = True
            return
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._fail(f"no JSON: {error}")
        if self._header is None:
            self._header = self._read_header(value)
            self._samples = [([], []) for _ in self._header.channels]
        elif isinstance(value, list):
            self._sample(value)
        elif isinstance(value, dict) and "fault" in value:
            self._faults.append(self._read_fault(value))
        elif isinstance(value, dict) and "end" in value:
            self._end = self._time(value["end"]), self._number_from(value.get("cpu_s"), "cpu_s")
        else:
            self._fail("expected a sample, a fault or the end")

    def finish(self) -> Recording:
        """The recording, once all lines are in."""
        if self._header is None:
            self._fail("there is no header")
        return Recording(
            header=self._header,
            series=tuple(
                SensorSeries(channel, tuple(t_ns), tuple(values))
                for channel, (t_ns, values) in zip(self._header.channels, self._samples, strict=True)
            ),
            faults=tuple(self._faults),
            end_ns=self._end[0] if self._end else None,
            cpu_s=self._end[1] if self._end else None,
            torn=self._torn,
        )

    def _sample(self, value: list[Any]) -> None:
        if len(value) != 3:
            self._fail("expected [t_ns, channel index, value]")
        t_ns = self._time(value[0])
        times, values = self._samples[self._channel(value[1])]
        if times and t_ns <= times[-1]:
            self._fail(f"time does not increase, from {times[-1]} to {t_ns}")
        if type(value[2]) not in (int, float) or (number := measurable(value[2])) is None:
            self._fail(f"value: expected a finite number of a measurable size, got {shorten(ascii(value[2]))}")
        times.append(t_ns)
        values.append(number)

    def _read_fault(self, value: dict[str, Any]) -> SensorFault:
        try:
            kind = FaultKind(value["fault"])
        except ValueError:
            self._fail(f"fault: unknown kind {shorten(ascii(value['fault']))}")
        channel, t_ns = self._channel(value.get("channel")), self._time(value.get("t"))
        return SensorFault(t_ns, channel, kind, self._text(value.get("detail"), "detail"))

    def _read_header(self, value: Any) -> Header:
        if not isinstance(value, dict) or value.get("v") != FORMAT or not isinstance(value.get("channels"), list):
            self._fail(f"expected the header of a recording, version {FORMAT}")
        overhead = value.get("overhead")
        channels = tuple(map(self._read_channel, value["channels"]))
        if len({channel.name for channel in channels}) < len(channels):
            self._fail("two channels have the same name")
        rate_hz = self._number_from(value.get("rate_hz"), "rate_hz")
        if rate_hz < _LEAST:
            self._fail("rate_hz: expected more than 0")
        return Header(
            sampler=self._text(value.get("sampler"), "sampler"),
            rate_hz=rate_hz,
            channels=channels,
            overhead=None if overhead is None else self._number_from(overhead, "overhead"),
            clock=self._text(value.get("clock"), "clock"),
            clock_bound_s=self._number_from(value.get("clock_bound_s", 0.0), "clock_bound_s"),
        )

    def _read_channel(self, value: Any) -> SensorChannel:
        if not isinstance(value, dict):
            self._fail(f"channels: expected an object, got {shorten(ascii(value))}")
        if value.get("kind") not in get_args(Kind):
            self._fail(f"kind: expected one of {', '.join(get_args(Kind))}, got {shorten(ascii(value.get('kind')))}")
        refresh_s, wraps_at = value.get("refresh_s"), value.get("wraps_at")
        return SensorChannel(
            name=self._text(value.get("name"), "name"),
            unit=self._text(value.get("unit"), "unit"),
            kind=value["kind"],
            source=self._text(value.get("source"), "source"),
            refresh_s=None if refresh_s is None else self._number_from(refresh_s, "refresh_s"),
            wraps_at=None if wraps_at is None else self._number_from(wraps_at, "wraps_at"),
        )

    def _time(self, value: object) -> int:
        if type(value) is not int or not 0 <= value <= MOST_NS:
            self._fail(f"time: expected whole nanoseconds from 0, got {shorten(ascii(value))}")
        return value

    def _channel(self, value: object) -> int:
        if type(value) is not int or not 0 <= value < len(self._samples):
            self._fail(f"channel: expected an index below {len(self._samples)}, got {shorten(ascii(value))}")
        return value

    def _number_from(self, value: object, key: str) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MOST:
            self._fail(f"{key}: expected a number from 0, got {shorten(ascii(value))}")
        return float(value)

    def _text(self, value: object, key: str) -> str:
        if not isinstance(value, str):
            self._fail(f"{key}: expected a text, got {shorten(ascii(value))}")
        return value

    def _fail(self, message: str) -> NoReturn:
        raise RecordError(f"{self._name}:{self._number}: {message}", hint="the recording is damaged")
