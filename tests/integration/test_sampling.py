"""The real sampler of the bundles: at its rate, on the machine's own files and on others, whatever happens to them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from meltrepro.measure.sensor_plan import sensor_plan
from meltrepro.record.samples import FaultKind, Recording, read_samples
from meltrepro.targets.base import SAMPLER, Source
from meltrepro.targets.remote.sensors import linux_sources
from tests.fault.test_store_faults import mounted, root_only
from tests.support.machines import machine

pytestmark = pytest.mark.machine


@dataclass
class Sampling:
    """A sampler that runs."""

    process: subprocess.Popen[bytes]
    file: Path

    def stop(self, number: int = signal.SIGTERM) -> Recording:
        """Stop it; returns what it recorded."""
        self.process.send_signal(number)
        self.process.wait(timeout=10)
        return read_samples(self.file)


Start = Callable[..., Sampling]


@pytest.fixture(scope="module")
def program(runner_bundles: Mapping[str, Path]) -> Path:
    """The sampler for this machine; those of all bundles for it are built from the same source."""
    family = "/x86_64" if platform.machine() == "x86_64" else "/armv8"
    return next(folder / SAMPLER for node, folder in runner_bundles.items() if family in node)


@pytest.fixture
def start(program: Path, tmp_path: Path) -> Iterator[Start]:
    """Start it on some sources below a root."""
    running: list[Sampling] = []

    def start(sources: list[Source], rate_hz: float, root: Path | str = "", file: Path | None = None) -> Sampling:
        plan = tmp_path / f"plan{len(running)}.json"
        plan.write_bytes(sensor_plan(sources, rate_hz, root=str(root)))
        file = file or tmp_path / f"samples{len(running)}.jsonl"
        process = subprocess.Popen([program, plan, file], stderr=subprocess.PIPE)
        running.append(Sampling(process, file))
        return running[-1]

    yield start
    for sampling in running:
        sampling.process.kill()
        sampling.process.communicate()


def gauge(path: str, **changes: object) -> Source:
    return Source(path, "1", "gauge", path, **changes)  # type: ignore[arg-type]


def test_this_machine_at_its_rate(start: Start) -> None:
    sampling = start(list(linux_sources(Path("/"))), 20.0)
    time.sleep(2)
    asked_ns = time.monotonic_ns()
    recording = sampling.stop()
    assert sampling.process.returncode == 0
    assert recording.end_ns is not None
    assert recording.end_ns - asked_ns < 1e9 / 20 + 1e9
    assert recording.cpu_s is not None and recording.cpu_s < 0.5
    memory = recording.named("memory.available")
    assert memory is not None
    assert len(memory) >= 20  # a busy machine may make it miss some, never all
    periods = [round((after - before) / 5e7) for before, after in pairwise(memory.t_ns)]
    assert min(periods) >= 1, "what was missed is not made up for"
    assert 1e6 < memory.values[0] < 1e14
    idle = recording.named("cpu.idle")
    assert idle is not None
    assert list(idle.values) == sorted(idle.values)


def test_a_machine_with_every_kind_of_source(start: Start, tmp_path: Path) -> None:
    root = machine(tmp_path / "root")
    sampling = start(list(linux_sources(root)), 20.0, root)
    time.sleep(0.7)
    recording = sampling.stop()
    values = {series.channel.name: series.values[0] for series in recording.series if series.t_ns}
    assert values["temperature.thermal_zone0:cpu-thermal"] == pytest.approx(45.5)
    assert values["frequency.cpu1"] == pytest.approx(2.4e9)
    assert values["energy.package-0"] == pytest.approx(262143.0)
    assert values["battery.voltage"] == pytest.approx(11.4)
    assert values["battery.current"] == pytest.approx(-1.2)
    assert values["memory.available"] == 4_000_000 * 1024
    assert values["cpu.idle"] == pytest.approx(40)
    assert values["pressure.cpu"] == pytest.approx(2.5)
    assert recording.faults == ()
    slow, fast = recording.named("battery.voltage"), recording.named("memory.available")
    assert slow is not None and fast is not None
    assert len(slow) == 1 < len(fast), "a source that has a value a second is asked once a second"


def test_a_process_that_comes_and_goes(start: Start, tmp_path: Path) -> None:
    """Its memory is sampled while it lives; that there is none is no fault."""
    program = tmp_path / "melt-runner"
    shutil.copy("/bin/sleep", program)
    sampling = start([s for s in linux_sources(Path("/")) if s.name.startswith("process.")], 50.0)
    time.sleep(0.6)
    with subprocess.Popen([program, "1000"]) as process:
        time.sleep(1.2)
        process.kill()
    time.sleep(0.2)
    recording = sampling.stop()
    anonymous = recording.named("process.rss_anon")
    assert anonymous is not None
    assert len(anonymous) >= 5
    assert 0 < max(anonymous.values) < 1e8
    assert recording.faults == ()


def test_one_that_has_ended_and_was_not_asked_for_is_passed_over(start: Start, tmp_path: Path) -> None:
    """The runner of the trial before may be a zombie for a moment; it has the name, and no memory to read."""
    program = tmp_path / "melt-runner"
    shutil.copy("/bin/sleep", program)
    memory = [s for s in linux_sources(Path("/")) if s.name.startswith("process.")]
    with subprocess.Popen([program, "0"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        with subprocess.Popen([program, "1000"]) as process:
            assert ended.pid < process.pid, "so that the ended one is found first"
            sampling = start(memory, 50.0)
            time.sleep(1)
            recording = sampling.stop()
            process.kill()
    assert recording.faults == ()
    anonymous = recording.named("process.rss_anon")
    assert anonymous is not None
    assert len(anonymous) >= 5
    assert min(anonymous.values) > 0


def test_files_that_vanish_and_turn_into_text(start: Start, tmp_path: Path) -> None:
    root = machine(tmp_path, {"a": "1\n", "b": "2\n", "c": "3\n"})
    sampling = start([gauge("a"), gauge("b"), gauge("c"), gauge("never")], 50.0, root)
    time.sleep(0.3)
    (root / "a").unlink()
    (root / "new").write_text("error: busy\n")
    (root / "new").rename(root / "b")  # at once: nobody sees it empty
    time.sleep(0.3)
    (root / "a").write_text("5\n")
    time.sleep(0.3)
    recording = sampling.stop()
    faults = [(recording.header.channels[fault.channel].name, fault.kind) for fault in recording.faults]
    assert sorted(faults) == [
        ("a", FaultKind.vanished),
        ("b", FaultKind.not_a_number),
        ("never", FaultKind.vanished),
    ]
    detail = {recording.header.channels[fault.channel].name: fault.detail for fault in recording.faults}
    assert detail["b"] == "error: busy\n"
    a, c = recording.named("a"), recording.named("c")
    assert a is not None and c is not None
    assert (a.values[0], a.values[-1]) == (1, 5), "it is taken up again"
    assert len(c) > len(a)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_sampler_that_dies_or_stands_still_leaves_what_it_had(start: Start, number: int) -> None:
    sampling = start([gauge("proc/uptime")], 50.0)
    time.sleep(0.5)
    sampling.process.send_signal(number)
    time.sleep(0.3)
    if number == signal.SIGSTOP:  # as when a device sleeps: there is a gap, and nothing is made up
        sampling.process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        recording = sampling.stop()
        (uptime,) = recording.series
        assert max(after - before for before, after in pairwise(uptime.t_ns)) > 10 / 50 * 1e9
        assert recording.end_ns is not None
    else:
        recording = sampling.stop()
        assert recording.end_ns is None
    assert recording.series[0].t_ns


def test_its_parent_dies(program: Path, tmp_path: Path) -> None:
    plan, file = tmp_path / "plan.json", tmp_path / "samples.jsonl"
    plan.write_bytes(sensor_plan([gauge("proc/uptime")], 50.0))
    shell = subprocess.Popen(["sh", "-c", f"{program} {plan} {file} & echo $!; wait"], stdout=subprocess.PIPE)
    assert shell.stdout is not None
    pid = int(shell.stdout.readline())
    time.sleep(0.3)
    shell.kill()
    shell.communicate()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/cmdline").read_bytes() == b"":  # ended, and waits for its new parent
            break
        time.sleep(0.05)
    assert read_samples(file).end_ns is not None


@root_only
def test_a_disk_that_is_full(start: Start, tmp_path: Path) -> None:
    with mounted(tmp_path / "tiny", "-t", "tmpfs", "-o", "size=64k", "tmpfs") as disk:
        sampling = start([gauge("proc/uptime")], 100.0, file=disk / "samples.jsonl")
        time.sleep(0.3)
        (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        _, said = sampling.process.communicate(timeout=60)
        assert sampling.process.returncode == 6
        assert b"No space left on device" in said
        recording = read_samples(sampling.file)
        assert recording.end_ns is None
        assert len(recording.series[0]) > 10


@pytest.mark.parametrize("plan", ["", "{", '{"v": 1}', '{"rate_hz": "x"}'])
def test_a_plan_that_is_none(program: Path, tmp_path: Path, plan: str) -> None:
    (tmp_path / "plan.json").write_text(plan)
    done = subprocess.run(
        [program, tmp_path / "plan.json", tmp_path / "s.jsonl"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "plan.json" in done.stderr


def test_an_existing_file_is_not_overwritten(program: Path, tmp_path: Path) -> None:
    plan, file = tmp_path / "plan.json", tmp_path / "samples.jsonl"
    plan.write_bytes(sensor_plan([gauge("proc/uptime")], 1.0))
    file.write_text("mine")
    done = subprocess.run([program, plan, file], capture_output=True, text=True, check=False)
    assert (done.returncode, file.read_text()) == (6, "mine")
    assert json.loads(plan.read_bytes())["rate_hz"] == 1.0
