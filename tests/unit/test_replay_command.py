"""What `meltrepro replay` changes in a recorded manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro import settings, workflow
from meltrepro.cli.app import main
from meltrepro.cli.replay import announcement, error_of
from meltrepro.errors import Differs, Inconclusive, MeltreproError, PlanError, UsageError
from meltrepro.frameworks.llamacpp.options import Options
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.schema import Manifest
from meltrepro.measure.records import read_campaign
from meltrepro.replay.compare import CellComparison, Comparison
from meltrepro.replay.replay import Replayed, judge
from meltrepro.stats.equivalence import ReplayVerdict
from meltrepro.workflow.replays import Intent, ReplayResult, changes, intend
from tests.fault import rig
from tests.support.campaigns import Cell, build_campaign
from tests.support.manifests import GOOD, load


@pytest.fixture
def recorded(tmp_path: Path) -> Manifest:
    targets = {"desk": {"kind": "host", "threads": 2}, "spare": {"kind": "host", "sandbox": "bare"}}
    return load(tmp_path, GOOD, f"targets={yaml.safe_dump(targets, default_flow_style=True)}".strip()).manifest


def values(overrides: Sequence[str]) -> dict[str, object]:
    return {path: yaml.safe_load(text) for path, _, text in (override.partition("=") for override in overrides)}


def test_nothing_asked_nothing_changed(recorded: Manifest) -> None:
    assert changes(recorded).overrides == []
    assert values(changes(recorded, margin=0.1, maximum=7).overrides) == {"replay.margin": 0.1, "replay.maximum": 7}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("spare", {"kind": "host", "sandbox": "bare"}),
        ("host", {"kind": "host"}),
        ("{kind: host, threads: 4}", {"kind": "host", "threads": 4}),
    ],
)
def test_another_target_stands_under_every_recorded_name(
    recorded: Manifest, target: str, expected: dict[str, object]
) -> None:
    (override,) = changes(recorded, target=target).overrides
    assert "\n" not in override
    assert values([override]) == {"targets": {"desk": expected, "spare": expected}}


def test_a_target_that_is_no_yaml(recorded: Manifest) -> None:
    with pytest.raises(UsageError, match="neither a target of the manifest"):
        changes(recorded, target="{kind: host")


METER = {"file": "power.csv", "time": "t", "columns": {"P": "W"}}


def metered(folder: Path, *overrides: str, **changes: object) -> Manifest:
    """A recorded campaign of a target with a meter and one without."""
    entries = {"desk": {"kind": "host", "meter": {**METER, **changes}}, "spare": {"kind": "host", "threads": 2}}
    text = yaml.safe_dump(entries, default_flow_style=True, width=1000).strip()
    return load(folder, GOOD, f"targets={text}", *overrides).manifest


@pytest.mark.parametrize("target", [None, "desk", "spare", "host", "{kind: host, threads: 4}"])
def test_the_file_of_a_meter_is_not_taken_for_a_measurement_of_today(tmp_path: Path, target: str | None) -> None:
    recorded = metered(tmp_path, "measure.energy=required")
    found = changes(recorded, target=target)
    changed = values(found.overrides)
    assert changed["measure.energy"] == "if-available", "a meter that is not there cannot be required"
    assert "meter" not in str(changed["targets"])
    assert found.unmetered == ["desk"]


def test_energy_that_was_not_asked_for_is_not_asked_for(tmp_path: Path) -> None:
    assert "measure.energy" not in values(changes(metered(tmp_path, "measure.energy=off")).overrides)


def test_a_meter_of_today_is_named_from_here(tmp_path: Path) -> None:
    recorded = metered(tmp_path, "measure.energy=required", clock="host")
    here = "{kind: host, meter: {file: here.csv, time: t, clock: host, columns: {P: W}}}"
    again = values(changes(recorded, target=here).overrides)
    assert again["targets"]["desk"]["meter"]["file"] == str(Path.cwd() / "here.csv")  # type: ignore[index]
    assert "measure.energy" not in again, "it is still required"


@pytest.mark.parametrize("clock", ["", "clock: own, "])
def test_a_clock_of_its_own_needs_the_sync_marks_of_the_record(tmp_path: Path, recorded: Manifest, clock: str) -> None:
    here = f"{{kind: host, meter: {{file: here.csv, time: t, {clock}columns: {{P: W}}}}}}"
    for without in (recorded, metered(tmp_path, clock="host"), metered(tmp_path)):
        with pytest.raises(UsageError, match="the recorded campaign made no sync marks") as caught:
            changes(without, target=here)
        assert caught.value.hint is not None and "clock: host" in caught.value.hint
    marked = metered(tmp_path)
    marked = marked.model_copy(update={"targets": {"desk": marked.targets["desk"]}})
    assert changes(marked, target=here).overrides


@pytest.mark.parametrize(
    ("verdict", "error", "code"),
    [(ReplayVerdict.differs, Differs, 60), (ReplayVerdict.inconclusive, Inconclusive, 61)],
)
def test_each_answer_has_an_exit_code_of_its_own(
    tmp_path: Path, verdict: ReplayVerdict, error: type[MeltreproError], code: int
) -> None:
    """And names its reasons and where the whole comparison is; REPRODUCED is 0."""
    answer = Replayed(verdict, ("cell: load_s: slower",), Comparison("a", "b", (), (), (), 0.05), tmp_path)
    found = error_of(answer, tmp_path / "comparison.html")
    assert isinstance(found, error) and found.exit_code == code
    assert found.message == f"{verdict}:\n  cell: load_s: slower"
    assert str(tmp_path) in (found.hint or "")
    assert error_of(replace(answer, verdict=ReplayVerdict.reproduced), tmp_path) is None


def test_what_is_left_out_or_changed_is_said_before_anything_runs(tmp_path: Path, stranger: Path) -> None:
    found = replace(intent(stranger), left_out={"a/cell": "it never ran"}, unmetered=["desk"], contained=["spare"])
    plan = rig.make_setup(tmp_path, rig.Spec({"one": "sleep 0"}, {})).plan
    cell, meter, sandbox, programs = announcement(found, plan)
    assert cell == "not repeated: a/cell: it never ran"
    assert meter.startswith("without the meter of desk: ")
    assert sandbox.startswith("spare: in a sandbox, not bare")
    assert programs.startswith("runs programs that came with this record") and "in a sandbox without" in programs


def test_a_slip_in_only_is_told_of_the_cells_of_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_campaign(tmp_path, [Cell("q4_0")], repetitions=1)
    assert main(["replay", str(folder), "--only", "*/q4_0/*", "--only", "*/q9_0/*"]) == UsageError.exit_code
    said = capsys.readouterr().err
    assert "--only: no cell matches '*/q9_0/*'" in said
    assert Cell("q4_0").id in said


def test_a_campaign_of_which_nothing_ended_well_cannot_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build_campaign(tmp_path, [Cell("q4_0", failing={0: "timeout: stopped"})], repetitions=1)
    assert main(["replay", str(folder)]) == PlanError.exit_code
    said = capsys.readouterr().err
    assert "can be compared with:" in said
    assert f"{Cell('q4_0').id}: no repetition of it is believed" in said


# -- what a record may not decide -------------------------------------------------------------------------------------


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign whose manifest will name servers of somebody's."""
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    return build_campaign(tmp_path, [Cell("q4_0")], repetitions=2)


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def intent(folder: Path, **asked: Any) -> Intent:
    """What a replay would do."""
    return intend(read_campaign(folder), settings.load(), **asked)


def asked(folder: Path, **asked: Any) -> dict[str, object]:
    """The overrides with which a replay opens its devices."""
    return values(intent(folder, **asked).overrides)


BOARD = {"kind": "linux", "host": "pi@board.example"}


@pytest.mark.parametrize("entry", [BOARD, {"kind": "jetson", "host": "orin"}])
def test_a_record_sends_nobody_to_a_server(
    entry: dict[str, object], stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(stranger, targets={"host": {"kind": "host"}, "board": entry})
    assert main(["replay", str(stranger)]) == UsageError.exit_code
    said = capsys.readouterr().err
    assert f"was measured on board ({entry['host']})" in said
    assert f"meltrepro replay {stranger.name} --target board" in said
    assert asked(stranger, target="board") == {"targets": {"host": entry, "board": entry}}
    assert asked(stranger, target="host") == {"targets": {"host": {"kind": "host"}, "board": {"kind": "host"}}}
    mine = {"kind": "linux", "host": "mine"}
    assert asked(stranger, target="{kind: linux, host: mine}") == {"targets": {"host": mine, "board": mine}}


@pytest.mark.parametrize("kind", ["linux", "jetson", "android", "ios"])
def test_devices_of_the_lab_and_this_machine_need_no_word(kind: str, stranger: Path) -> None:
    rewrite(stranger, targets={"host": {"kind": "host"}, "there": {"kind": kind, "lab": "there"}})
    assert asked(stranger) == {}


def test_a_record_sends_nobody_to_a_mac(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ios = {"mac": "studio.example", "xcode": "26.1 (17B55)", "xcodegen": "2.44.1"}
    rewrite(stranger, frameworks={"llama.cpp": {"release": "2024-02-27", "options": {"ios": ios}}})
    assert main(["replay", str(stranger)]) == UsageError.exit_code
    said = capsys.readouterr().err
    assert "built on the Mac studio.example" in said
    assert "--mac studio.example" in said
    assert asked(stranger, mac="mine") == {'frameworks."llama.cpp".options.ios.mac': "mine"}


def test_a_replay_is_logged_where_the_users_own_campaigns_are(stranger: Path) -> None:
    rewrite(stranger, tracking={"uri": "http://tracking.example", "experiment": "x"})
    assert asked(stranger) == {"tracking": {"experiment": "x", "enabled": True}}


def test_the_overrides_of_a_replay_fit_its_manifest(tmp_path: Path) -> None:
    ios = "{mac: theirs, xcode: '26.1 (17B55)', xcodegen: 2.44.1}"
    text = GOOD.replace("2024-02-27}", f"2024-02-27, options: {{ios: {ios}}}}}") + "tracking: {uri: http://theirs}\n"
    loaded = load(tmp_path, text)
    again = load(tmp_path, text, *changes(loaded.manifest, mac="mine").overrides)
    assert again.manifest.tracking.uri is None
    options = again.manifest.frameworks["llama.cpp"].options
    assert isinstance(options, Options) and options.ios is not None
    assert options.ios.mac == "mine"
    assert manifest_digest(again.manifest) == manifest_digest(loaded.manifest), "the record's lock still fits"


def test_the_verdict_is_preceded_by_what_is_invalid(
    tmp_path: Path, stranger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doubtful = CellComparison("a/cell", (), (), (), (), None, invalid=("first: INVALID(noisy: by 25 %)",))
    comparison = Comparison("a", "b", (doubtful,), (), (), 0.05)
    answer = Replayed(*judge(comparison), comparison, tmp_path)
    result = ReplayResult(answer, intent(stranger), tmp_path / "comparison.html")
    monkeypatch.setattr(workflow, "replay", lambda *_, **__: result)
    assert main(["replay", "a"]) == Inconclusive.exit_code
    *_, doubt, verdict = filter(None, capsys.readouterr().out.splitlines())
    assert doubt == "a/cell: INCONCLUSIVE, for its figures are not believed: first: INVALID(noisy: by 25 %)"
    assert verdict == "INCONCLUSIVE (1 cell compared)"
