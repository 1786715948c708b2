"""Devices that are not there, busy or broken: their cells are skipped and named, and everything else goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro import atomic, workflow
from meltrepro.campaign import trial
from meltrepro.cli.app import main
from meltrepro.errors import (
    DeviceBusy,
    DriverMissing,
    MeltreproError,
    NothingThere,
    PlanError,
    RecordError,
    TargetError,
    TargetLost,
    UsageError,
)
from meltrepro.measure.records import read_campaign
from meltrepro.record.campaign import CAMPAIGN, JOURNAL, LOCK, MANIFEST, PLAN
from meltrepro.record.outcomes import FailureKind, SkipKind
from meltrepro.record.reader import campaign_folders
from meltrepro.stats.equivalence import ReplayVerdict
from meltrepro.targets.device_lock import hold
from tests.fault.project import Project, small
from tests.support.gadgets import World, gadgets


@pytest.fixture
def world() -> Iterator[World]:
    with gadgets() as made:
        yield made


@pytest.fixture
def spec(equipped: Project) -> Path:
    """This machine and two gadgets."""
    return write(equipped.spec, "one", "two")


def write(path: Path, *names: str, host: bool = True, orders: dict[str, str] | None = None, **changes: Any) -> Path:
    targets: dict[str, Any] = {"host": {"kind": "host", "threads": 1, "sandbox": "bare"}} if host else {}
    targets |= {name: {"kind": "gadget", "name": name, "threads": 1} for name in names}
    document = {**small("absent", orders or {"w": "sleep 0"}, targets=targets), **changes}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def run(spec: Path, *more: str) -> int:
    return main(["run", str(spec), "--no-track", *more])


def home(spec: Path) -> Path:
    return spec.parent.parent / "home"


def only_campaign(spec: Path) -> Path:
    (folder,) = campaign_folders(home(spec) / "records")
    return folder


def ended(folder: Path) -> dict[str, int]:
    """Good repetitions by target."""
    campaign = read_campaign(folder)
    campaign.verify()
    return {cell.entry.target: len(cell.repetitions) for cell in campaign.cells}


def waiting(folder: Path) -> dict[str, tuple[SkipKind, str]]:
    """Kind and reason of what was skipped, by target."""
    return {skip.key.target: (skip.kind, skip.reason) for skip in read_campaign(folder).document.skipped}


LOST, REFUSES = TargetLost("it is not attached", hint="plug it in"), TargetError("it does not trust this computer")


@pytest.mark.parametrize(
    ("call", "error", "kind", "said"),
    [
        ("identify", LOST, SkipKind.absent, "it is not attached; plug it in"),
        ("open", LOST, SkipKind.absent, "it is not attached"),
        ("identify", REFUSES, SkipKind.target, "does not trust"),
        ("open", DriverMissing("no library"), SkipKind.driver, "no library"),
        ("open", ImportError("no library"), SkipKind.target, "its driver failed: ImportError: no library"),
        ("identify", KeyError("serial\nno"), SkipKind.target, "its driver failed: KeyError"),
        ("identify", OSError(13, "Permission denied"), SkipKind.target, "Permission denied"),
        ("identify", RecordError("a file of its own is damaged"), SkipKind.target, "a file of its own is damaged"),
        ("stop_strays", LOST, SkipKind.absent, "it is not attached"),
        ("stop_strays", RuntimeError("x"), SkipKind.target, "RuntimeError: x"),
        ("sources", LOST, SkipKind.absent, "it is not attached"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_whatever_is_wrong_with_one_device_the_others_are_measured(
    spec: Path,
    world: World,
    capsys: pytest.CaptureFixture[str],
    call: str,
    error: Exception,
    kind: SkipKind,
    said: str,
) -> None:
    world.faults["one"] = {call: error}
    assert run(spec) == 0
    out, err = capsys.readouterr()
    folder = only_campaign(spec)
    assert ended(folder) == {"host": 2, "two": 2}
    found, reason = waiting(folder)["one"]
    assert found is kind
    assert reason.startswith("target one: ") and said in reason and "\n" not in reason
    assert reason in err and reason in out, "before the first trial, and among the results"
    assert "the cells of this device wait: the same command goes on with them" in err
    steps = map(json.loads, (folder / JOURNAL).read_text().splitlines())
    assert [step["detail"]["error"] for step in steps if step["name"] == "absent"] == [reason]
    assert main(["report", str(folder), "-o", str(spec.parent / "report")]) == 0
    assert "target one: " in (spec.parent / "report/index.html").read_text()


@pytest.mark.parametrize("parallel", [True, False])
def test_several_that_are_missing_are_all_named(
    spec: Path, world: World, capsys: pytest.CaptureFixture[str], parallel: bool
) -> None:
    world.gone("one", TargetLost("unplugged"))
    world.gone("two", TargetError("unauthorized"))
    assert run(spec, "--set", f"protocol.parallel={str(parallel).lower()}") == 0
    err = capsys.readouterr().err
    assert "target one: unplugged" in err and "target two: unauthorized" in err
    assert ended(only_campaign(spec)) == {"host": 2}


def test_where_nothing_is_left_that_is_an_error_of_its_own(
    equipped: Project, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write(equipped.spec, "one", "two", host=False)
    world.gone("one", TargetLost("unplugged", hint="plug it in"))
    world.gone("two", TargetError("unauthorized"))
    assert run(spec) == NothingThere.exit_code
    err = capsys.readouterr().err
    assert "target one: unplugged; plug it in" in err and "target two: unauthorized" in err
    assert "next: " in err
    assert campaign_folders(home(spec) / "records") == []
    for late in ("stop_strays", "sources"):
        world.faults = {"one": {late: TargetLost("gone since")}, "two": {late: TargetLost("gone since")}}
        assert run(spec) == NothingThere.exit_code
    assert campaign_folders(home(spec) / "records") == []


def test_a_busy_device_keeps_no_other_waiting(spec: Path, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with hold("gadget-one", "another"):
        assert run(spec) == 0
        assert waiting(only_campaign(spec))["one"][0] is SkipKind.busy
        assert "another (process" in capsys.readouterr().err
        assert run(spec, "--only", "*/one/*") == DeviceBusy.exit_code
    assert run(spec) == 0
    assert ended(only_campaign(spec)) == {"host": 2, "one": 2, "two": 2}


def test_a_device_that_cannot_be_used_is_free_for_others(spec: Path, world: World) -> None:
    world.faults["one"] = {"stop_strays": TargetLost("gone")}
    free = []

    def look(*_: object) -> None:
        with hold("gadget-one", "another"):
            free.append(True)

    class Looking(dict[str, BaseException]):
        def get(self, key: str, default: Any = None) -> Any:
            return look() if key == "run_trial" else None

    world.faults["two"] = Looking()
    assert run(spec) == 0
    assert free == [True, True]


# -- what comes back ------------------------------------------------------------------------------------------------


def test_a_device_that_is_back_joins_the_campaign(spec: Path, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether the campaign had come to its end or not; and only what is missing is measured."""
    world.gone("one", LOST)
    world.gone("two", LOST)
    assert run(spec) == 0
    first = {path: path.stat().st_mtime_ns for path in only_campaign(spec).rglob("outcome.json")}
    world.back("two")
    capsys.readouterr()
    assert run(spec) == 0
    assert "going on with" in capsys.readouterr().err
    folder = only_campaign(spec)
    assert ended(folder) == {"host": 2, "two": 2}
    assert set(waiting(folder)) == {"one"}
    world.back("one")
    assert run(spec) == 0
    assert ended(folder) == {"host": 2, "one": 2, "two": 2}
    record = read_campaign(folder)
    assert [cell.entry.target for cell in record.cells] == ["host", "one", "two"], "in the manifest's order"
    assert record.finished and not record.document.skipped
    assert {path: path.stat().st_mtime_ns for path in first} == first, "what was measured stays"
    planned = json.loads((folder / PLAN).read_text())
    assert [cell["target"] for cell in planned["cells"]] == ["host", "two", "one"] and planned["skipped"] == []
    assert main(["bundle", "export", str(folder), "-o", str(spec.parent / "x.melt")]) == 0
    assert main(["bundle", "verify", str(spec.parent / "x.melt")]) == 0
    assert run(spec) == 0
    assert len(campaign_folders(home(spec) / "records")) == 2, "nothing is left to do in the first one"


def test_one_that_is_still_missing_begins_nothing_anew(spec: Path, world: World) -> None:
    world.gone("one", LOST)
    assert run(spec) == run(spec) == 0
    folder = only_campaign(spec)
    assert read_campaign(folder).finished
    assert run(spec, "--new") == 0
    assert len(campaign_folders(home(spec) / "records")) == 2


def test_a_campaign_goes_on_without_a_device_that_it_had(spec: Path, world: World) -> None:
    """Interrupted with all of them, resumed with one less: what that one still owes is left, and named."""
    with pytest.MonkeyPatch.context() as patch:
        real, count = trial.run_trial, iter(range(3))

        def interrupted(*args: Any) -> Any:
            if next(count, None) is None:
                raise KeyboardInterrupt
            return real(*args)

        patch.setattr("meltrepro.campaign.runner.run_trial", interrupted)
        assert run(spec, "--set", "protocol.parallel=false") == 130
    begun = campaign_folders(home(spec) / "records")[-1]
    world.gone("two", LOST)
    assert run(spec, "--set", "protocol.parallel=false") == 0
    assert ended(begun)["host"] == ended(begun)["one"] == 2
    record = read_campaign(begun)
    assert not record.finished and ended(begun)["two"] < 2
    world.back("two")
    assert run(spec, "--set", "protocol.parallel=false") == 0
    assert ended(begun) == {"host": 2, "one": 2, "two": 2} and read_campaign(begun).finished


def test_another_device_in_its_place_is_another_campaign(spec: Path, world: World) -> None:
    world.gone("one", LOST)
    assert run(spec) == 0
    world.facts["two"] = {"cores": 1}
    assert run(spec) == 0
    assert len(campaign_folders(home(spec) / "records")) == 1, "the same device, the same request"
    assert run(spec, "--set", "targets.two.threads=2") == 0
    assert len(campaign_folders(home(spec) / "records")) == 2


def test_a_kill_while_a_device_joins_loses_nothing(spec: Path, world: World) -> None:
    world.gone("one", LOST)
    assert run(spec) == 0
    folder = only_campaign(spec)
    before = (folder / CAMPAIGN).read_bytes()
    world.back("one")
    real = atomic.write_bytes
    for cut in (MANIFEST, LOCK, PLAN, CAMPAIGN):

        def killed(path: Path, content: bytes, *, durable: bool = True, cut: str = cut) -> None:
            if path == folder / cut:
                raise SystemExit(cut)
            real(path, content, durable=durable)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr("meltrepro.record.writer.write_bytes", killed)
            workflow.run(spec, track=False)
        assert (folder / CAMPAIGN).read_bytes() == before
    assert workflow.run(spec, track=False).tally.left == 0
    assert ended(folder) == {"host": 2, "one": 2, "two": 2}


@pytest.mark.parametrize("name", [MANIFEST, LOCK, PLAN])
def test_what_was_changed_is_not_sealed_anew(spec: Path, world: World, name: str) -> None:
    world.gone("one", LOST)
    assert run(spec) == 0
    path = only_campaign(spec) / name
    path.write_bytes(path.read_bytes().replace(b"absent", b"errant").replace(b"recipes:", b"recipes:  "))
    world.back("one")
    with pytest.raises(MeltreproError, match="was changed after it was recorded"):
        workflow.run(spec, track=False)


# -- what is not touched --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["plan"], ["build"], ["run", "--no-track"]])
def test_only_touches_no_device_of_other_cells(spec: Path, world: World, command: list[str]) -> None:
    name, *more = command
    assert main([name, str(spec), "--only", "*/two/*", *more]) == 0
    assert {gadget for gadget, _ in world.touched} == {"two"}
    world.touched.clear()
    assert main([name, str(spec), "--only", "*/host/*", *more]) == 0
    assert main([name, str(spec), "--only", "*/nobody/*", *more]) == UsageError.exit_code
    assert world.touched == []


def test_a_meter_of_a_device_that_is_not_measured_need_not_be_there(equipped: Project, world: World) -> None:
    spec = write(equipped.spec, "one")
    document = yaml.safe_load(spec.read_text())
    document["targets"]["one"]["meter"] = {"file": "m.csv", "time": "t", "columns": {"P": "W"}}
    spec.write_text(yaml.safe_dump(document))
    assert run(spec) == 3
    world.gone("one", LOST)
    assert run(spec) == 0
    world.back("one")
    assert run(spec, "--only", "*/host/*") == 0


# -- lost on the way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", ["true", "false"])
@pytest.mark.parametrize("call", ["deploy", "state", "run_trial"])
@pytest.mark.parametrize("error", [TargetLost("gone"), ValueError("garbled")], ids=["lost", "broken"])
def test_a_device_that_is_lost_on_the_way_ends_its_own_trials(
    spec: Path, world: World, capsys: pytest.CaptureFixture[str], call: str, error: Exception, parallel: str
) -> None:
    world.faults["one"] = {call: error}
    assert run(spec, "--set", f"protocol.parallel={parallel}", "--set", "protocol.retries=0") == 33
    assert str(error) in capsys.readouterr().err
    folder = only_campaign(spec)
    assert ended(folder) == {"host": 2, "one": 0, "two": 2}
    (cell,) = (cell for cell in read_campaign(folder).cells if cell.entry.target == "one")
    failed = [trial.outcome.failure for trial in cell.trials]
    assert len(failed) == 2 and all(each is not None and each.kind is FailureKind.target for each in failed)


# -- planning without a device ------------------------------------------------------------------------------------------


def planned(spec: Path, *more: str) -> workflow.Planned:
    return workflow.plan(spec, overrides=more)


def remarks(made: workflow.Planned) -> list[str]:
    """What a plan says of its devices."""
    return [warning for warning in made.plan.warnings if warning.startswith("target ")]


def test_plans_locks_and_builds_go_on_with_what_was_found(
    spec: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    there = planned(spec).plan
    world.gone("one", LOST)
    assert planned(spec).plan.cells == there.cells
    assert main(["plan", str(spec)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "planned with" in line)
    assert line.startswith("target one: it is not attached; plug it in; planned with what was found on 20")
    assert "Gadget one" in line
    assert main(["plan", "--json", str(spec)]) == 0
    devices = {each["target"]: each for each in json.loads(capsys.readouterr().out)["devices"]}
    assert [devices[name]["origin"] for name in ("host", "one", "two")] == ["asked", "remembered", "asked"]
    assert devices["one"]["found_wall_ns"] > 0 and devices["one"]["kind"] == "absent"
    assert main(["lock", str(spec)]) == 0
    assert "goes on with what was found on" in capsys.readouterr().err
    assert main(["build", str(spec)]) == 0
    assert main(["verify", "--no-rebuild", str(spec)]) == 0
    world.back("one")
    assert run(spec, "--locked") == 0, "the lock holds for the device itself"


ASSUME = "targets.one.assume={arch: aarch64, features: [asimd]}"


def test_plans_locks_and_builds_go_on_with_what_is_assumed(
    equipped: Project, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write(equipped.spec, "one", host=False)
    world.gone("one", LOST)
    nothing = planned(spec)
    assert nothing.plan.cells == ()
    (skip,) = nothing.plan.skipped
    assert skip.kind is SkipKind.absent and "targets.one.assume" in skip.reason
    assert main(["plan", str(spec)]) == main(["build", str(spec)]) == main(["lock", str(spec)]) == 0
    capsys.readouterr()
    assert [cell.variant.name for cell in planned(spec, ASSUME).plan.cells] == ["armv8_a"]
    assert main(["plan", str(spec), "--set", ASSUME]) == 0
    assert "planned with what the manifest assumes: aarch64, asimd" in capsys.readouterr().out
    assert main(["build", str(spec), "--set", ASSUME]) == 0
    assert run(spec, "--set", ASSUME) == NothingThere.exit_code, "an assumption is not measured"
    world.back("one")
    world.facts["one"] = {"arch": "aarch64", "features": frozenset({"asimd", "fp"})}
    assert main(["build", str(spec), "--locked"]) == 0, "the same variant, the same lock"
    assert remarks(planned(spec, ASSUME)) == []


def test_a_device_that_is_another_than_assumed_is_taken_as_it_is(
    equipped: Project, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write(equipped.spec, "one", host=False)
    world.facts["one"] = {"arch": "aarch64", "features": frozenset({"asimd"})}
    better = "targets.one.assume={arch: aarch64, features: [asimd, asimddp, asimdhp]}"
    there = planned(spec, better)
    assert [cell.variant.name for cell in there.plan.cells] == ["armv8_a"]
    (warning,) = remarks(there)
    assert warning == (
        "target one: the device lacks asimddp, asimdhp; the manifest assumes aarch64 with asimd, asimddp, asimdhp"
    )
    assert main(["build", str(spec), "--set", better]) == 0
    assert "the device lacks asimddp" in capsys.readouterr().err
    world.gone("one", LOST)
    away = planned(spec, better)
    assert [cell.variant.name for cell in away.plan.cells] == ["armv8_2"], (
        "what is written wins over what is remembered"
    )
    assert "lacks asimddp, asimdhp" in remarks(away)[0] and "the device of 20" in remarks(away)[0]


def test_what_is_remembered_belongs_to_the_way_to_a_device(spec: Path, world: World) -> None:
    planned(spec)
    world.gone("one", LOST)
    assert len(planned(spec).plan.cells) == 3
    world.gone("other", LOST)
    elsewhere = planned(spec, "targets.one.name=other")
    assert [skip.kind for skip in elsewhere.plan.skipped] == [SkipKind.absent]
    for path in (home(spec) / "devices").rglob("*.json"):
        path.write_text('{"v": 1, "kind": "gadget"}')
    assert len(planned(spec).plan.cells) == 2, "what is damaged is as good as forgotten"


def test_a_home_that_cannot_be_written_stops_no_plan(spec: Path, world: World) -> None:
    home(spec).mkdir(exist_ok=True)
    (home(spec) / "devices").write_text("in the way")
    assert len(planned(spec).plan.cells) == 3


@pytest.mark.parametrize(
    ("assume", "said"),
    [
        (
            "{arch: aarch46}",
            "targets.one.assume.arch: unknown machine of gadget devices 'aarch46' (did you mean 'aarch64'?)",
        ),
        ("{arch: z80}", "(known: aarch64, x86_64)"),
        ("{arch: aarch64, features: [asimd, asimdp]}", "features[1]: unknown CPU feature of aarch64 'asimdp'"),
        ("{arch: aarch64, features: [avx2]}", "unknown CPU feature of aarch64 'avx2'"),
        ("{arch: x86_64, features: [asimd]}", "unknown CPU feature of x86_64 'asimd'"),
        ("{features: [asimd]}", "the key 'arch' is missing"),
        ("aarch64", "expected a mapping"),
        ("{arch: aarch64, feature: [asimd]}", "did you mean 'features'?"),
    ],
)
def test_an_assumption_is_validated(
    spec: Path, world: World, capsys: pytest.CaptureFixture[str], assume: str, said: str
) -> None:
    assert main(["validate", str(spec), "--set", f"targets.one.assume={assume}"]) == 3
    assert said in capsys.readouterr().err
    assert world.touched == []


def test_what_is_assumed_makes_no_other_campaign(spec: Path, world: World) -> None:
    world.gone("one", LOST)
    assert run(spec) == 0
    world.back("one")
    assert run(spec, "--set", ASSUME) == 0
    assert ended(only_campaign(spec)) == {"host": 2, "one": 2, "two": 2}


def test_a_replay_says_what_it_could_not_repeat(spec: Path, world: World) -> None:
    assert run(spec) == 0
    folder = only_campaign(spec)
    world.gone("one", LOST)
    answer = workflow.replay(folder, maximum=5, track=False).answer
    assert "m/as-is/llama.cpp/one/w: not repeated" in answer.reasons
    assert answer.verdict is not ReplayVerdict.reproduced
    assert {cell.cell.split("/")[3] for cell in answer.comparison.cells} == {"host", "two"}
    with pytest.raises(NothingThere, match="target one: it is not attached"):
        workflow.replay(folder, only=["*/one/*"], track=False)


def test_a_plan_that_can_never_run_is_refused_all_the_same(spec: Path, world: World) -> None:
    world.gone("one", LOST)
    huge = ["--set", "models.m.parameters=1e15", "--set", "models.m.quantizations=[f16]"]
    assert main(["plan", str(spec), "--only", "*/host/*", *huge]) == PlanError.exit_code
    assert main(["plan", str(spec), "--only", "*/one/*", *huge]) == 0, "nobody knows yet"


def test_what_joins_later_is_logged_too(spec: Path, world: World) -> None:
    world.gone("one", LOST)
    first = workflow.run(spec)
    assert first.logged is not None and first.logged.problem is None
    world.back("one")
    second = workflow.run(spec)
    assert second.folder == first.folder
    assert second.logged is not None and second.logged.problem is None
