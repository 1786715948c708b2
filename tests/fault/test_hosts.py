"""A lab of many hosts: whoever is killed, cut off, paused or full, no trial is lost and none is run twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from meltrepro import processes
from tests.fault import project as projects
from tests.fault.hosts import NAMES, Lab, check_once, ended, lab_of, manifest, wait_for

ORDERS = {"a": "sleep 0.4", "b": "sleep 0.3"}
TRIALS = 18


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three nodes; tests that end one of them start it again."""
    project = projects.equip(tmp_path_factory.mktemp("lab"))
    with lab_of(project.folder) as up:
        yield up


def running(lab: Lab, name: str) -> bool:
    """Whether a node is in the middle of a trial."""
    return any((lab.folder / name / "home" / "lab" / "trials").rglob(".*.tmp/events.jsonl"))


def strays(lab: Lab) -> list[int]:
    locks = (lock for name in NAMES for lock in (lab.folder / name / "locks").glob("*.lock"))
    return [pid for lock in locks for pid in processes.owned(str(lock))]


def test_a_campaign_runs_on_all_hosts(lab: Lab) -> None:
    code, answer = ended(lab.run(manifest(lab.folder, {"a": "sleep 0.05", "b": "sleep 0.02"}, 3, name="plain")))
    assert (code, answer["ok"], answer["failed"], answer["left"]) == (0, TRIALS, [], 0)
    check_once(lab, "plain", TRIALS)
    assert strays(lab) == []


@pytest.mark.parametrize("victim", ["one", "head"])
def test_killed_in_a_trial_and_started_again(lab: Lab, victim: str) -> None:
    """The trial of a dead node never happened; that of a dead head goes on without it."""
    campaign = lab.run(manifest(lab.folder, ORDERS, 3, name=f"killed-{victim}"))
    wait_for(lambda: running(lab, "one"))
    lab.kill(victim)
    time.sleep(0.5)
    if victim == "head":
        lab.head()
    else:
        lab.node(victim)
    code, answer = ended(campaign)
    assert (code, answer["ok"], answer["failed"], answer["left"]) == (0, TRIALS, [], 0)
    check_once(lab, f"killed-{victim}", TRIALS)
    assert strays(lab) == []


def test_the_client_is_killed_and_run_again(lab: Lab) -> None:
    """What runs meanwhile runs to its end, and its record is there for whoever asks for it."""
    spec = manifest(lab.folder, ORDERS, 3, name="unwatched")
    lab.run(spec)
    wait_for(lambda: all(running(lab, name) for name in NAMES))
    lab.kill("client")
    wait_for(lambda: not any(running(lab, name) for name in NAMES))
    code, answer = ended(lab.run(spec))
    assert (code, answer["ok"], answer["failed"], answer["left"]) == (0, TRIALS, [], 0)
    check_once(lab, "unwatched", TRIALS)


def test_a_node_is_paused(lab: Lab) -> None:
    campaign = lab.run(manifest(lab.folder, ORDERS, 3, name="paused"))
    wait_for(lambda: running(lab, "two"))
    lab.programs["two"].send_signal(signal.SIGSTOP)
    time.sleep(5)
    assert campaign.poll() is None
    lab.programs["two"].send_signal(signal.SIGCONT)
    code, answer = ended(campaign)
    assert (code, answer["ok"], answer["failed"], answer["left"]) == (0, TRIALS, [], 0)
    check_once(lab, "paused", TRIALS)
