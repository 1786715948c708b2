"""Trials in sandboxes of real engines: they end as plain processes do, and nothing outlives its campaign."""

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

from meltrepro import processes
from meltrepro.errors import EngineError
from meltrepro.record.reader import read_outcome
from meltrepro.targets.device_lock import lock_path
from meltrepro.targets.host.target import host_id
from tests.fault import rig
from tests.integration import sandbox_rig

pytestmark = pytest.mark.machine
ROOT = Path(__file__).parents[2]
ONCE = {"repetitions": 1, "warmups": 0, "timeout_s": 60, "retries": 0}
SANDBOX = {"docker": "container", "process": "bubblewrap"}


@pytest.fixture(params=sandbox_rig.ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The name of an engine that answers, of which nothing is left after the test."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    try:
        sandbox_rig.engine(request.param, tmp_path).version()
    except EngineError as error:
        pytest.skip(error.message)
    yield request.param
    assert left(request.param, tmp_path) == []


def left(engine: str, folder: Path) -> list[str]:
    """Containers or processes of the rig's device that exist."""
    owner = str(lock_path(host_id()))
    if engine == "process":
        return [str(pid) for pid in processes.owned(owner)]
    from meltrepro import settings as settings_module
    from meltrepro.build.daemon import connect

    containers = connect(settings_module.load()).containers
    label = f"io.meltrepro.owner={owner}"
    return [c.short_id for c in containers.list(all=True, ignore_removed=True, filters={"label": label})]


def start(engine: str, folder: Path, spec: rig.Spec) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, sandbox_rig.__file__, str(folder), spec.text(), engine],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_for_one(engine: str, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not left(engine, folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_how_trials_end(engine: str, tmp_path: Path) -> None:
    orders = {"good": "fine", "bad": "exit 3", "fatal": "segfault"}
    result = sandbox_rig.run(tmp_path, rig.Spec(orders, ONCE), engine)
    reasons = {trial.cell_id.rsplit("/", 1)[1]: str(failure) for trial, failure in result.tally.failed}
    assert result.tally.ok == 1
    assert reasons["bad"].startswith("runner-error: exit status 3, the model cannot be loaded")
    assert "last line" in reasons["bad"]
    assert reasons["fatal"].startswith("crashed: the runner died of SIGSEGV")
    record = result.campaign.folder / "cells/m/as-is/f/host/good/r000"
    assert json.loads((record / "request.json").read_text())["model"] == "/model"
    assert json.loads((record / "device.json").read_text())["facts"]["facts"]["sandbox"] == SANDBOX[engine]
    assert {path.stat().st_uid for path in (record, *record.iterdir())} == {os.getuid()}
    outcome = read_outcome(record)
    assert outcome is not None
    assert outcome.exit_code == 0


@pytest.mark.parametrize("what", ["link", "folder", "pipe"])
def test_logs_are_not_written_through_what_a_runner_left(engine: str, tmp_path: Path, what: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    result = sandbox_rig.run(tmp_path, rig.Spec({"bad": f"plant-{what} {victim}", "good": "fine"}, ONCE), engine)
    ((_, failure),) = result.tally.failed
    reason = str(failure)
    assert reason.startswith("tampered: ")
    assert "stdout.log is a" in reason
    assert victim.read_text() == "precious"
    assert result.tally.ok == 1


def test_a_pipe_in_place_of_a_log_is_not_waited_for(engine: str, tmp_path: Path) -> None:
    result = sandbox_rig.run(tmp_path, rig.Spec({"bad": "hide the log", "good": "fine"}, ONCE), engine)
    ((_, failure),) = result.tally.failed
    reason = str(failure)
    assert reason.startswith("tampered: ")
    assert "stderr.log is a pipe" in reason
    assert result.tally.ok == 1


def test_a_runner_that_is_no_program(engine: str, tmp_path: Path) -> None:
    bundle = sandbox_rig.static_bundle(tmp_path, {"melt-runner": b"no program"})
    setup = rig.make_setup(tmp_path, rig.Spec({"any": "fine"}, ONCE), sandbox_rig.engine(engine, tmp_path), bundle)
    ((_, failure),) = rig.run_setup(tmp_path, setup).tally.failed
    reason = str(failure)
    assert "/bundle/bin/melt-runner" in reason
    assert engine == "docker" or reason.startswith("not-started: the runner cannot be started")


def test_a_hanging_runner_is_stopped(engine: str, tmp_path: Path) -> None:
    result = sandbox_rig.run(tmp_path, rig.Spec({"stuck": "hang"}, {**ONCE, "timeout_s": 2}), engine)
    ((_, failure),) = result.tally.failed
    reason = str(failure)
    assert reason == "timeout: stopped after 2 s"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(engine: str, tmp_path: Path, number: int) -> None:
    campaign = start(engine, tmp_path, rig.Spec({"stuck": "hang"}, ONCE))
    wait_for_one(engine, tmp_path)
    campaign.send_signal(number)
    out, err = campaign.communicate(timeout=60)
    assert campaign.returncode == 130, err
    assert json.loads(out.strip().splitlines()[-1])["error"] == "Interrupted"
    assert left(engine, tmp_path) == []


def test_a_killed_campaign_is_cleaned_up_by_the_next(engine: str, tmp_path: Path) -> None:
    campaign = start(engine, tmp_path, rig.Spec({"stuck": "hang"}, ONCE))
    wait_for_one(engine, tmp_path)
    campaign.kill()
    campaign.communicate()
    if engine == "docker":
        assert len(left(engine, tmp_path)) == 1, "the engine knows nothing of the kill"
    assert sandbox_rig.run(tmp_path, rig.Spec({"good": "fine"}, ONCE), engine).tally.ok == 1
    assert left(engine, tmp_path) == []
