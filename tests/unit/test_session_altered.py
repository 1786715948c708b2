"""A lock belongs to its manifest as it is written: what `--set` changes for one command is not written into it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meltrepro.cli import app
from meltrepro.steps import Step
from meltrepro.workflow.session import open_session

SPECS = Path(__file__).parents[2] / "specs"
OTHER = "--set=models.smollm2-135m.quantizations=[q4_0]"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    shutil.copytree(SPECS, tmp_path / "specs")
    return tmp_path / "specs" / "quickstart.yaml"


def test_a_lock_is_not_written_for_what_set_changes(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = spec.with_name("quickstart.lock.yaml").read_text()
    assert app.main(["lock", str(spec), OTHER]) == 2
    assert "change the manifest itself" in capsys.readouterr().err
    assert spec.with_name("quickstart.lock.yaml").read_text() == before


def test_a_stale_lock_is_explained_by_set(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["verify", str(spec), OTHER, "--no-rebuild"]) == 7
    assert "--set changes what is pinned" in capsys.readouterr().err


def test_a_command_says_what_is_written_as_version_0_1_had_it(spec: Path) -> None:
    steps: list[Step] = []
    new = spec.read_text()
    old = new.replace('{release: "2024-02-27"}', '{release: "2024-02-27", mmap: false}')
    assert old != new
    spec.write_text(old)
    with open_session(spec, sink=steps.append) as session:
        assert [cell.options["mmap"] for cell in session.plan.cells] == [False] * len(session.plan.cells)
        (said,) = [step.subject for step in steps if step.name == "warning"]
        assert said in session.plan.warnings
    assert "frameworks.llama.cpp.mmap stands in frameworks.llama.cpp.options.mmap now" in said
