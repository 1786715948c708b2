"""Recordings of samplers: what is written is read, a torn end is tolerated, anything else is refused with its line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import RecordError
from meltrepro.record.samples import FaultKind, Header, SampleWriter, SensorFault, parse_samples, read_samples
from meltrepro.record.series import SensorChannel, SensorSeries
from meltrepro.record.trace import Span

POWER = SensorChannel("battery.power", "W", "gauge", "/sys/class/power_supply/BAT0/power_now", 0.25)
ENERGY = SensorChannel(
    "rapl.package-0", "uJ", "counter", "/sys/class/powercap/intel-rapl:0/energy_uj", 0.001, wraps_at=1000
)
HEADER = Header("linux", 1.0, (POWER, ENERGY), 0.002)
SECOND = 1_000_000_000


def _written(path: Path) -> Path:
    with SampleWriter(path, HEADER) as writer:
        writer.samples([(10, 0, 1.5), (11, 1, 998)])
        writer.fault(SensorFault(15, 0, FaultKind.vanished, "no such file"))
        writer.samples([(20, 1, 3)])
        writer.end(25, 0.125)
    return path


def _lines(*more: object, header: object = None) -> list[bytes]:
    first = (
        header
        if header is not None
        else {
            "v": 1,
            "sampler": "s",
            "clock": "monotonic",
            "rate_hz": 1,
            "overhead": None,
            "channels": [
                {"name": "p", "unit": "W", "kind": "gauge", "source": "x", "refresh_s": None, "wraps_at": None}
            ],
        }
    )
    return [json.dumps(line).encode() + b"\n" for line in (first, *more)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    recording = read_samples(_written(tmp_path / "samples.jsonl"))
    assert recording.header == HEADER
    assert recording.series == (SensorSeries(POWER, (10,), (1.5,)), SensorSeries(ENERGY, (11, 20), (998.0, 3.0)))
    assert recording.faults == (SensorFault(15, 0, FaultKind.vanished, "no such file"),)
    assert (recording.end_ns, recording.cpu_s, recording.torn) == (25, 0.125, False)
    assert recording.named("rapl.package-0") == recording.series[1]
    assert recording.named("other") is None


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    path = _written(tmp_path / "samples.jsonl")
    with pytest.raises(RecordError, match="cannot be created"):
        SampleWriter(path, HEADER)


@pytest.mark.parametrize("t_ns", [-1, 2**63])
def test_a_time_that_could_not_be_read_again_is_not_written(tmp_path: Path, t_ns: int) -> None:
    path = tmp_path / "samples.jsonl"
    with SampleWriter(path, HEADER) as writer, pytest.raises(RecordError, match="expected a time from 0 to"):
        writer.samples([(5, 0, 1.0), (t_ns, 0, 1.0)])
    assert read_samples(path).header == HEADER


def test_a_cut_at_any_byte_leaves_all_samples_before_it(tmp_path: Path) -> None:
    path = _written(tmp_path / "samples.jsonl")
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    for length in range(header, len(whole)):
        path.write_bytes(whole[:length])
        recording = read_samples(path)
        assert recording.torn == (whole[length - 1 : length] != b"\n")
        found = sum(map(len, recording.series)) + len(recording.faults)
        assert found + 1 == whole[:length].count(b"\n")
        assert recording.end_ns is None
    for length in (0, 1, header - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordError, match="there is no header"):
            read_samples(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([1, 0], "expected \\[t_ns"),
        ([1.5, 0, 1], "whole nanoseconds"),
        ([-1, 0, 1], "whole nanoseconds"),
        ([True, 0, 1], "whole nanoseconds"),
        ([6, 1, 1], "index below 1"),
        ([6, -1, 1], "index below 1"),
        ([6, 0, "3.9"], "finite number"),
        ([6, 0, None], "finite number"),
        ([6, 0, True], "finite number"),
        ([6, 0, float("nan")], "finite number"),
        ([6, 0, 10**400], "finite number"),
        ([5, 0, 1], "does not increase"),
        ({"fault": "bored", "channel": 0, "t": 6, "detail": ""}, "unknown kind"),
        ({"fault": "stuck", "channel": 9, "t": 6, "detail": ""}, "index below 1"),
        ({"end": 6, "cpu_s": -1}, "cpu_s"),
        ({"what": 1}, "expected a sample"),
        ("text", "expected a sample"),
    ],
)
def test_a_damaged_line_is_named(line: object, message: str) -> None:
    with pytest.raises(RecordError, match=f"^samples:3: .*{message}"):
        parse_samples(_lines([5, 0, 1], line))


@pytest.mark.parametrize(
    "header",
    [
        {"v": 2},
        [],
        {"v": 1, "channels": [3]},
        {"v": 1, "sampler": "s", "clock": "m", "rate_hz": 0, "channels": []},
        {"v": 1, "sampler": "s", "clock": "m", "rate_hz": 1, "overhead": "much", "channels": []},
        {"v": 1, "sampler": "s", "clock": "m", "rate_hz": 1, "channels": [{"name": "a", "unit": "W", "kind": "x"}]},
    ],
)
def test_a_damaged_header_is_refused(header: object) -> None:
    with pytest.raises(RecordError, match="^samples:1: "):
        parse_samples(_lines(header=header))


def test_nothing_may_follow_the_end() -> None:
    with pytest.raises(RecordError, match="^samples:3: a line after the end"):
        parse_samples(_lines({"end": 9, "cpu_s": 0}, [10, 0, 1]))


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"") + b"\n"), max_size=5))
def test_no_text_gets_through_unnoticed(lines: list[bytes]) -> None:
    try:
        parse_samples(lines)
    except RecordError as error:
        assert error.message.startswith("samples:")
    else:
        pytest.fail("accepted")


def test_a_write_of_which_the_kernel_takes_a_part_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux does beyond 2 GiB."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
    recording = read_samples(_written(tmp_path / "samples.jsonl"))
    assert (recording.header, recording.end_ns) == (HEADER, 25)


@pytest.mark.slow
def test_many_samples_are_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write, lengths = tmp_path / "samples.jsonl", os.write, []

    def noted(file: int, data: memoryview) -> int:
        lengths.append(len(data))
        return write(file, data)

    monkeypatch.setattr(os, "write", noted)
    with SampleWriter(path, HEADER) as writer:
        writer.samples((t, 0, 1.5) for t in range(200_000))
    assert len(read_samples(path).series[0]) == 200_000
    assert max(lengths) < 2 << 20, "memory does not grow with the recording"


def test_full_disk_is_one_typed_error_and_leaves_a_readable_file(tmp_path: Path) -> None:
    """A real write that the kernel cuts short: the process may not make files larger than 4 KiB."""
    path = tmp_path / "samples.jsonl"
    code = """
import resource, signal, sys
from pathlib import Path
from tests.unit.test_samples import HEADER
from meltrepro.errors import RecordError
from meltrepro.record.samples import SampleWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
writer = SampleWriter(Path(sys.argv[1]), HEADER)
try:
    for i in range(1000):
        writer.samples([(i, 0, 1.0), (i, 1, 2.0)])
except RecordError as error:
    print(error.message)
try:
    writer.samples([(2000, 0, 1.0)])
except RecordError as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    assert "cannot be written" in first
    assert "closed" in second
    assert path.stat().st_size <= 4096
    recording = read_samples(path)
    assert len(recording.series[0]) > 100
    assert recording.end_ns is None


def test_unreadable_files_are_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        read_samples(tmp_path / "none")
    with pytest.raises(RecordError, match="cannot be read"):
        read_samples(tmp_path)


# -- series -------------------------------------------------------------------------------------------------------


def test_stuck_stretches() -> None:
    series = SensorSeries(POWER, tuple(i * SECOND for i in range(8)), (1, 2, 2, 2, 2, 3, 3, 3))
    assert series.stuck(2.5) == (Span(SECOND, 4 * SECOND),)
    assert series.stuck(1.5) == (Span(SECOND, 4 * SECOND), Span(5 * SECOND, 7 * SECOND))
    assert series.stuck(3.0) == ()


@pytest.mark.parametrize(
    ("times", "values"), [((0, 0), (1.0, 2.0)), ((1, 0), (1.0, 2.0)), ((0,), (1.0, 2.0)), ((0,), (float("nan"),))]
)
def test_what_is_no_series_is_refused(times: tuple[int, ...], values: tuple[float, ...]) -> None:
    with pytest.raises(RecordError):
        SensorSeries(POWER, times, values)


@given(st.lists(st.integers(0, 999), min_size=1, max_size=50), st.integers(0, 999))
def test_a_counter_is_unwrapped_exactly(steps: list[int], start: int) -> None:
    truth = [start]
    for step in steps:
        truth.append(truth[-1] + step)
    times = tuple(i * SECOND for i in range(len(truth)))
    series = SensorSeries(ENERGY, times, tuple(float(value % 1000) for value in truth))
    assert series.unwrapped().values == tuple(map(float, truth))


def test_counters_that_cannot_be_believed() -> None:
    plain = SensorChannel("c", "uJ", "counter", "x", None)
    with pytest.raises(RecordError, match="not said to wrap"):
        SensorSeries(plain, (0, 1), (5, 4)).unwrapped()
    with pytest.raises(RecordError, match="outside 0 to 1000"):
        SensorSeries(ENERGY, (0, 1), (5, 1000)).unwrapped()
    with pytest.raises(RecordError, match="reset"):
        SensorSeries(ENERGY, (0, SECOND), (500, 400)).unwrapped(fastest=600)
    with pytest.raises(RecordError, match="may have wrapped"):
        SensorSeries(ENERGY, (0, 3 * SECOND), (500, 501)).unwrapped(fastest=600)
    with pytest.raises(RecordError, match="gauge"):
        SensorSeries(POWER, (0, 1), (5, 4)).unwrapped()
    assert SensorSeries(ENERGY, (0, SECOND), (900, 100)).unwrapped(fastest=600).values == (900, 1100)
