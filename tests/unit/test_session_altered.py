"""A lock belongs to its manifest as it is written: what `--set` changes for one command is not written into it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meltrepro.cli import app

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
