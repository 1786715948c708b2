"""What everything that samples promises, whatever it reads: the device's own sampler and an external meter's file.

A new source of samples joins by one class in `SAMPLERS`.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import pytest

from meltrepro.build.model import Artifact
from meltrepro.campaign.meter import FileMeter
from meltrepro.campaign.trial import clock_readings, compare_clocks
from meltrepro.manifest.meters import Meter
from meltrepro.manifest.protocol import Limits
from meltrepro.measure.metrics import compute
from meltrepro.measure.sensor_plan import sensor_plan
from meltrepro.measure.validity import judge_trial
from meltrepro.record import trial as record
from meltrepro.record.events import parse_trace
from meltrepro.record.samples import FaultKind, Recording, read_samples
from meltrepro.record.trace import Trace
from meltrepro.store.archive import pack_tree
from meltrepro.targets.base import Source
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.host.target import HostTarget
from tests.fault.rig import GivenEngine
from tests.integration import sandbox_rig
from tests.support.campaigns import Trial, as_lines, events

pytestmark = [pytest.mark.machine, pytest.mark.contract]

HZ = 50.0


class Sampler(Protocol):
    """Something that samples a number which the test decides."""

    value: str
    """What the source shows from now on; empty for a source that goes away."""

    def sampling(self) -> Callable[[], Recording]:
        """Start; returns what stops it and gives the recording, on the device's clock."""
        ...


class OwnSampler:
    """The program of the bundle as a plain process, on a file below /sys of a machine."""

    engine: str | None = None
    """In whose sandbox it runs."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self._folder = folder
        self._machine = folder / "machine"
        self._file = self._machine / "sys/class/meter/power"
        self._file.parent.mkdir(parents=True)
        self._bundle = bundle
        self.value = "5000"

    @property
    def value(self) -> str:
        return self._file.read_text()

    @value.setter
    def value(self, text: str) -> None:
        if text:  # at once, as a kernel shows it
            new = self._file.with_suffix(".new")
            new.write_text(text)
            new.replace(self._file)
        else:
            self._file.unlink()

    def sampling(self) -> Callable[[], Recording]:
        path = self._file.relative_to(self._machine).as_posix()
        source = Source("meter.power", "W", "gauge", path, scale=1e-3)
        entry, engines = HostOptions(sandbox="bare"), None
        root = str(self._machine)
        if self.engine is not None:
            entry, engines = HostOptions(), GivenEngine(sandbox_rig.engine(self.engine, self._folder))
            root = ""  # a sandbox has a root of its own
        owner = str(self._folder / "owner")
        target = HostTarget(entry, disk=self._folder, owner=owner, engines=engines, root=self._machine)
        tar = self._folder / "bundle.tar"
        digest = pack_tree(self._bundle, tar, prefix="bundle")
        bundle = Artifact("b", "bundle", digest, digest, tar, self._bundle, 1, platform.machine())
        running = target.sampling(bundle, sensor_plan([source], HZ, root=root), self._folder)
        running.__enter__()

        def stop() -> Recording:
            running.__exit__(None, None, None)
            return read_samples(self._folder / record.SAMPLES)

        return stop


class ContainedSampler(OwnSampler):
    """The same in a container."""

    engine = "docker"


class BubblewrappedSampler(OwnSampler):
    """The same in bubblewrap."""

    engine = "process"


class FileSampler:
    """A meter whose program writes Unix time and milliwatts."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self._path = folder / "power.csv"
        self._folder = folder
        self.value = "5000"

    def _write(self, stop: threading.Event) -> None:
        with self._path.open("a", buffering=1) as file:
            while not stop.wait(1 / HZ):
                if self.value:
                    file.write(f"{time.time():.6f},{self.value}\n")

    def sampling(self) -> Callable[[], Recording]:
        self._path.write_text("time,power\n")
        ended = threading.Event()
        thread = threading.Thread(target=self._write, args=(ended,))
        thread.start()
        target = HostTarget(HostOptions(sandbox="bare"), disk=self._folder, owner="")
        meter = Meter(file="power.csv", time="time", clock="host", columns={"power": "mW"}, linger_s=0.05)
        began, metering = compare_clocks(target), FileMeter(self._path, meter).begin()
        hello_ns = time.monotonic_ns()

        def stop() -> Recording:
            readings = clock_readings(began, compare_clocks(target))
            metered = metering.end(self._folder / record.METER, trial(hello_ns, time.monotonic_ns()), readings)
            ended.set()
            thread.join()
            assert metered.problem is None and metered.recording is not None
            raw = read_samples(self._folder / record.METER)
            assert [len(series) for series in raw.series] == [len(series) for series in metered.recording.series]
            return metered.recording

        return stop


SAMPLERS = (OwnSampler, ContainedSampler, BubblewrappedSampler, FileSampler)


def trial(begin_ns: int, end_ns: int) -> Trace:
    """A trial between two moments."""
    trace = parse_trace(as_lines(events(Trial())))
    return replace(trace, hello=replace(trace.hello, t_ns=begin_ns), done_ns=end_ns)


@pytest.fixture(params=SAMPLERS, ids=lambda sampler: sampler.__name__)
def sampler(request: pytest.FixtureRequest, runner_bundles: Mapping[str, Path], tmp_path: Path) -> Sampler:
    family = "/x86_64" if platform.machine() == "x86_64" else "/armv8"
    bundle = next(folder for node, folder in runner_bundles.items() if family in node)
    made: Sampler = request.param(tmp_path, bundle)
    return made


@contextmanager
def sampled(sampler: Sampler) -> Iterator[Callable[[], Recording]]:
    stop = sampler.sampling()
    stopped = False

    def once() -> Recording:
        nonlocal stopped
        stopped = True
        return stop()

    try:
        yield once
    finally:
        if not stopped:
            with suppress(Exception):
                stop()


def vary(sampler: Sampler, seconds: float) -> None:
    """Let the source move for some time, as a power does."""
    until, n = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        sampler.value = str(5000 + n % 9)
        n += 1
        time.sleep(0.02)


def test_units_rate_and_times(sampler: Sampler) -> None:
    with sampled(sampler) as stop:
        began_ns = time.monotonic_ns()
        vary(sampler, 1.2)
        ended_ns = time.monotonic_ns()
        recording = stop()
    (series,) = recording.series
    assert (series.channel.name, series.channel.unit, series.channel.kind) == ("meter.power", "W", "gauge")
    assert "power" in series.channel.source, "where it comes from is told"
    assert all(5 <= value < 5.01 for value in series.values), "in the unit of the channel"
    assert all(before < after for before, after in pairwise(series.t_ns))
    inside = [t for t in series.t_ns if began_ns <= t <= ended_ns]
    assert len(inside) >= 0.5 * HZ * 1.2, "a busy machine may make it miss some"
    assert began_ns - 10**9 < series.t_ns[0] and series.t_ns[-1] < ended_ns + 2 * 10**9, "on the device's clock"
    assert (len(series) - 1) / series.seconds[-1] == pytest.approx(HZ, rel=0.5)
    assert recording.header.rate_hz == pytest.approx(HZ, rel=0.3)
    assert recording.end_ns is not None
    assert recording.faults == ()


def test_text_is_a_fault_and_the_rest_stays(sampler: Sampler) -> None:
    with sampled(sampler) as stop:
        vary(sampler, 0.4)
        sampler.value = "OVERLOAD"
        time.sleep(0.2)
        vary(sampler, 0.4)
        recording = stop()
    assert [fault.kind for fault in recording.faults] == [FaultKind.not_a_number]
    assert "OVERLOAD" in recording.faults[0].detail
    (series,) = recording.series
    before = [t for t in series.t_ns if t < recording.faults[0].t_ns]
    assert before and len(before) < len(series)
    trace = trial(series.t_ns[0], series.t_ns[-1])
    verdict = judge_trial(trace, compute(trace), recording, Limits())
    assert "faulty-sensor: meter.power not_a_number" in str(verdict)


def test_a_source_that_goes_away_and_comes_back_leaves_a_gap(sampler: Sampler) -> None:
    with sampled(sampler) as stop:
        vary(sampler, 0.4)
        sampler.value = ""
        time.sleep(0.5)
        vary(sampler, 0.4)
        recording = stop()
    (series,) = recording.series
    longest_ns = max(after - before for before, after in pairwise(series.t_ns))
    assert max(0.3e9, 15e9 / HZ) < longest_ns < 5e9
    assert {fault.kind for fault in recording.faults} <= {FaultKind.vanished}
    trace = trial(series.t_ns[0], series.t_ns[-1])
    verdict = judge_trial(trace, compute(trace), recording, Limits(sample_share=0.9))
    assert not verdict.valid, "what is missing is not made up"


def test_a_value_that_never_moves_is_no_measurement(sampler: Sampler) -> None:
    with sampled(sampler) as stop:
        sampler.value = "5000"
        time.sleep(1.6)  # longer than what may be chance
        recording = stop()
    (series,) = recording.series
    trace = trial(series.t_ns[0], series.t_ns[-1])
    verdict = judge_trial(trace, compute(trace), recording, Limits())
    assert "faulty-sensor: meter.power stuck: the same value for" in str(verdict)
