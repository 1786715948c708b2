"""What can happen to an iPhone and its link while a trial runs, and how it ends."""

from __future__ import annotations

import os
import threading

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.lab.iphone.faults import Break, Faults, How
from tests.integration.ios_faults.lab import COUNT, DVT, Lab

pytestmark = [pytest.mark.integration, pytest.mark.fault]

UNDONE = ": > events.jsonl"
"""The stand-in has said that it is done before it does anything."""


def test_a_link_that_is_lost_while_a_trial_runs(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 3; exit 5")
    threads = [lab.in_trial(1, lab.device.unplug), lab.in_trial(2, lab.device.plug)]
    assert lab.target.run_trial(job).exit_code == 5
    assert lab.runs == 1
    assert all(not thread.is_alive() for thread in threads)


def test_a_link_that_is_lost_for_longer_than_a_trial_runs(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 1; exit 5")
    lab.in_trial(0.7, lab.device.unplug)
    lab.in_trial(4, lab.device.plug)
    assert lab.target.run_trial(job).exit_code == 5
    assert lab.runs == 1
    assert (job.folder / "stdout.log").read_text() == "said\n"


def test_a_link_that_is_lost_for_good(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 1000")
    lab.in_trial(1, lab.device.unplug)
    with pytest.raises(TargetLost):
        lab.target.run_trial(job)
    lab.device.plug()
    assert lab.target.stop_strays() == 1, "the app runs on until somebody comes"
    assert not lab.device.running


def test_usbmuxd_that_is_killed_and_comes_back(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 3; exit 5")
    threads = [lab.in_trial(1, lab.device.stop_usbmuxd), lab.in_trial(2, lab.device.start_usbmuxd)]
    assert lab.target.run_trial(job).exit_code == 5
    assert lab.runs == 1
    assert all(not thread.is_alive() for thread in threads)


def test_usbmuxd_that_stays_away(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 1000")
    lab.in_trial(1, lab.device.stop_usbmuxd)
    with pytest.raises(TargetLost, match="usbmuxd") as caught:
        lab.target.run_trial(job)
    assert caught.value.hint
    lab.device.start_usbmuxd()
    assert lab.target.stop_strays() == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [("forgotten", "does not know this computer"), ("locked", "is locked")],
    ids=["revoked", "locked"],
)
def test_trust_that_ends_in_a_trial(lab: Lab, wrong: str, says: str) -> None:
    """What runs goes on until its own deadline, or until somebody who is trusted comes."""
    job = lab.bench.job(f"{COUNT}; sleep 1000")

    def end() -> None:
        if wrong == "locked":
            lab.device.faults = Faults(locked=True)
        else:
            lab.device.forget()
        lab.device.unplug()
        lab.device.plug()

    lab.in_trial(1, end)
    with pytest.raises(TargetError, match=says) as caught:
        lab.target.run_trial(job)
    assert not caught.value.transient
    lab.device.heal()
    lab.phone.pair(5)
    assert lab.target.stop_strays() == 1
    assert lab.runs == 1


@pytest.mark.parametrize("rest", ["sleep 0.5", ":"])
@pytest.mark.parametrize("message", range(2, 12))
def test_developer_services_that_are_cut_at_any_message(lab: Lab, message: int, rest: str) -> None:
    """Also where the app has ended before anybody can ask again."""
    job = lab.bench.job(f"{COUNT}; {rest}; exit 5")
    lab.target.clock_ns()
    lab.device.unplug()
    lab.device.plug()
    lab.device.faults = Faults(breaks=(Break(DVT, How.cut, message=message),))
    assert lab.target.run_trial(job).exit_code == 5
    assert lab.runs == 1, "never launched twice"


def test_developer_services_that_fall_silent_in_a_trial(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 0.5; exit 5")
    lab.device.unplug()
    lab.device.plug()
    lab.device.faults = Faults(breaks=(Break(DVT, How.hang, message=9),))
    assert lab.target.run_trial(job).exit_code == 5
    assert lab.runs == 1


def test_an_app_that_needs_too_much_memory(lab: Lab) -> None:
    job = lab.bench.job(f"{UNDONE}; sleep 30")
    lab.device.faults = Faults(jetsam_after_s=0.5)
    result = lab.target.run_trial(job)
    assert (result.exit_code, result.out_of_memory) == (128 + 9, True)
    assert "jetsam: vm-pageshortage" in (job.folder / "stderr.log").read_text()
    assert (job.folder / "report.ips").read_text().startswith('{"bug_type": "298"')


def test_jetsam_while_nobody_listens(lab: Lab) -> None:
    job = lab.bench.job(f"{UNDONE}; sleep 30")
    lab.device.faults = Faults(jetsam_after_s=1.5)
    lab.in_trial(1, lab.device.unplug)
    lab.in_trial(3, lab.device.plug)
    result = lab.target.run_trial(job)
    assert (result.exit_code, result.out_of_memory) == (128 + 9, True)


def test_an_app_that_somebody_kills_while_nobody_listens_has_vanished(lab: Lab) -> None:
    job = lab.bench.job(f"{UNDONE}; sleep 30")

    def kill() -> None:
        (pid,) = lab.device.running
        os.killpg(pid, 9)

    lab.in_trial(0.7, lab.device.unplug)
    lab.in_trial(1.2, kill)
    lab.in_trial(2.5, lab.device.plug)
    with pytest.raises(TargetLost, match="vanished"):
        lab.target.run_trial(job)


def test_a_phone_that_is_restarted_in_a_trial(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; {UNDONE}; sleep 30")
    lab.in_trial(0.7, lab.device.stop)
    lab.in_trial(2, lab.device.start)
    with pytest.raises(TargetLost, match="vanished"):
        lab.target.run_trial(job)
    assert lab.runs == 1
    assert lab.target.run_trial(lab.bench.job("exit 5")).exit_code == 5


def test_two_threads_may_ask_at_once(lab: Lab) -> None:
    """A watchdog asks for the state while a trial runs."""
    job = lab.bench.job("sleep 2; exit 5")
    states: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            states.append(lab.target.state().temperatures_c["battery"])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        assert lab.target.run_trial(job).exit_code == 5
    finally:
        over.set()
        thread.join()
    assert len(states) > 10
