"""A lab of many hosts: whoever is killed, cut off, paused or full, no trial is lost and none is run twice."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from meltrepro import processes
from meltrepro.record.reader import campaign_folders, read_outcome
from meltrepro.targets.base import device_id
from tests.fault import project as projects
from tests.fault.hosts import NAMES, Lab, check_once, ended, lab_of, manifest, wait_for

ORDERS = {"a": "sleep 0.4", "b": "sleep 0.3"}
TRIALS = 12


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
    code, answer = ended(lab.run(manifest(lab.folder, {"a": "sleep 0.05", "b": "sleep 0.02"}, 2, name="plain")))
    assert (code, answer["ok"], answer["failed"], answer["left"]) == (0, TRIALS, [], 0)
    check_once(lab, "plain", TRIALS)
    assert strays(lab) == []


@pytest.mark.parametrize("victim", ["one", "head"])
def test_killed_in_a_trial_and_started_again(lab: Lab, victim: str) -> None:
    """The trial of a dead node never happened; that of a dead head goes on without it."""
    campaign = lab.run(manifest(lab.folder, ORDERS, 2, name=f"killed-{victim}"))
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
    spec = manifest(lab.folder, ORDERS, 2, name="unwatched")
    lab.run(spec)
    wait_for(lambda: all(running(lab, name) for name in NAMES))
    lab.kill("client")
    wait_for(lambda: not any(running(lab, name) for name in NAMES))
    code, answer = ended(lab.run(spec))
    assert (code, answer["ok"], answer["failed"], answer["left"]) == (0, TRIALS, [], 0)
    check_once(lab, "unwatched", TRIALS)


def test_a_node_is_paused(lab: Lab) -> None:
    campaign = lab.run(manifest(lab.folder, ORDERS, 2, name="paused"))
    wait_for(lambda: running(lab, "two"))
    lab.programs["two"].send_signal(signal.SIGSTOP)
    time.sleep(5)
    assert campaign.poll() is None
    lab.programs["two"].send_signal(signal.SIGCONT)
    code, answer = ended(campaign)
    assert (code, answer["ok"], answer["failed"], answer["left"]) == (0, TRIALS, [], 0)
    check_once(lab, "paused", TRIALS)


def test_campaigns_that_want_one_device_take_turns_and_priority_comes_first(lab: Lab) -> None:
    """Two alike alternate; one of a higher priority has the device until it is done."""
    specs = [
        manifest(lab.folder, {"a": "sleep 0.2"}, count, 1, name=name, where={"node": "one"})
        for name, count in (("first", 8), ("second", 8), ("urgent", 3))
    ]
    patient = [lab.run(specs[0])]
    wait_for(lambda: running(lab, "one"))
    patient.append(lab.run(specs[1]))
    wait_for(lambda: any(each["queue"] for each in lab.status()["devices"]))
    ended(lab.run(specs[2], "--priority", "5"))
    assert [ended(each)[1]["ok"] for each in patient] == [8, 8]
    began: dict[int, str] = {}
    for folder in campaign_folders(lab.folder / "home" / "records"):
        name = folder.name.split("-")[1]
        if name in ("first", "second", "urgent"):
            outcomes = [read_outcome(path.parent) for path in folder.rglob("outcome.json")]
            began |= {outcome.started_wall_ns: name for outcome in outcomes if outcome is not None}
    order = [began[when] for when in sorted(began)]
    urgent = [number for number, name in enumerate(order) if name == "urgent"]
    assert urgent[1] - urgent[0] <= 3, order  # what each of the others had in the queue already
    assert urgent[2] - urgent[1] == 1, order
    both = [name for name in order[order.index("second") :] if name != "urgent"]
    most = min(both.count("first"), both.count("second"))
    assert sum(a != b for a, b in pairwise(both)) >= 2 * most - 2, order


def test_a_disk_that_is_full(lab: Lab) -> None:
    """The host is left alone after two failures; with room, and released, it goes on."""
    disk = lab.folder / "four"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a disk needs root")
    device = device_id("host", "four")
    try:
        lab.node("four")
        wait_for(lambda: device in {each["id"] for each in lab.status()["devices"] if each["there"]})
        spec = manifest(lab.folder, {"a": "sleep 0"}, 2, 1, name="full", where={"node": "four"})
        with (disk / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(1 << 12)) == 1 << 12:
                pass
    except OSError:
        code, answer = ended(lab.run(spec))
        assert (code, answer["ok"], answer["left"]) == (0, 0, 2)
        assert "quarantine" in answer["missing"]["pool1"]
        assert "no space" in answer["missing"]["pool1"].lower()
        (disk / "ballast").unlink()
        assert lab.ask("release", device)[1].strip() == f"{device} is free"
        code, answer = ended(lab.run(spec))
        assert (code, answer["ok"], answer["left"]) == (0, 2, 0)
        check_once(lab, "full", 2, ("four",))
    finally:
        lab.kill("four")
        subprocess.run(["umount", "-l", disk], check=True)
