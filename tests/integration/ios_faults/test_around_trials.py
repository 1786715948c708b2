"""What a trial on an iPhone finds and leaves: opened apps, killed campaigns, samples, the clock."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from meltrepro.errors import TargetError
from meltrepro.targets.base import TrialJob
from meltrepro.targets.ios.target import IosTarget
from tests.integration.ios_faults.lab import Lab
from tests.support.ios_targets import APP, services, target

pytestmark = [pytest.mark.integration, pytest.mark.fault]


def test_an_app_that_somebody_has_opened_is_ended_first(lab: Lab) -> None:
    job = lab.bench.job("exit 5")
    lab.phone.launch(APP, {})
    assert len(lab.device.running) == 1
    assert lab.target.run_trial(job).exit_code == 5


def test_a_killed_campaigns_trial_is_stopped_and_removed(lab: Lab) -> None:
    job = lab.bench.job("sleep 1000")
    other = target(lab.phone)
    thread = threading.Thread(target=_ignoring, args=(lab.target, job))
    thread.start()
    until = time.monotonic() + 10
    while not list(lab.device.documents().glob("meltrepro/jobs/*/started")) and time.monotonic() < until:
        time.sleep(0.1)
    assert other.stop_strays() == 1
    thread.join(20)
    assert not thread.is_alive()
    assert not list(lab.device.documents().glob("meltrepro/jobs/*"))


def _ignoring(there: IosTarget, job: TrialJob) -> None:
    with contextlib.suppress(TargetError):
        there.run_trial(job)


def test_samples_come_from_the_app(lab: Lab) -> None:
    from meltrepro.measure.sensor_plan import sensor_plan
    from meltrepro.record.samples import read_samples

    job = lab.bench.job("sleep 1; exit 0")
    with lab.target.sampling(job.bundle, sensor_plan(lab.target.sources(), 10), job.folder):
        assert lab.target.run_trial(job).exit_code == 0
    recording = read_samples(job.folder / "samples.jsonl")
    series = recording.named("process.footprint")
    assert series is not None
    assert len(series.t_ns) >= 5
    assert recording.end_ns is not None


def test_memory_by_the_phone(lab: Lab) -> None:
    pid = lab.phone.launch(APP, {})
    footprint = lab.phone.footprint(pid)
    assert footprint is not None
    assert footprint > 1 << 20
    assert lab.phone.footprint(1) is None


def test_a_phone_that_is_asked_to_stay_awake_says_yes(lab: Lab) -> None:
    """Asked directly: what the target asks for is a wish, whose refusal nobody hears."""
    there = services(lab.device, lab.device.folder.parent / "pairings")
    lab.phone.ask(lambda: there.keep_awake(60), "keep it awake")
    lab.phone.ask(lambda: there.keep_awake(60), "keep it awake again")
    assert there._awake is not None


def test_the_clock_is_quick(lab: Lab) -> None:
    lab.target.clock_ns()
    trips = []
    for _ in range(10):
        sent = time.monotonic_ns()
        there = lab.target.clock_ns()
        trips.append(time.monotonic_ns() - sent)
        assert sent <= there <= time.monotonic_ns()
    assert min(trips) < 30e6
