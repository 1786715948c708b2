"""Several devices at once: each has its own pace, its own faults, and nobody else's."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltrepro import processes
from meltrepro.campaign import trial as trial_module
from meltrepro.campaign.conduct import schedule
from meltrepro.campaign.lanes import lanes_of
from meltrepro.campaign.setup import cell_runs
from meltrepro.errors import StoreError
from meltrepro.record import layout
from meltrepro.record.campaign import JOURNAL
from meltrepro.record.reader import read_outcome
from meltrepro.record.trial import Request
from meltrepro.steps import Step
from tests.fault import rig
from tests.fault.test_interruptions import finish, start, wait_for

BOARDS = ["one", "two", "three"]
ONCE: dict[str, Any] = {"repetitions": 2, "warmups": 0, "timeout_s": 60, "retries": 1}


def owned(folder: Path) -> list[int]:
    return [pid for lock in (folder / "locks").glob("*.lock") for pid in processes.owned(str(lock))]


def spans(campaign: Path) -> dict[str, list[tuple[int, int]]]:
    """When the trials of each device ran, by the journal."""
    begun: dict[str, int] = {}
    found: dict[str, list[tuple[int, int]]] = {}
    for line in (campaign / JOURNAL).read_text().splitlines():
        entry = json.loads(line)
        if entry["name"] != "trial":
            continue
        if entry["phase"] == "begin":
            begun[entry["subject"]] = entry["monotonic_ns"]
        else:
            device = entry["subject"].split("/")[3]
            found.setdefault(device, []).append((begun[entry["subject"]], entry["monotonic_ns"]))
    return found


def overlap(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> bool:
    return any(a < d and c < b for a, b in one for c, d in other)


def test_devices_are_measured_at_the_same_time(tmp_path: Path) -> None:
    heard: list[Step] = []
    result = rig.run(tmp_path, rig.Spec({"a": "sleep 0.4"}, ONCE, BOARDS), heard.append)
    assert result.tally.ok == 6
    ran = spans(result.campaign.folder)
    assert set(ran) == set(BOARDS)
    assert overlap(ran["one"], ran["two"])
    assert overlap(ran["one"], ran["three"])
    for device in BOARDS:
        (a, b), (c, d) = sorted(ran[device])
        assert a < b <= c < d, "never two trials on one device"
    numbers = [step.done or 0 for step in heard if step.name == "trial" and step.phase == "end"]
    assert numbers == sorted(numbers), "progress never goes back"
    assert {step.total for step in heard if step.name == "trial"} == {6}


def test_one_after_the_other_where_that_is_asked_for(tmp_path: Path) -> None:
    result = rig.run(tmp_path, rig.Spec({"a": "sleep 0.1"}, {**ONCE, "parallel": False}, BOARDS))
    ran = spans(result.campaign.folder)
    assert not overlap(ran["one"], ran["two"])
    assert result.tally.ok == 6


def test_a_failure_on_one_device_is_no_other_devices_concern(tmp_path: Path) -> None:
    result = rig.run(tmp_path, rig.Spec({"bad": "exit 5", "good": "sleep 0.05"}, ONCE, BOARDS))
    assert result.tally.ok == 6
    assert len(result.tally.failed) == 6
    assert [str(trial) for trial, _ in result.tally.failed] == [
        str(trial) for trial in sorted((trial for trial, _ in result.tally.failed), key=_scheduled(result))
    ], "in the order of the schedule, whichever device was quicker"


def _scheduled(result: Any) -> Any:
    from meltrepro.manifest.protocol import Protocol

    cells = [entry.id for entry in result.campaign.document.cells]
    order = list(schedule(cells, Protocol.model_validate(ONCE)))
    return order.index


def test_fail_fast_lets_the_others_finish_what_they_do(tmp_path: Path) -> None:
    spec = rig.Spec({"a": "sleep 0.3"}, {**ONCE, "repetitions": 20}, BOARDS)
    setup = rig.make_setup(tmp_path, spec)
    bad = next(cell.id for cell in setup.plan.cells if cell.target_name == "two")
    request = setup.requests[bad]
    assert isinstance(request, Request)
    request.conversations[0][0] = "exit 3"
    result = rig.run_setup(tmp_path, setup, fail_fast=True)
    assert len(result.tally.failed) == 1
    assert result.tally.left > 20
    assert result.tally.ok <= 4
    assert result.tally.ok + result.tally.left + 1 == 60
    outcomes = [read_outcome(path.parent) for path in result.campaign.folder.rglob("outcome.json")]
    assert len(outcomes) == result.tally.ok + 1, "what was begun has its outcome"


def test_an_interrupt_ends_all_of_them_at_once(tmp_path: Path) -> None:
    spec = rig.Spec({"a": "sleep 300"}, ONCE, BOARDS)
    campaign = start(tmp_path, spec)
    for _ in range(3):
        wait_for(campaign, "trial begin")
    time.sleep(0.3)
    began = time.monotonic()
    campaign.send_signal(signal.SIGINT)
    out, err = campaign.communicate(timeout=60)
    assert time.monotonic() - began < 20, err
    assert json.loads(out.strip().splitlines()[-1])["error"] == "Interrupted"
    assert owned(tmp_path) == []
    assert not list((tmp_path / "home/records").rglob("outcome.json")), "what was cut short never happened"
    assert not list((tmp_path / "home/records").rglob("r000"))


def test_a_kill_loses_and_doubles_nothing(tmp_path: Path) -> None:
    spec = rig.Spec({"a": "sleep 0.2", "b": "leave-children"}, {**ONCE, "repetitions": 4}, BOARDS)
    for wanted in (2, 5, 9):
        campaign = start(tmp_path, spec)
        for _ in range(wanted):
            wait_for(campaign, "trial begin")
        os.kill(campaign.pid, signal.SIGKILL)
        campaign.communicate()
    status, answer = finish(tmp_path, spec)
    assert status == 0
    assert answer["resumed"]
    assert answer["ok"] == 24
    (folder,) = (tmp_path / "home/records").iterdir()
    cells = [path.parent for path in folder.rglob("outcome.json")]
    assert len(cells) == 24
    assert all(read_outcome(path) is not None for path in cells)
    assert owned(tmp_path) == []


def test_a_full_disk_ends_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of one lane is what the campaign ends with; the trials of the others never happened."""
    real = trial_module.run_trial

    def failing(run: Any, trial: Any, attempt: int, folder: Path, watcher: Any) -> Any:
        if run.facts.id == "two":
            time.sleep(0.5)
            raise StoreError("no space left")
        return real(run, trial, attempt, folder, watcher)

    monkeypatch.setattr("meltrepro.campaign.runner.run_trial", failing)
    began = time.monotonic()
    with pytest.raises(StoreError, match="no space left"):
        rig.run(tmp_path, rig.Spec({"a": "sleep 300"}, ONCE, BOARDS))
    assert time.monotonic() - began < 30
    assert owned(tmp_path) == []
    assert not list((tmp_path / "home/records").rglob("outcome.json"))
    monkeypatch.undo()
    (folder,) = (tmp_path / "home/records").iterdir()
    assert not [path for path in folder.rglob("r000") if layout.PART not in path.name]


def test_an_interrupt_ends_a_rest_before_a_trial(tmp_path: Path) -> None:
    """Nothing is begun that would then have to be ended."""
    spec = rig.Spec({"a": "sleep 0.1"}, {**ONCE, "idle_s": 300}, BOARDS)
    campaign = start(tmp_path, spec)
    for _ in range(3):
        wait_for(campaign, "trial begin")
    time.sleep(0.5)
    began = time.monotonic()
    campaign.send_signal(signal.SIGINT)
    out, err = campaign.communicate(timeout=60)
    assert time.monotonic() - began < 20, err
    assert json.loads(out.strip().splitlines()[-1])["error"] == "Interrupted"
    assert not list((tmp_path / "home/records").rglob("events.jsonl"))


def test_devices_of_one_machine_share_a_lane(tmp_path: Path) -> None:
    """However they are reached: a board under two kinds, or this machine behind a link to itself."""
    setup = rig.make_setup(tmp_path, rig.Spec({"a": "sleep 0"}, ONCE, ["host", "one", "two"]))
    digest = setup.devices["host"].id.rpartition("-")[2]
    devices = {**setup.devices, "one": replace(setup.devices["one"], id=f"board-{digest}")}
    runs = cell_runs(replace(setup, devices=devices))
    trials = schedule(list(runs), setup.plan.manifest.protocol)
    lanes = [{trial.cell_id.split("/")[3] for trial in lane} for lane in lanes_of(trials, runs)]
    assert sorted(map(sorted, lanes)) == [["host", "one"], ["two"]]


def test_devices_that_ask_each_other_share_a_lane(tmp_path: Path) -> None:
    setup = rig.make_setup(tmp_path, rig.Spec({"a": "sleep 0"}, ONCE, ["one", "two", "three"]))
    runs = cell_runs(setup)
    asking = {id: replace(run, engine_facts=setup.devices["two"]) if "/one/" in id else run for id, run in runs.items()}
    trials = schedule(list(runs), setup.plan.manifest.protocol)
    lanes = [{trial.cell_id.split("/")[3] for trial in lane} for lane in lanes_of(trials, asking)]
    assert sorted(map(sorted, lanes)) == [["one", "two"], ["three"]]
