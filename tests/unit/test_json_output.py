"""`--json`: every command has it, its schemas are published, and what it prints is what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meltrepro.cli import app
from meltrepro.cli.json_output import types
from meltrepro.cli.schema import ENTRY, MANIFEST, schema_text
from tests.support.campaigns import Cell, build_campaign
from tests.support.json_output import SCHEMAS, Said, checked, schema

ROOT = SCHEMAS.parents[1]
WITHOUT = {"schema", "devices-sudoers", "init", *(f"lab-{each}" for each in ("head", "node", "reserve", "release"))}
"""Commands that print or write a file as it stands (of `init` there may be none), run until they are stopped, or have nothing to tell."""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its words joined with `-`, groups that do something themselves too."""
    for name in app.COMMANDS:
        command = app.load_command(name)
        inner = getattr(command, "commands", {})
        if not inner or command.invoke_without_command:
            yield name, command
        yield from ((f"{name}-{each}", one) for each, one in inner.items())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def said(home: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    return checked(capsys)


def test_every_command_has_it_and_a_schema() -> None:
    found = dict(commands())
    assert {name for name, one in found.items() if any("--json" in each.opts for each in one.params)} == (
        found.keys() - WITHOUT
    )
    tables = (f"export-{table}" for table in ("metrics", "trials", "tokens"))
    more = {"error", "lab-hosts", "show-list", "study-plans", "tune-plan", *tables}
    assert types().keys() == found.keys() - WITHOUT - {"export"} | more


@pytest.mark.parametrize("name", sorted(types()))
def test_the_schemas_that_are_checked_in_are_current(name: str) -> None:
    path = SCHEMAS / f"{name}.schema.json"
    assert path.read_text(encoding="utf-8") == schema_text(name), (
        f"write it anew with: meltrepro schema {name} -o docs/schema/{name}.schema.json"
    )
    assert json.loads(schema_text(name))["$id"] == f"urn:meltrepro:output:{name}:1"


def test_there_are_no_others() -> None:
    assert {path.name.removesuffix(".schema.json") for path in SCHEMAS.iterdir()} == {MANIFEST, ENTRY, *types()}


def test_a_schema_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["schema", "validat"]) == 2
    assert "validate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error", "code", "said"),
    [
        (["validate", "bad.yaml"], "ManifestError", 3, "unknown key 'nam'"),
        (["plan", "bad.yaml"], "ManifestError", 3, "unknown key 'nam'"),
        (["show", "nothing"], "UsageError", 2, "there is no campaign"),
        (["show", "--nope"], "UsageError", 2, "No such option: --nope"),
    ],
)
def test_an_error_is_one_line_on_stderr(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str, code: int, said: str
) -> None:
    Path("bad.yaml").write_text("meltrepro: 1\nnam: x\n")
    assert app.main([*arguments, "--json"]) == code
    found = json.loads(capsys.readouterr().err.splitlines()[-1])
    schema("error").validate(found)
    assert (found["error"], found["exit_code"]) == (error, code)
    assert said in found["message"]
    places = {(each["file"], each["line"]) for each in found["problems"]}
    assert places <= {("bad.yaml", 1), ("bad.yaml", 2)} and bool(places) == (code == 3)


def test_a_fault_of_ours_is_one_too(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "load_command", lambda name: 1 / 0)
    assert app.main(["show", "--json"]) == app.CRASH_EXIT
    found = json.loads(capsys.readouterr().err)
    schema("error").validate(found)
    assert (found["error"], found["exit_code"]) == ("Crash", app.CRASH_EXIT)
    assert "division by zero" in found["message"] and str(home) in found["hint"]


def test_manifests(said: Said, tmp_path: Path) -> None:
    (good,) = said("validate", "validate", ROOT / "specs" / "quickstart.yaml")["good"]
    assert good["name"] == "quickstart"
    (tmp_path / "bad.yaml").write_text("meltrepro: 1\nnam: x\n")
    found = said("validate", "validate", tmp_path / "bad.yaml", code=3)
    assert found["good"] == []
    assert any("nam" in problem["field"] + problem["message"] for problem in found["problems"])


def test_results(said: Said, home: Path) -> None:
    first = build_campaign(home, [Cell("q8_0", 40, failing={1: "crashed"}), Cell("q4_0", 55)], study="melt")
    second = build_campaign(home, [Cell("q8_0", 44)], number=1, study="melt")
    shown = said("show", "show", first.name)
    assert [cell["validity"] for cell in shown["cells"]] == ["VALID", "VALID"]
    assert shown["cells"][0]["exclusions"]
    speeds = [one["median"] for cell in shown["cells"] for one in cell["metrics"] if one["metric"] == "generation_tps"]
    assert speeds == [pytest.approx(40, rel=0.2), pytest.approx(55, rel=0.2)]
    assert [one["cells"] for one in said("show-list", "show", "--list")] == [2, 1]
    for table in ("metrics", "trials", "tokens"):
        assert said(f"export-{table}", "export", "last", "--table", table)
    (compared,) = said("compare", "compare", first, second, "--no-track")
    assert compared["cells"][0]["metrics"]
    assert said("findings", "findings", "last")["campaigns"] == {second.name: "synthetic"}
    assert said("report", "report", "last", "--no-track")["campaigns"] == [second.name]
    assert said("trace", "trace", "last", "-o", home / "traces")


def test_the_machine(said: Said) -> None:
    assert said("gc", "gc", "--dry-run")["dry_run"] is True
    assert said("doctor", "doctor", code=None)
    assert isinstance(said("devices", "devices"), list)
    assert said("lab-status", "lab", "status")["up"] is False
    assert said("lab-down", "lab", "down") == {"was_up": False}
    assert said("sync", "sync")["campaigns"] == 0


def test_what_is_not_finite_is_null(said: Said, home: Path) -> None:
    folders = [build_campaign(home, [Cell()], repetitions=1, number=number) for number in (0, 1)]
    decisions: list[dict[str, Any]] = [
        metric["decision"]
        for cell in said("compare", "compare", *folders, "--no-track")[0]["cells"]
        for metric in cell["metrics"]
        if metric["decision"]
    ]
    assert {decision["high"] for decision in decisions} == {None}
