"""`meltrepro bisect` on releases of a small engine: the first slow one is found, also past one that does not build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from meltrepro import errors
from meltrepro.build.model import Recipe
from meltrepro.cli.app import main
from meltrepro.steps import Sink
from tests.fault.project import MIRRORS, Project, Refuse, SmallEngine, small

VERSIONS = [f"0.3.{number}" for number in range(20, 29)]
FIRST, BROKEN = "0.3.25", "0.3.24"
SEARCH = ("--good", VERSIONS[0], "--bad", VERSIONS[-1], "--quiet", "--maximum", "5", "--set=replay.margin=0.1")


@pytest.fixture
def project(equipped: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Nine versions: from `FIRST` on tokens take half as long again; `tries` has those that were built."""
    mirrors = {**MIRRORS, **{f"pypi:llama-cpp-python=={each}": "llama_cpp_python-0.3.36.tar.gz" for each in VERSIONS}}
    (equipped.mirrored / "mirrors.yaml").write_text(yaml.safe_dump({"mirrors": mirrors}))
    spec = small("bisected", {"chat": "pace-on-paper 10"}, frameworks={"llama.cpp": {"release": VERSIONS[0]}})
    equipped.spec.write_text(yaml.safe_dump(spec))
    build = SmallEngine.build

    def built(
        engine: SmallEngine, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False
    ) -> Mapping[str, str]:
        version = recipe.name.split("/")[1]
        with (equipped.folder / "tries").open("a") as tries:
            tries.write(f"{version}\n")
        if (equipped.folder / "broken").exists() and version == BROKEN:
            raise errors.BuildError("building failed with status 1", hint="the log says why")
        made = build(engine, recipe, out, log, sink, fresh=fresh)
        runner = out / "bin" / "melt-runner"
        slow = version in VERSIONS and VERSIONS.index(version) >= VERSIONS.index(FIRST)
        text = runner.read_text().replace("slowdown = 0, 0, 0.0, 1.0", f"slowdown = 0, 0, 0.0, {1.5 if slow else 1.0}")
        runner.write_text(f"{text}# {version}\n")
        return made

    monkeypatch.setattr(SmallEngine, "build", built)
    return equipped


def tries(project: Project) -> list[str]:
    return (project.folder / "tries").read_text().split()


def test_the_first_slow_release_is_found_and_nothing_is_tried_twice(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bisect", str(project.spec), *SEARCH, "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suspects"] == [FIRST] and found["ended"] and found["releases"] == VERSIONS
    assert found["steps"][0]["release"] == VERSIONS[-1], "the bad end first"
    assert len(found["steps"]) == 4, "of seven between the ends three"
    assert all(step["sure"] for step in found["steps"])
    built = tries(project)
    assert len(built) == 5 and len(set(built)) == 5
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert tries(project) == built, "the same command goes on where the last one ended"
    assert main(["bisect", str(project.spec), *SEARCH]) == 0
    assert f"generation_tps is worse from {FIRST} on" in capsys.readouterr().out


def test_one_that_does_not_build_is_left_out(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.folder / "broken").touch()
    assert main(["bisect", str(project.spec), *SEARCH]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"worse from one of these on, which could not be tried: {BROKEN}, {FIRST}" in out
    assert "skipped" in out and "building failed" in out


def test_the_time_is_up(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", str(project.spec), *SEARCH, "--minutes", "0"]) == 0
    assert "the time was up" in capsys.readouterr().out
    assert len(tries(project)) == 2, "the ends alone"
    assert main(["bisect", str(project.spec), *SEARCH]) == 0
    assert f"worse from {FIRST} on" in capsys.readouterr().out


def test_what_cannot_be_searched(project: Project, refuse: Refuse) -> None:
    spec = str(project.spec)
    found = refuse(errors.Inconclusive, "bisect", spec, "--good", "0.3.25", "--bad", "0.3.27", *SEARCH[4:])
    assert "0.3.27 is not shown to be worse than 0.3.25" in found.message and "further apart" in found.hint
    found = refuse(errors.UsageError, "bisect", spec, "--good", "0.3.27", "--bad", "0.3.25")
    assert "there are no releases" in found.message
    found = refuse(errors.UsageError, "bisect", spec, "--good", "0.3.20", "--bad", "0.3.25", "--metric", "speed")
    assert "speed" in found.message
    found = refuse(errors.UsageError, "bisect", spec, "--good", "0.3.20", "--bad", "0.3.25", "--metric", "turns")
    assert "no better direction" in found.message
    (state,) = (project.folder / "home" / "bisects").iterdir()
    state.write_text("{")
    found = refuse(errors.RecordError, "bisect", spec, "--good", "0.3.25", "--bad", "0.3.27", *SEARCH[4:])
    assert "is damaged" in found.message and "--new" in found.hint
