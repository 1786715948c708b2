"""Studies as plug-ins: a package of somebody else adds one, and a manifest belongs to it by naming it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from meltrepro.cli import app
from meltrepro.errors import ManifestError
from meltrepro.manifest.loader import load_manifest
from meltrepro.measure.records import read_campaign
from meltrepro.registry import STUDIES
from meltrepro.report.content import assemble, sections
from meltrepro.report.files import report_files
from tests.support.campaigns import Cell, build_campaign

CODE = """
from meltrepro.report.values import Column, Section, Table
from meltrepro.studies.base import Decided


class Fast:
    name = "fast"

    def decide(self, results, *, virtual_only=False):
        held = all(cell.metrics["generation_tps"].median > 30 for cell in results.cells)
        said = f"{len(results.cells)} cells, " + ("fast" if held else "slow")
        return Decided(said, said + "\\n", "{}\\n")

    def sections(self, results):
        rows = tuple((cell.cell,) for cell in results.cells)
        table = Table("fast-cells", "Fast cells", (Column("cell", "cell"),), rows)
        return (Section("fast", "Is it fast?", "As somebody else's study has it.", (), (table,)),)


STUDY = Fast()
"""
MANIFEST = {
    "meltrepro": 1,
    "name": "n",
    "models": {"m": {"source": {"file": "m.gguf"}, "chat_template": "plain", "quantizations": ["as-is"]}},
    "frameworks": {"llama.cpp": {"release": "2024-02-27"}},
    "workloads": {"chat": {"conversations": [["Hi"]]}},
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package, as pip would leave it."""
    site = tmp_path / "site"
    info = site / "somebodys_study-1.dist-info"
    info.mkdir(parents=True)
    (site / "somebodys_study.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-study\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[meltrepro.studies]\nfast = somebodys_study:STUDY\n")
    monkeypatch.syspath_prepend(str(site))
    STUDIES.__dict__.pop("_points", None)
    yield
    STUDIES.__dict__.pop("_points", None)


@pytest.mark.usefixtures("installed")
def test_its_claims_stand_after_the_results_of_its_campaigns(tmp_path: Path) -> None:
    mine = read_campaign(build_campaign(tmp_path, [Cell()], study="fast"))
    other = read_campaign(build_campaign(tmp_path, [Cell("q4_0")], number=1, name="other"))
    made = assemble([mine, other])
    ids = [part.id for part in sections(made)]
    assert ids.index("memory") < ids.index("fast") < ids.index("energy"), "before what nobody measured"
    files = report_files(made)
    assert b"Is it fast?" in files["index.html"]
    assert files["tables/fast-cells.csv"].splitlines()[1:] == [mine.cells[0].id.encode() + b","]


@pytest.mark.usefixtures("installed")
def test_its_claims_are_decided_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    build_campaign(tmp_path, [Cell()], study="fast")
    assert app.main(["findings"]) == 0
    assert capsys.readouterr().out == "1 cells, fast\n"
    assert app.main(["findings", "--study", "melt"]) == 0
    assert "F22" in capsys.readouterr().out


def test_a_manifest_of_an_unknown_study_is_refused_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "n.yaml"
    path.write_text(yaml.safe_dump({**MANIFEST, "study": "mlet"}, sort_keys=False))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert "n.yaml:" in caught.value.message
    assert "there is no study 'mlet'" in caught.value.message and "did you mean 'melt'?" in caught.value.message


@pytest.mark.usefixtures("installed")
def test_a_manifest_may_name_one_that_is_installed(tmp_path: Path) -> None:
    path = tmp_path / "n.yaml"
    path.write_text(yaml.safe_dump({**MANIFEST, "study": "fast"}))
    assert load_manifest(path).manifest.study == "fast"
