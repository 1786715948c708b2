"""`meltrepro run` from its arguments to its exit code; only building is left out, the runner is the rig's script."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro import workflow
from meltrepro.build.model import Recipe
from meltrepro.cli.app import main
from meltrepro.errors import BuildError, DeviceBusy, Inconclusive, NothingToPack, TrackingError, TrialFailed, UsageError
from meltrepro.measure.records import read_campaign
from meltrepro.record.reader import campaign_folders
from meltrepro.replay.control import twin_of
from meltrepro.targets.base import DeviceFacts
from meltrepro.targets.device_lock import hold
from meltrepro.targets.host.target import HostTarget, host_id
from meltrepro.track.places import Place
from tests.fault.project import Project, SmallEngine, small


def write(equipped: Project, **orders: str) -> Path:
    """A manifest of a workload per order."""
    equipped.spec.write_text(yaml.safe_dump(small("command", orders)))
    return equipped.spec


def test_all_goes_well(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped, one="sleep 0", two="sleep 0")
    assert main(["run", str(spec), "--no-track"]) == 0
    out, err = capsys.readouterr()
    assert "one   2" in out
    last = out.splitlines()[-1]
    assert last.startswith("2 cells: ") and "; records in " in last, "what became of it all comes last"
    assert "findings" not in out, "the manifest belongs to no study"
    assert "\nnext:\n" in out and "report last -o report" in out
    assert "trial 4/4 m/as-is/llama.cpp/host/two r001" in err
    (folder,) = campaign_folders(equipped.folder / "home/records")
    assert read_campaign(folder).finished


def test_a_device_is_opened_and_identified_once(equipped: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[HostTarget] = []
    identify = HostTarget.identify

    def identified(self: HostTarget) -> DeviceFacts:
        asked.append(self)
        return identify(self)

    monkeypatch.setattr(HostTarget, "identify", identified)
    assert main(["run", str(write(equipped, one="sleep 0")), "--no-track"]) == 0
    assert len(asked) == 1


def test_some_trials_fail(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped, bad="exit 3", good="sleep 0")
    assert main(["run", str(spec), "--no-track", "--quiet"]) == TrialFailed.exit_code
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert ["bad", "0", "of", "2"] in [row[:4] for row in rows]
    assert ["good", "2"] in [row[:2] for row in rows], "everything else went on"
    assert "next:" not in out
    assert (
        "2 trials failed:\n  m/as-is/llama.cpp/host/bad r000: runner-error: exit status 3, the model cannot be loaded: "
        "broken: as ordered ?[31m\n" in err
    )
    assert "trial 1/4" not in err


def test_fail_fast_then_go_on(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped, bad="exit 3", good="sleep 0")
    assert main(["run", str(spec), "--no-track", "--fail-fast"]) == TrialFailed.exit_code
    assert "3 trials were not run; the same command goes on" in capsys.readouterr().err
    assert main(["run", str(spec), "--no-track"]) == TrialFailed.exit_code
    assert "going on with" in capsys.readouterr().err
    assert len(campaign_folders(equipped.folder / "home/records")) == 1


def test_a_campaign_without_a_result_is_not_packed(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec, bundle = write(equipped, bad="exit 3"), equipped.folder / "new.melt"
    assert main(["run", str(spec), "--no-track", "--quiet"]) == TrialFailed.exit_code
    capsys.readouterr()
    assert main(["bundle", "export", "last", "-o", str(bundle)]) == NothingToPack.exit_code
    assert "of 2 trials that ended none ended well" in capsys.readouterr().err
    assert not bundle.exists()


def test_a_busy_device(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped, good="sleep 0")
    with hold(host_id(), "another"):
        assert main(["run", str(spec), "--no-track"]) == DeviceBusy.exit_code
    err = capsys.readouterr().err
    assert "another (process" in err and "--wait" in err
    assert campaign_folders(equipped.folder / "home/records") == []


def test_a_busy_device_is_waited_for(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped, good="sleep 0")
    with ExitStack() as other:
        other.enter_context(hold(host_id(), "another"))
        assert main(["run", str(spec), "--no-track", "--wait-at-most", "0.1s"]) == DeviceBusy.exit_code
        assert "host: waiting for another (process" in capsys.readouterr().err
        release = threading.Timer(0.1, other.pop_all().close)
        release.start()
        assert main(["run", str(spec), "--no-track", "--wait"]) == 0
        release.join()
    assert main(["run", str(spec), "--wait-at-most", "soon"]) == UsageError.exit_code


def test_a_dead_tracking_server_costs_nothing(
    equipped: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TrackingError("nobody answers")

    spec = write(equipped, good="sleep 0")
    monkeypatch.setattr("meltrepro.track.mlflow_tracker.sync", refuse)
    assert main(["run", str(spec)]) == 0
    out, err = capsys.readouterr()
    assert "good" in out
    assert "not logged to MLflow: nobody answers" in err
    assert "meltrepro sync" in err


def test_a_server_that_only_the_manifest_names(
    equipped: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is logged to without the user's login, and its debts are paid to it by name."""
    places: list[Place] = []

    def refuse(_: Path, place: Place, *_rest: object, **__: object) -> None:
        places.append(place)
        raise TrackingError("nobody answers")

    spec = write(equipped, good="sleep 0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("meltrepro.track.mlflow_tracker.sync", refuse)
    assert main(["run", str(spec), "--set", "tracking.uri=https://me:hunter2@tracking.example/?token=hunter2"]) == 0
    said = capsys.readouterr().err
    assert "only the manifest names https://tracking.example/: your login for MLflow is not sent there" in said
    assert "with: MLFLOW_TRACKING_URI=https://tracking.example/ meltrepro sync 20" in said
    assert "hunter2" not in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking.example")
    assert main(["run", str(spec), "--new"]) == 0
    assert "only the manifest" not in capsys.readouterr().err
    assert [place.trusted for place in places] == [False, True]


def test_an_interrupt_while_logging_loses_nothing(
    equipped: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    spec = write(equipped, good="sleep 0")
    monkeypatch.setattr("meltrepro.track.mlflow_tracker.sync", interrupted)
    assert main(["run", str(spec)]) == 130
    assert "the records are complete" in capsys.readouterr().err


def test_nothing_to_run(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped, good="sleep 0")
    assert main(["run", str(spec), "--set", "models.m.context=16"]) == 4
    assert "needs a context of 64 tokens, model m has 16" in capsys.readouterr().err


def test_a_bundle_without_its_runner_is_a_build_that_failed(
    equipped: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write(equipped, one="sleep 0")
    build = SmallEngine.build

    def forgetful(self: SmallEngine, recipe: Recipe, out: Path, *args: Any, **kwargs: Any) -> Mapping[str, str]:
        executed = build(self, recipe, out, *args, **kwargs)
        for program in out.glob("bin/melt-runner"):
            program.rename(program.with_name("main"))
        return executed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SmallEngine, "build", forgetful)
        assert main(["build", str(spec)]) == BuildError.exit_code
        assert "left no runner: expected bin/melt-runner or " in capsys.readouterr().err
    assert main(["build", str(spec)]) == 0, "nothing of it was kept"


def test_a_plan_says_build_where_todays_recipe_is_another(
    equipped: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the lock names: what `build` does follows from the recipe."""
    spec = write(equipped, one="sleep 0")

    def states() -> set[str]:
        assert main(["plan", str(spec)]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split()[-1] for line in lines if "/run/" in line}

    assert states() == {"build"}
    assert main(["build", str(spec)]) == 0
    capsys.readouterr()
    assert states() == {"reuse"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meltrepro.build.toolchain.identity", lambda: "0" * 64)
        assert states() == {"build"}
        assert not any("/run/" in name for name in workflow.build(spec).built.reused)
        assert states() == {"reuse"}


def test_options_are_an_axis(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells of one build with other options: in records, resumed campaigns, comparisons, reports and replays."""
    options = {"kv_type": ["f16", "q8_0"], "flash_attention": "on"}
    entries = {"llama.cpp": {"release": "2026-10-01", "options": options}}
    equipped.spec.write_text(yaml.safe_dump(small("axes", {"one": "sleep 0"}, frameworks=entries)))
    assert main(["run", str(equipped.spec), "--no-track", "--quiet", "--only", "*kv_type=q8_0*"]) == 0
    assert main(["run", str(equipped.spec), "--no-track", "--quiet"]) == 0
    (whole,) = [
        found for found in campaign_folders(equipped.folder / "home/records") if len(read_campaign(found).cells) == 2
    ]
    record = read_campaign(whole)
    names = [f"m/as-is/llama.cpp+kv_type={kv}/host/one" for kv in ("f16", "q8_0")]
    assert [cell.id for cell in record.cells] == names
    for cell, kv in zip(record.cells, ("f16", "q8_0"), strict=True):
        assert (cell.entry.params["kv_type"], cell.entry.params["flash_attention"]) == (kv, "on")
        assert len(cell.believed) == 2 and (whole / "cells" / cell.id / "r000/outcome.json").is_file()
    assert len({cell.entry.bundle_digest for cell in record.cells}) == 1
    assert len([name for name in equipped.read_lock().artifacts if "/run/" in name]) == 1
    capsys.readouterr()
    assert main(["show", record.id]) == 0
    assert "llama.cpp+kv_type=q8_0" in capsys.readouterr().out
    assert main(["report", record.id, "-o", str(equipped.folder / "report")]) == 0
    assert "llama.cpp+kv_type=q8_0" in (equipped.folder / "report/index.html").read_text()
    replayed = main(["replay", record.id, "--no-track", "--maximum", "5", "--only", "*kv_type=q8_0*"])
    assert replayed in (0, Inconclusive.exit_code), "its speeds are as they come"
    (again,) = [found for found in campaign_folders(equipped.folder / "home/records") if found.name > record.id]
    assert [cell.id for cell in read_campaign(again).cells] == [names[1], twin_of(names[1])]
    assert read_campaign(again).cells[0].entry.params["kv_type"] == "q8_0"
