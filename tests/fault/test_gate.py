"""`meltrepro gate`: the change of a build is judged beside the build of before, in one campaign."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from meltrepro import errors
from meltrepro.build import toolchain
from meltrepro.cli.app import main
from meltrepro.record.reader import campaign_folders
from tests.fault import project as projects
from tests.fault.project import Project, Refuse, runner_of, small


@pytest.fixture
def measured(equipped: Project) -> Project:
    """A project with a campaign of its own."""
    equipped.spec.write_text(yaml.safe_dump(small("gated", {"chat": "pace-on-paper 10"})))
    assert main(["run", str(equipped.spec), "--no-track", "--quiet"]) == 0
    return equipped


@pytest.fixture
def rebuilt(measured: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Have the next build, by another toolchain, make a runner that takes so many times as long for each token."""

    def plant(slowdown: float) -> None:
        script = projects.SCRIPT.replace("slowdown = 0, 0, 0.0, 1.0", f"slowdown = 0, 0, 0.0, {slowdown}")
        assert script != projects.SCRIPT or slowdown == 1.0
        monkeypatch.setattr(projects, "SCRIPT", script)
        name = f"ninja-{toolchain.SOURCES['ninja'].version}.data/scripts/ninja"
        other = projects.wheel({name: f"another ninja {slowdown}".encode()})
        (measured.mirrored / "ninja.whl").write_bytes(other)
        pinned = toolchain.SOURCES["ninja"].model_copy(update={"digest": projects.sha256(other)})
        monkeypatch.setattr(toolchain, "SOURCES", {**toolchain.SOURCES, "ninja": pinned})

    return plant


def gated(project: Project, folder: Path, *options: str) -> int:
    files = [f"--junit={folder / 'junit.xml'}", f"--markdown={folder / 'summary.md'}", "--metric=generation_tps"]
    return main(["gate", str(project.spec), "--against", project_base(project), "--margin", "0.1", *files, *options])


def project_base(project: Project) -> str:
    return campaign_folders(project.folder / "home" / "records")[0].name


def test_no_change_passes(measured: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gated(measured, tmp_path, "--quiet", "--only=*/chat") == 0
    said = capsys.readouterr()
    assert "m/as-is/llama.cpp/host/chat beside m/as-is/llama.cpp.recorded/host/chat" in said.err
    assert "same      generation_tps" in said.out and "worse" not in said.out
    suites = ET.parse(tmp_path / "junit.xml").getroot()
    assert suites.findall(".//testcase[@name='generation_tps']") and not suites.findall(".//failure")
    assert "| m/as-is/llama.cpp.recorded/host/chat -> m/as-is/llama.cpp/host/chat | generation_tps |" in (
        tmp_path / "summary.md"
    ).read_text(encoding="utf-8")


def test_a_slower_build_fails(
    measured: Project,
    rebuilt: Callable[[float], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rebuilt(1.5)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "github.md"))
    assert gated(measured, tmp_path, "--quiet") == errors.Differs.exit_code
    said = capsys.readouterr()
    assert "worse     generation_tps" in said.out
    assert "something got worse" in said.err and "meltrepro show" in said.err
    failed = ET.parse(tmp_path / "junit.xml").getroot().findall(".//failure/..")
    assert "generation_tps" in {case.attrib["name"] for case in failed}
    for name in ("summary.md", "github.md"):
        assert "**worse**" in (tmp_path / name).read_text(encoding="utf-8")


def test_a_faster_build_is_no_failure(
    measured: Project, rebuilt: Callable[[float], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rebuilt(0.5)
    assert gated(measured, tmp_path, "--quiet", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    gates = {each["metric"]: each["gate"] for each in found["metrics"]}
    assert gates["generation_tps"] == "better" and "worse" not in gates.values()


def test_two_names_of_one_manifest(equipped: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = small("gated", {"fast": "pace-on-paper 10", "slow": "pace-on-paper 15"})
    equipped.spec.write_text(yaml.safe_dump(spec))
    command = ["gate", str(equipped.spec), "--quiet", "--margin", "0.1", "--metric", "generation_tps"]
    assert main([*command, "--against", "fast=slow"]) == errors.Differs.exit_code
    assert main([*command, "--against", "slow=fast"]) == 0
    assert "better    generation_tps" in capsys.readouterr().out
    assert main([*command, "--against", "fast=quick"]) == errors.UsageError.exit_code
    assert "no cell has a part 'quick'" in capsys.readouterr().err


def test_a_setting_that_was_changed_is_told(
    measured: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recorded program then runs with it, too: a verdict is about what was built, not about what was asked."""
    base = project_base(measured)
    assert gated(measured, tmp_path, "--quiet", "--set=protocol.seed=5") == 0
    remark = f"changed since {base}, and both sides ran with today's: protocol.seed 1 -> 5 "
    assert remark in " ".join(capsys.readouterr().out.split())
    for name in ("summary.md", "junit.xml"):
        assert "protocol.seed 1 -" in (tmp_path / name).read_text(encoding="utf-8")
    unchanged = ["gate", str(measured.spec), "--against", base, "--quiet", "--margin", "0.1"]
    assert main(unchanged) == 0
    assert "changed since" not in capsys.readouterr().out


def test_what_has_no_counterpart_is_told_and_fails_strictly(
    measured: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = small("gated", {"chat": "pace-on-paper 10", "new": "pace-on-paper 12"})
    measured.spec.write_text(yaml.safe_dump(more))
    assert gated(measured, tmp_path, "--quiet") == 0
    assert "m/as-is/llama.cpp/host/new: not compared" in capsys.readouterr().out
    assert gated(measured, tmp_path, "--quiet", "--strict") == errors.Inconclusive.exit_code


def test_a_base_that_cannot_run_here(
    measured: Project, rebuilt: Callable[[float], None], refuse: Refuse, tmp_path: Path
) -> None:
    lock = measured.read_lock()
    rebuilt(1.5)
    measured.object(lock.artifacts[runner_of(lock)].digest).unlink()
    found = refuse(errors.PlanError, "gate", measured.spec, "--against", project_base(measured))
    assert "can run beside" in found.message
    found = refuse(errors.UsageError, "gate", measured.spec, "--against", "nothing")
    assert "nothing" in found.message
    found = refuse(errors.UsageError, "gate", measured.spec, "--against", "last", "--metric", "generation_tsp")
    assert "generation_tsp" in found.message and "generation_tps" in found.hint
    found = refuse(
        errors.UsageError, "gate", measured.spec, "--against", "last", "--junit", str(tmp_path / "no" / "x.xml")
    )
    assert "is no folder" in found.message
