"""Every way in which a runner can end has its outcome, its reason and its retries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro import processes
from meltrepro.errors import RecordError
from meltrepro.manifest.protocol import Want
from meltrepro.record import journal, layout
from meltrepro.record.campaign import JOURNAL
from meltrepro.record.reader import read_outcome
from meltrepro.steps import Step
from meltrepro.targets.host.target import HostTarget
from tests.fault import rig

ONCE = {"repetitions": 1, "warmups": 0, "timeout_s": 20, "retries": 2}


def owned(folder: Path) -> list[int]:
    """Processes of the rig's device that are still alive."""
    return [pid for lock in (folder / "locks").glob("*.lock") for pid in processes.owned(str(lock))]


@pytest.mark.parametrize(
    ("order", "reason", "attempts", "exit_code"),
    [
        ("exit 2", "runner-error: exit status 2, the request cannot be read", 1, 2),
        ("exit 3", "runner-error: exit status 3, the model cannot be loaded", 1, 3),
        ("exit 5", "runner-error: exit status 5, decoding failed", 1, 5),
        ("exit 6", "runner-error: exit status 6, the events cannot be written", 1, 6),
        ("exit 77", "runner-error: exit status 77, unknown reason", 1, 77),
        ("exit 126", "not-started: ", 1, 126),
        ("signal 11", "crashed: the runner died of SIGSEGV", 1, 139),
        ("signal 6", "crashed: the runner died of SIGABRT", 1, 134),
        ("signal 4", "crashed: the runner died of SIGILL", 1, 132),
        ("signal 9", "killed: something else stopped the runner with SIGKILL", 3, 137),
        ("signal 15", "killed: something else stopped the runner with SIGTERM", 3, 143),
        ("truncate", "incomplete-events: ", 1, 0),
        ("forget", "incomplete-events: ", 1, 0),
        ("no-memory", "metric-unavailable: memory is required, but the runner read no memory", 1, 0),
    ],
)
def test_a_failure_has_its_reason(tmp_path: Path, order: str, reason: str, attempts: int, exit_code: int) -> None:
    result = rig.run(tmp_path, rig.Spec({"bad": order, "good": "sleep 0"}, ONCE))
    ((trial, failure),) = result.tally.failed
    said = str(failure)
    assert said.startswith(reason)
    assert result.tally.ok == 1, "the other cell goes on"
    folder = layout.trial_folder(result.campaign.folder, trial)
    outcome = read_outcome(folder)
    assert outcome is not None
    assert (outcome.state, outcome.exit_code, outcome.attempt) == ("failed", exit_code, attempts)
    assert outcome.transient == (attempts > 1)
    kept = sorted(path.name for path in folder.parent.iterdir())
    assert kept == sorted(["r000", *(f"r000.attempt{n}" for n in range(1, attempts))])
    assert result.campaign.document.finished_wall_ns is not None


def test_what_the_runner_said_last_is_part_of_the_reason(tmp_path: Path) -> None:
    result = rig.run(tmp_path, rig.Spec({"bad": "exit 3"}, ONCE))
    ((_, failure),) = result.tally.failed
    said = "runner-error: exit status 3, the model cannot be loaded: broken: as ordered ?[31m"
    assert failure.line == said, "the runner's own error, without control characters"
    assert str(failure) == f"{said}\n  first line\n  last line"


@pytest.mark.parametrize(("metric", "why"), [("energy", "nothing was sampled"), ("temperature", "no thermometer")])
def test_a_required_metric_that_cannot_be_had(tmp_path: Path, metric: str, why: str) -> None:
    setup = rig.make_setup(tmp_path, rig.Spec({"good": "sleep 0"}, ONCE))
    if metric == "temperature" and setup.targets["host"].state().temperatures_c:
        pytest.skip("this machine has a thermometer")
    manifest = setup.plan.manifest
    manifest = manifest.model_copy(update={"measure": manifest.measure.model_copy(update={metric: Want.required})})
    result = rig.run_setup(tmp_path, rig.with_manifest(setup, manifest))
    ((_, failure),) = result.tally.failed
    reason = str(failure)
    assert reason.startswith(f"metric-unavailable: {metric} is required, but ")
    assert why in reason


def test_a_gate_that_stays_closed_fails_the_trial_and_says_so_meanwhile(tmp_path: Path) -> None:
    gates = {"free_memory_mb": 1e9, "timeout_s": 0.5, "poll_s": 0.2}
    steps: list[Step] = []
    result = rig.run(tmp_path, rig.Spec({"good": "sleep 0"}, {**ONCE, "gates": gates}), steps.append)
    ((_, failure),) = result.tally.failed
    reason = str(failure)
    assert reason.startswith("gate-closed: not ready after 0.5 s: ")
    assert reason.endswith("MB of memory are available, 1e+09 wanted")
    told = [step for step in steps if step.name == "gate"]
    assert [step.phase for step in told][:2] == ["begin", "progress"]
    assert all("of memory are available" in step.detail["waiting"] for step in told)
    folder = result.campaign.folder / "cells/m/as-is/f/host/good/r000"
    assert not (folder / "events.jsonl").exists(), "the runner was not started"
    assert read_outcome(folder) is not None


def test_a_device_that_gets_too_hot_is_stopped(tmp_path: Path) -> None:
    """A thermometer of our own beside the machine's files, that shows more and more."""
    setup = rig.make_setup(tmp_path, rig.Spec({"long": "hang"}, {**ONCE, "abort_above_c": 80}))
    target = setup.targets["host"]
    assert isinstance(target, HostTarget)
    thermometer = tmp_path / "root/sys/class/thermal/thermal_zone0"
    thermometer.mkdir(parents=True)
    (tmp_path / "root/proc").symlink_to("/proc")
    (thermometer / "type").write_text("cpu\n")
    (thermometer / "temp").write_text("85000\n")
    target._root = tmp_path / "root"
    began = time.monotonic()
    result = rig.run_setup(tmp_path, setup)
    ((_, failure),) = result.tally.failed
    reason = str(failure)
    assert reason == "too-hot: thermal_zone0:cpu had 85.0 degC, more than 80"
    assert time.monotonic() - began < 60
    assert owned(tmp_path) == []


def test_the_speed_is_told(tmp_path: Path) -> None:
    steps: list[Step] = []
    rig.run(tmp_path, rig.Spec({"good": "sleep 0"}, ONCE), steps.append)
    (ended,) = [step for step in steps if (step.name, step.phase) == ("trial", "end")]
    assert ended.detail["generation_tps"] > 0
    assert ended.detail["prefill_tps"] > 0


def test_a_transient_failure_is_tried_again_and_kept(tmp_path: Path) -> None:
    steps: list[Step] = []
    result = rig.run(tmp_path, rig.Spec({"flaky": "signal-once 9"}, ONCE), steps.append)
    assert (result.tally.ok, result.tally.failed) == (1, ())
    folder = result.campaign.folder / "cells/m/as-is/f/host/flaky"
    first, second = read_outcome(folder / "r000.attempt1"), read_outcome(folder / "r000")
    assert first is not None
    assert second is not None
    assert (first.state, first.attempt, second.state, second.attempt) == ("failed", 1, "ok", 2)
    told = [(step.phase, step.detail.get("retry")) for step in steps if step.name == "trial"]
    assert told == [("begin", None), ("fail", True), ("begin", None), ("end", None)]


def test_a_hanging_runner_is_stopped_with_all_its_children(tmp_path: Path) -> None:
    result = rig.run(tmp_path, rig.Spec({"stuck": "hang"}, {**ONCE, "timeout_s": 1}))
    ((_, failure),) = result.tally.failed
    reason = str(failure)
    assert reason == "timeout: stopped after 1 s"
    assert owned(tmp_path) == []


def test_children_that_a_good_runner_leaves_do_not_live_on(tmp_path: Path) -> None:
    result = rig.run(tmp_path, rig.Spec({"messy": "leave-children"}, ONCE))
    assert result.tally.ok == 1
    assert owned(tmp_path) == []


def test_fail_fast_stops_and_a_rerun_goes_on(tmp_path: Path) -> None:
    spec = rig.Spec({"bad": "exit 3", "good": "sleep 0"}, {**ONCE, "order": "as-written"})
    first = rig.run(tmp_path, spec, fail_fast=True)
    assert (first.tally.ok, len(first.tally.failed), first.tally.left) == (0, 1, 1)
    assert first.campaign.document.finished_wall_ns is None
    second = rig.run(tmp_path, spec)
    assert second.campaign.folder == first.campaign.folder
    assert (second.tally.ok, len(second.tally.failed), second.tally.earlier) == (1, 1, 1)


def test_a_finished_campaign_is_not_touched_again(tmp_path: Path) -> None:
    spec = rig.Spec({"good": "sleep 0"}, ONCE)
    first, second = rig.run(tmp_path, spec), rig.run(tmp_path, spec)
    assert first.campaign.folder != second.campaign.folder
    assert not second.campaign.resumed


def test_another_manifest_or_another_artifact_is_another_campaign(tmp_path: Path) -> None:
    spec = rig.Spec({"bad": "exit 3", "good": "sleep 0"}, {**ONCE, "order": "as-written"})
    begun = rig.run(tmp_path, spec, fail_fast=True).campaign.folder
    other = rig.Spec(spec.orders, {**spec.protocol, "seed": 2})
    assert rig.run(tmp_path, other, fail_fast=True).campaign.folder != begun
    runner = tmp_path / "bundle/bin/melt-runner"
    runner.write_text(runner.read_text() + "\n# another build\n")
    assert rig.run(tmp_path, spec, fail_fast=True).campaign.folder != begun


def test_new_begins_afresh(tmp_path: Path) -> None:
    spec = rig.Spec({"bad": "exit 3", "good": "sleep 0"}, {**ONCE, "order": "as-written"})
    begun = rig.run(tmp_path, spec, fail_fast=True).campaign.folder
    assert rig.run(tmp_path, spec, new=True).campaign.folder != begun
    assert rig.run(tmp_path, spec).campaign.folder == begun, "the unfinished one is still there to go on with"


def test_a_damaged_outcome_is_named(tmp_path: Path) -> None:
    spec = rig.Spec({"bad": "exit 3", "good": "sleep 0"}, {**ONCE, "order": "as-written"})
    campaign = rig.run(tmp_path, spec, fail_fast=True).campaign
    path = campaign.folder / "cells/m/as-is/f/host/bad/r000/outcome.json"
    path.write_text("{")
    with pytest.raises(RecordError, match=r"bad/r000/outcome\.json is damaged") as caught:
        rig.run(tmp_path, spec)
    assert "--new" in str(caught.value.hint)


def test_a_damaged_campaign_stops_no_other(tmp_path: Path) -> None:
    broken = tmp_path / "home/records/20200101T000000Z-rig-000000"
    broken.mkdir(parents=True)
    (broken / "campaign.json").write_text("{")
    assert rig.run(tmp_path, rig.Spec({"good": "sleep 0"}, ONCE)).tally.ok == 1


def test_the_folder_holds_everything_and_no_secret(tmp_path: Path) -> None:
    result = rig.run(tmp_path, rig.Spec({"good": "sleep 0"}, {**ONCE, "warmups": 1}))
    folder = result.campaign.folder
    assert {path.name for path in folder.iterdir()} == {
        *("campaign.json", "manifest.yaml", "lock.yaml", "plan.json", "journal.jsonl", "builds", "cells")
    }
    assert (folder / "builds/f-run-any/build.log").read_bytes() == b"built\n"
    trials = {path.name for path in (folder / "cells/m/as-is/f/host/good").iterdir()}
    assert trials == {"w000", "r000"}
    trial = folder / "cells/m/as-is/f/host/good/r000"
    assert {path.name for path in trial.iterdir()} == {
        *("request.json", "events.jsonl", "outcome.json", "clocks.json", "device.json", "stdout.log", "stderr.log")
    }
    device = json.loads((trial / "device.json").read_text())
    assert device["before"]["monotonic_ns"] < device["after"]["monotonic_ns"]
    assert (
        device["facts"]["id"] == json.loads((folder / "campaign.json").read_text())["cells"][0]["params"]["device.id"]
    )
    for path in folder.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path


def test_the_journal_tells_what_happened(tmp_path: Path) -> None:
    result = rig.run(tmp_path, rig.Spec({"good": "sleep 0"}, ONCE))
    told = [(entry["name"], entry["phase"]) for entry in journal.read(result.campaign.folder / JOURNAL)]
    told = [step for step in told if step != ("busy", "note")]  # so may the machine be that runs the tests
    assert told == [("campaign", "begin"), ("trial", "begin"), ("trial", "end"), ("campaign", "end")]


def test_a_profiled_trial_is_recorded_and_never_summarised(tmp_path: Path) -> None:
    spec = rig.Spec({"good": "sleep 0"}, ONCE)
    setup = rig.make_setup(tmp_path, spec)
    manifest = setup.plan.manifest
    manifest = manifest.model_copy(update={"measure": manifest.measure.model_copy(update={"operators": True})})
    result = rig.run_setup(tmp_path, rig.with_manifest(setup, manifest))
    cell = result.campaign.folder / "cells/m/as-is/f/host/good"
    outcome = read_outcome(cell / "p000")
    assert outcome is not None
    assert outcome.warmup
    assert json.loads((cell / "p000/request.json").read_text())["profile"] == "operators"
    assert json.loads((cell / "r000/request.json").read_text())["profile"] == "off"


MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
"""Where control groups of version 1 limit memory."""


@pytest.fixture
def tight_memory() -> Iterator[Path]:
    """A control group with 128 MB of memory, so that a runner is larger than the campaign when none is left."""
    group = MEMORY_GROUPS / f"meltrepro-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(128 << 20))
    except OSError as error:
        pytest.skip(f"needs root and control groups of version 1: {error}")
    yield group
    group.rmdir()


def test_the_out_of_memory_killer_is_recognised(tmp_path: Path, tight_memory: Path) -> None:
    spec = rig.Spec({"hungry": "eat", "modest": "sleep 0"}, {**ONCE, "order": "as-written"})
    join = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    program = [sys.executable, rig.__file__, str(tmp_path), spec.text()]
    campaign = subprocess.run(
        ["/bin/sh", "-c", join, str(tight_memory), *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(rig.__file__).parents[2])},
    )
    answer = json.loads(campaign.stdout.strip().splitlines()[-1])
    (reason,) = answer["failed"]
    assert reason.startswith("out-of-memory: the kernel killed the runner for lack of memory")
    assert answer["ok"] == 1
