"""Releases as an axis: what is pinned of them, and what becomes of one that cannot be had or built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from meltrepro import workflow
from meltrepro.build.log import first_error
from meltrepro.build.model import Recipe
from meltrepro.build.pins import Pins
from meltrepro.cli.app import main
from meltrepro.errors import BuildError, SourceError
from meltrepro.history.trends import build_history
from meltrepro.manifest.lock import LockedSource
from meltrepro.manifest.sources import PypiSource, Source
from meltrepro.measure.records import read_campaign
from meltrepro.record.outcomes import SkipKind
from meltrepro.record.reader import campaign_folders
from meltrepro.steps import Sink
from tests.fault.project import FILES, MIRRORS, Project, SmallEngine, sha256, small

VERSIONS = ("0.3.30", "0.3.31")
ERROR = "engine.cpp:7:3: error: no member named 'n_ubatch'"


@pytest.fixture
def project(equipped: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A manifest of one pinned release and two versions, of which the second does not compile; `tries` counts builds."""
    mirrors = {**MIRRORS, **{f"pypi:llama-cpp-python=={each}": "llama_cpp_python-0.3.36.tar.gz" for each in VERSIONS}}
    (equipped.mirrored / "mirrors.yaml").write_text(yaml.safe_dump({"mirrors": mirrors}))
    write(equipped, ["0.3.30 .. 0.3.31", "2026-10-01"])
    build = SmallEngine.build

    def built(
        engine: SmallEngine, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False
    ) -> Mapping[str, str]:
        with (equipped.folder / "tries").open("a") as tries:
            tries.write(f"{recipe.name}\n")
        if "0.3.31" in recipe.name:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"[1/9] Building\n{ERROR}\nnote: here\nerror: another\n")
            raise BuildError("building failed with status 1:\n    ninja: stopped", hint="the whole log is there")
        return build(engine, recipe, out, log, sink, fresh=fresh)

    monkeypatch.setattr(SmallEngine, "build", built)
    return equipped


def write(project: Project, releases: object) -> None:
    project.spec.write_text(
        yaml.safe_dump(small("axis", {"one": "sleep 0"}, frameworks={"llama.cpp": {"releases": releases}}))
    )


def tries(project: Project) -> list[str]:
    return (project.folder / "tries").read_text().splitlines()


def test_one_that_does_not_build_leaves_out_its_cells_alone(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(project.spec), "--no-track"]) == 0
    said = capsys.readouterr().err
    assert "left out: llama.cpp-0.3.31: llama.cpp/0.3.31/run/x86_64" in said and ERROR in said
    campaign = read_campaign(project.campaign)
    assert [cell.entry.release for cell in campaign.cells] == ["0.3.30", "2026-10-01"]
    assert [cell.id.split("/")[2] for cell in campaign.cells] == ["llama.cpp-0.3.30", "llama.cpp-2026-10-01"]
    (skip,) = campaign.document.skipped
    assert skip.kind is SkipKind.build and ERROR in skip.reason
    pinned = sha256(FILES["llama_cpp_python-0.3.36.tar.gz"])
    assert {cell.entry.source_digest for cell in campaign.cells} == {pinned}
    sources = project.read_lock().sources
    assert {sources[f"pypi:llama-cpp-python=={each}:sdist"].digest for each in VERSIONS} == {pinned}
    history = build_history([campaign])
    assert history.axis == ("0.3.30", "2026-10-01")
    assert ERROR in next(iter(history.left_out.values()))


def test_it_is_not_tried_again_as_long_as_its_log_is_there(project: Project) -> None:
    for _ in range(2):
        assert main(["run", str(project.spec), "--no-track", "--quiet", "--new"]) == 0
    assert sum("0.3.31" in each for each in tries(project)) == 1
    (skip,) = read_campaign(campaign_folders(project.folder / "home/records")[-1]).document.skipped
    assert ERROR in skip.reason and "as long as its log is there" in skip.reason
    (log,) = (project.store / "logs").glob("llama.cpp-0.3.31,*.log")
    log.unlink()
    assert main(["build", str(project.spec)]) == 0
    assert sum("0.3.31" in each for each in tries(project)) == 2


def test_where_none_builds_that_is_an_error(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "0.3.31")
    assert main(["build", str(project.spec)]) == BuildError.exit_code
    assert ERROR in capsys.readouterr().err


def test_a_release_that_is_no_optional_one_ends_the_command(project: Project) -> None:
    frameworks = {"new": {"kind": "llama.cpp", "release": "0.3.31"}, "old": {"kind": "llama.cpp", "release": "0.3.30"}}
    project.spec.write_text(yaml.safe_dump(small("axis", {"one": "sleep 0"}, frameworks=frameworks)))
    assert main(["build", str(project.spec)]) == BuildError.exit_code


def test_a_version_that_the_index_lacks_is_left_out_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = Pins.pin

    def pinned(pins: Pins, source: Source) -> LockedSource:
        if isinstance(source, PypiSource) and source.version == "0.3.31":
            raise SourceError("pypi:llama-cpp-python==0.3.31:sdist: the index has no such version")
        return pin(pins, source)

    monkeypatch.setattr(Pins, "pin", pinned)
    assert main(["lock", str(project.spec)]) == 0
    assert "pypi:llama-cpp-python==0.3.31:sdist" not in project.read_lock().sources
    ran = workflow.run(project.spec, track=False)
    (skip,) = read_campaign(ran.folder).document.skipped
    assert "the index has no such version" in skip.reason
    assert not any("0.3.31" in each for each in tries(project))


@pytest.mark.parametrize(
    ("said", "first"),
    [
        (f"[1/9] Building\n{ERROR}\nerror: later\n", ERROR),
        (
            "-- ok\nCMake Error at CMakeLists.txt:85 (message):\n\n  Could NOT find X\n",
            "CMake Error at CMakeLists.txt:85 (message): Could NOT find X",
        ),
        ("warning: errors: 0\n", None),
        ("error: " + "x" * 1000, None),
    ],
)
def test_the_first_error_of_a_log_is_found(tmp_path: Path, said: str, first: str | None) -> None:
    log = tmp_path / "log"
    log.write_text(said)
    found = first_error(log)
    assert found == first or (
        first is None and found is not None and len(found) <= 300 and found.startswith("error: x")
    )
    assert first_error(tmp_path / "missing") is None
