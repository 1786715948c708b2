"""Kill, interrupt or starve a campaign at any moment: a rerun finishes it, nothing is lost, doubled or left running."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meltrepro import processes
from meltrepro.campaign.conduct import schedule
from meltrepro.errors import DeviceBusy, StoreError
from meltrepro.manifest.protocol import Protocol
from meltrepro.record import layout
from meltrepro.record.reader import campaign_folders, read_outcome
from tests.fault import rig
from tests.support.forks import Fork

SPEC = rig.Spec(
    {"a": "sleep 0.02", "b": "sleep 0.05", "c": "leave-children"}, {"repetitions": 2, "warmups": 1, "timeout_s": 60}
)
TRIALS = 9
ROOT = Path(rig.__file__).parents[2]


def start(folder: Path, spec: rig.Spec = SPEC) -> Fork:
    """The campaign as a process of its own, in a session of its own."""
    return Fork(rig.main, folder, spec.text())


def finish(folder: Path, spec: rig.Spec = SPEC) -> tuple[int, dict[str, Any]]:
    """Run it to its end: exit status and what it printed last."""
    campaign = start(folder, spec)
    out, err = campaign.communicate(timeout=120)
    assert out.strip(), err
    answer: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return campaign.wait(), answer


def wait_for(campaign: Fork, text: str) -> None:
    """Read what the campaign tells until a line begins with `text`."""
    for line in campaign.stdout:
        if line.startswith(text):
            return
    raise AssertionError(f"{text!r} was never told")


def owned(folder: Path) -> list[int]:
    return [pid for lock in (folder / "locks").glob("*.lock") for pid in processes.owned(str(lock))]


def is_finished(folder: Path) -> bool:
    """Whether a campaign has been run to its end."""
    documents = (
        json.loads((found / "campaign.json").read_text()) for found in campaign_folders(folder / "home/records")
    )
    return any(document["finished_wall_ns"] is not None for document in documents)


def check_complete(folder: Path, spec: rig.Spec = SPEC) -> Path:
    """One campaign, with every trial of the schedule once, and nothing else."""
    (campaign,) = campaign_folders(folder / "home/records")
    cells = [f"m/as-is/f/host/{name}" for name in spec.orders]
    expected = {layout.trial_folder(campaign, t) for t in schedule(cells, Protocol.model_validate(spec.protocol))}
    assert {path for cell in cells for path in layout.cell_folder(campaign, cell).iterdir()} == expected
    for path in expected:
        outcome = read_outcome(path)
        assert outcome is not None
        assert (outcome.state, outcome.attempt) == ("ok", 1)
        assert (path / "events.jsonl").read_text().count('"done"') == 1
    return campaign


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB to fill."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a disk needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    """Leave no room at all; returns the file that takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


@pytest.mark.parametrize("seed", range(24))
def test_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    """SIGKILL up to three times, each at a moment of chance; then run it to its end."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 3)):
        campaign = start(tmp_path)
        if chance.random() < 0.7:
            wait_for(campaign, "campaign begin")
        time.sleep(chance.uniform(0, 0.8))
        campaign.kill()
        campaign.communicate()
        if campaign.returncode == 0 or is_finished(tmp_path):
            break  # it was faster than the kill; one that is finished is not resumed, a rerun begins anew
    else:
        status, answer = finish(tmp_path)
        assert (status, answer["ok"], answer["failed"], answer["left"]) == (0, TRIALS, [], 0)
    check_complete(tmp_path)
    assert owned(tmp_path) == []


def test_a_runner_dies_with_its_campaign(tmp_path: Path) -> None:
    """Without waiting for a rerun; its children, which the kernel does not tell, are found by the rerun."""
    spec = rig.Spec({"stuck": "hang"}, {"repetitions": 1, "warmups": 0, "timeout_s": 1, "retries": 0})
    slow = rig.Spec(spec.orders, {**spec.protocol, "timeout_s": 1000})
    campaign = start(tmp_path, slow)
    wait_for(campaign, "trial begin")
    while len(owned(tmp_path)) < 3:
        time.sleep(0.01)
    campaign.kill()
    campaign.communicate()
    deadline = time.monotonic() + 10
    while any(b"melt-runner" in Path("/proc", str(pid), "cmdline").read_bytes() for pid in owned(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(owned(tmp_path)) == 2
    status, answer = finish(tmp_path, spec)
    assert (status, answer["failed"]) == (0, ["timeout: stopped after 1 s"])
    assert owned(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["campaign begin", "trial begin", "trial end"])
def test_interrupted(tmp_path: Path, number: int, moment: str) -> None:
    """One signal is enough, exit 130, and the message says how to go on."""
    campaign = start(tmp_path)
    wait_for(campaign, moment)
    campaign.send_signal(number)
    out, err = campaign.communicate(timeout=30)
    assert "Traceback" not in err
    assert campaign.returncode == 130
    answer = json.loads(out.strip().splitlines()[-1])
    assert answer["error"] == "Interrupted"
    assert "goes on" in answer["hint"]
    assert owned(tmp_path) == []
    for path in (tmp_path / "home/records").glob("*/cells/*/*/*/*/*/*"):
        assert (path / "outcome.json").exists(), "a stopped trial leaves no folder"
    status, answer = finish(tmp_path)
    assert (status, answer["resumed"], answer["ok"]) == (0, True, TRIALS)
    check_complete(tmp_path)


@pytest.mark.parametrize("seed", range(10))
def test_interrupted_at_any_moment_and_again_at_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    campaign = start(tmp_path)
    wait_for(campaign, "campaign begin")
    time.sleep(chance.uniform(0, 0.6))
    for _ in range(3):
        campaign.send_signal(signal.SIGINT)
        time.sleep(0.002)
    out, err = campaign.communicate(timeout=30)
    assert "Traceback" not in err
    # A signal in the interpreter's very last moment finds no handler any more; everything has been done by then.
    assert campaign.returncode in (130, 0, -signal.SIGINT)
    assert owned(tmp_path) == []
    if campaign.returncode != 0:
        assert json.loads(out.strip().splitlines()[-1])["error"] == "Interrupted"
        finish(tmp_path)
    check_complete(tmp_path)


def test_two_campaigns_at_once(tmp_path: Path) -> None:
    slow = rig.Spec({"slow": "sleep 1000"}, {"repetitions": 1, "warmups": 0})
    first = start(tmp_path, slow)
    wait_for(first, "trial begin")
    with pytest.raises(DeviceBusy) as caught:
        rig.run(tmp_path, SPEC)
    assert f"rig (process {first.pid}, user " in caught.value.message
    status, answer = finish(tmp_path)
    assert (status, answer["error"]) == (DeviceBusy.exit_code, "DeviceBusy")
    assert first.poll() is None, "the first one is not disturbed"
    assert len(owned(tmp_path)) == 1
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    status, _ = finish(tmp_path)
    assert status == 0, "the lock went with its holder"


def test_the_disk_fills_up_under_the_runner(tmp_path: Path, tiny_disk: Path) -> None:
    spec = rig.Spec({"good": "sleep 0", "greedy": "fill"}, {"repetitions": 1, "warmups": 0, "order": "as-written"})
    (tmp_path / "home").symlink_to(tiny_disk)
    with pytest.raises(StoreError) as caught:
        rig.run(tmp_path, spec)
    assert "greedy/.r000.tmp" in caught.value.message
    assert "No space left" in caught.value.message
    (campaign,) = campaign_folders(tiny_disk / "records")
    cell = campaign / "cells/m/as-is/f/host"
    assert (cell / "good/r000/outcome.json").exists()
    assert not list((cell / "greedy").iterdir()), "nothing half-written"
    runner = tmp_path / "bundle/bin/melt-runner"
    assert runner.exists()


def test_the_disk_is_full_from_the_start(tmp_path: Path, tiny_disk: Path) -> None:
    (tmp_path / "home").symlink_to(tiny_disk)
    ballast = fill(tiny_disk)
    with pytest.raises(StoreError, match="No space left"):
        rig.run(tmp_path, SPEC)
    assert campaign_folders(tiny_disk / "records") == []
    assert not list((tiny_disk / "records").glob(".part*")) if (tiny_disk / "records").exists() else True
    ballast.unlink()
    assert rig.run(tmp_path, SPEC).tally.ok == TRIALS


@pytest.mark.parametrize("blocks", range(4, 24, 2))
def test_the_disk_fills_up_between_trials(tmp_path: Path, tiny_disk: Path, blocks: int) -> None:
    """With room for a few files only, the campaign ends at some point of a record, and goes on when there is room."""
    (tmp_path / "home").symlink_to(tiny_disk)
    ballast = fill(tiny_disk)
    os.truncate(ballast, ballast.stat().st_size - blocks * 4096)
    with pytest.raises(StoreError, match="No space left"):
        rig.run(tmp_path, SPEC)
    for path in tiny_disk.glob("records/*/cells/*/*/*/*/*/*"):
        assert (path / "outcome.json").exists()
    ballast.unlink()
    rig.run(tmp_path, SPEC)
    check_complete(tmp_path)


def test_records_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(StoreError, match="home"):
        rig.run(tmp_path, SPEC)
