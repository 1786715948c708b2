"""`meltrepro init`: the quickstart in a folder of one's own, and pages that errors name."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro import resources
from meltrepro.cli.app import main
from meltrepro.errors import UsageError
from tests.unit.test_packaging import ROOT


def test_what_it_writes_is_the_quickstart_with_all_that_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my study"
    for _ in range(2):  # what is there already and the same is no mistake
        assert main(["init", str(folder)]) == 0
    assert f"run '{folder}/quickstart.yaml'" in capsys.readouterr().out
    assert main(["validate", str(folder / "quickstart.yaml")]) == 0
    lock = "quickstart.lock.yaml"
    assert (folder / lock).read_bytes() == (ROOT / "specs" / lock).read_bytes()
    assert not (folder / "docs").exists() and "docs/" not in (folder / "quickstart.yaml").read_text()


def test_nothing_of_anybodys_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "quickstart.yaml").write_text("mine")
    assert main(["init", str(tmp_path)]) == UsageError.exit_code
    assert "is there already" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_page_that_an_error_names_can_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "see docs/devices/ios.md, section Tunnels; not my/docs/devices/ios.md nor docs/none.md"
    monkeypatch.chdir(ROOT)
    assert resources.with_pages(said) == said
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "devices" / "ios.md"
    assert resources.with_pages(said) == said.replace("see docs/devices/ios.md", f"see {page}")
