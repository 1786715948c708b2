"""Trials in containers of the real engine: they end as plain processes do, and nothing outlives its campaign."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.campaign.trial import read_outcome
from meltrepro.errors import EngineError
from meltrepro.targets.host import host_id
from meltrepro.targets.lock import lock_path
from tests.fault import rig
from tests.integration import container_rig

pytestmark = pytest.mark.machine
ROOT = Path(__file__).parents[2]
ONCE = {"repetitions": 1, "warmups": 0, "timeout_s": 60, "retries": 0}


@pytest.fixture(autouse=True)
def needs_an_engine(tmp_path: Path) -> Iterator[None]:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    try:
        container_rig.engine().version()
    except EngineError as error:
        pytest.skip(error.message)
    yield
    assert containers(tmp_path) == []


def containers(folder: Path) -> list[str]:
    """Containers of the rig's device that exist."""
    owner = str(lock_path(rig.settings(folder).run, host_id()))
    client = container_rig.engine()._client
    return [
        c.short_id
        for c in client.containers.list(all=True, ignore_removed=True, filters={"label": f"io.meltrepro.owner={owner}"})
    ]


def start(folder: Path, spec: rig.Spec) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, container_rig.__file__, str(folder), spec.text()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def until(condition: bool, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while bool(containers(folder)) is not condition:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_how_trials_end(tmp_path: Path) -> None:
    orders = {"good": "fine", "bad": "exit 3", "fatal": "segfault"}
    result = container_rig.run(tmp_path, rig.Spec(orders, ONCE))
    reasons = {trial.cell_id.rsplit("/", 1)[1]: reason for trial, reason in result.tally.failed}
    assert result.tally.ok == 1
    assert reasons["bad"].startswith("runner-error: exit status 3, the model cannot be loaded")
    assert "last line" in reasons["bad"]
    assert reasons["fatal"].startswith("crashed: the runner died of SIGSEGV")
    record = result.campaign.folder / "cells/m/as-is/f/host/good/r000"
    assert json.loads((record / "request.json").read_text())["model"] == "/model"
    assert json.loads((record / "device.json").read_text())["facts"]["facts"]["sandbox"] == "container"
    outcome = read_outcome(record)
    assert outcome is not None
    assert outcome.exit_code == 0


def test_a_hanging_container_is_removed(tmp_path: Path) -> None:
    result = container_rig.run(tmp_path, rig.Spec({"stuck": "hang"}, {**ONCE, "timeout_s": 2}))
    ((_, reason),) = result.tally.failed
    assert reason == "timeout: stopped after 2 s"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_removes_the_container(tmp_path: Path, number: int) -> None:
    campaign = start(tmp_path, rig.Spec({"stuck": "hang"}, ONCE))
    until(True, tmp_path)
    campaign.send_signal(number)
    out, err = campaign.communicate(timeout=60)
    assert campaign.returncode == 130, err
    assert json.loads(out.strip().splitlines()[-1])["error"] == "Interrupted"
    assert containers(tmp_path) == []


def test_a_killed_campaign_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    campaign = start(tmp_path, rig.Spec({"stuck": "hang"}, ONCE))
    until(True, tmp_path)
    campaign.kill()
    campaign.communicate()
    assert len(containers(tmp_path)) == 1, "the engine knows nothing of the kill"
    assert container_rig.run(tmp_path, rig.Spec({"good": "fine"}, ONCE)).tally.ok == 1
    assert containers(tmp_path) == []
