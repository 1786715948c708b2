"""The real runner beside a meter whose clock nobody knows: its sync marks are found, and energy lands in its phases.

There is no power to measure here, so the meter is a virtual one. It sees what a real one would see, the runner at work, as
the CPU time of its threads, and writes it as a power with times of a clock that is far off and drifts.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from meltrepro.measure.records import read_campaign
from meltrepro.record.samples import read_samples
from tests.integration.conftest import ROOT, meltrepro

pytestmark = pytest.mark.machine

IDLE_W, CORE_W = 2.0, 5.0
OFFSET_S, DRIFT = 98765.4, 80e-6
PERIOD_S = 0.005
DISTURBED = ("the sync mark is not in the trace", "the clocks may disagree by")
"""What a trial says whose pulses were hidden or blurred by other work on this machine."""


@dataclass
class Meter:
    """A meter and the truth about its clock."""

    path: Path
    truth: dict[int, int] = field(default_factory=dict)
    """Nanoseconds on its own clock -> nanoseconds of CLOCK_MONOTONIC."""


class _Runners:
    """CPU time of runners; new ones are looked for ten times a second. What a thread has used stays when it has ended."""

    def __init__(self) -> None:
        self._runners: set[Path] = set()
        self._threads: dict[Path, int] = {}
        self._looked = 0.0

    def cpu_ns(self) -> int:
        if time.monotonic() - self._looked > 0.1:
            self._looked = time.monotonic()
            for comm in Path("/proc").glob("[0-9]*/comm"):
                with suppress(OSError):
                    if comm.read_text() == "melt-runner\n":
                        self._runners.add(comm.parent)
        for runner in self._runners:
            with suppress(OSError):
                for thread in (runner / "task").iterdir():
                    self._threads[thread] = int((thread / "schedstat").read_text().split()[0])
        return sum(self._threads.values())


@contextmanager
def running(path: Path) -> Iterator[Meter]:
    meter, stop, runners = Meter(path), threading.Event(), _Runners()
    path.write_text("Time (s),Power (mW)\n")
    begin_ns = time.monotonic_ns()

    def write() -> None:
        before_ns, before_cpu = time.monotonic_ns(), runners.cpu_ns()
        with path.open("a", buffering=1) as file:
            while not stop.wait(PERIOD_S):
                cpu, now_ns = runners.cpu_ns(), time.monotonic_ns()
                watts = IDLE_W + CORE_W * max(0, cpu - before_cpu) / (now_ns - before_ns) + 0.001 * (now_ns % 7)
                middle_ns = (before_ns + now_ns) // 2
                own_us = round(OFFSET_S * 1e6 + (middle_ns - begin_ns) * (1 + DRIFT) / 1e3)
                file.write(f"{own_us / 1e6:.6f},{1000 * watts:.1f}\n")
                meter.truth[own_us * 1000] = middle_ns
                before_ns, before_cpu = now_ns, cpu

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield meter
    finally:
        stop.set()
        thread.join()


def test_a_meter_on_a_clock_of_its_own(engine: None, tmp_path: Path) -> None:
    entry = f'{{file: {tmp_path}/power.csv, time: "Time (s)", columns: {{"Power (mW)": mW}}}}'
    with running(tmp_path / "power.csv") as meter:
        for _ in range(3):  # other work on this machine can take the CPU from the pulses, and so hide them
            done = meltrepro(
                *("run", ROOT / "specs" / "quickstart.yaml", "--new", "--no-track", "--only", "*/q4_0/*"),
                *("--set", f"targets.host.meter={entry}", "--set", "targets.host.threads=1"),
                *("--set", "protocol.repetitions=1", "--set", "protocol.warmups=0", "--set", "protocol.idle_s=3"),
                *("--set", "measure.energy=required", "--set", "workloads.chat.max_tokens=200"),
                *("--set", "workloads.chat.ignore_eos=true"),  # long phases, beside which the edges are short
                home=tmp_path / "home",
            )
            if not any(each in done.stderr for each in DISTURBED):
                break
            shutil.rmtree(tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "home" / "records").iterdir()
    (cell,) = read_campaign(folder).cells
    (trial,) = cell.repetitions
    trace, metered = trial.trace(), trial.metered()
    assert len(trace.pulses) == 6
    assert metered is not None and metered.recording is not None and metered.problem is None

    (power,) = metered.recording.series
    first, last = trace.turns[0].begin_ns, trace.turns[-1].end_ns
    errors = [
        abs(t - meter.truth[there]) for there, t in _pairs(trial.file("meter.jsonl"), power.t_ns) if first < t < last
    ]
    assert len(errors) > 20
    assert max(errors) <= metered.bound_ns(first, last)

    values, bounds = trial.metrics.values, trial.metrics.bounds
    assert "idle_power_w" in values, trial.metrics.unavailable["idle_power_w"]
    assert values["idle_power_w"] == pytest.approx(IDLE_W, abs=0.3)
    # One thread computes; a busy machine takes some of its time away.
    assert IDLE_W + 0.5 * CORE_W < values["generation_power_w"] <= IDLE_W + 1.1 * CORE_W
    assert values["generation_net_energy_j"] == pytest.approx(
        values["generation_energy_j"]
        - values["idle_power_w"] * sum(t.token_ns[-1] - t.token_ns[0] for t in trace.turns) / 1e9
    )
    assert 0 < bounds["generation_energy_j"] < 0.5 * values["generation_energy_j"]
    assert " W" in done.stderr, "the power is told while the campaign runs"


def _pairs(path: Path, here: tuple[int, ...]) -> list[tuple[int, int]]:
    """Times of the recorded samples on the meter's clock, each with its place on the device's."""
    (series,) = read_samples(path).series
    return list(zip(series.t_ns, here, strict=True))
