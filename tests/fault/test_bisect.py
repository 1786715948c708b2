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
from tests.fault.test_git_names import git

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
        commits = equipped.folder / "slow"
        slow = version in commits.read_text().split() if commits.exists() else False
        slow |= version in VERSIONS and VERSIONS.index(version) >= VERSIONS.index(FIRST)
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


def mine(project: Project) -> Path:
    """A manifest whose framework is a checkout."""
    source = {"kind": "llama.cpp", "source": {"git": "framework", "commit": "worktree"}}
    spec = small("bisected", {"chat": "pace-on-paper 10"}, frameworks={"mine": source})
    project.spec.write_text(yaml.safe_dump(spec))
    return project.spec


def test_the_first_slow_commit_is_found(project: Project, capsys: pytest.CaptureFixture[str], refuse: Refuse) -> None:
    """Along the first parents of the bad one: what a merge brought along is one step."""
    folder = project.spec.parent / "framework"
    folder.mkdir()
    git(folder, "init", "--quiet", "-b", "main")
    refused = refuse(errors.SourceError, "bisect", mine(project), "--good", "main~7", "--bad", "main")
    assert "no commit is called main~7" in refused.message
    (folder / "engine.c").write_text("int speed = 1;\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "first")
    for number in range(1, 8):
        if number == 3:
            git(folder, "checkout", "--quiet", "-b", "aside")
            git(folder, "commit", "--quiet", "--allow-empty", "-m", "a part of a merge")
            git(folder, "checkout", "--quiet", "main")
            git(folder, "merge", "--quiet", "--no-ff", "-m", "merge", "aside")
        else:
            git(folder, "commit", "--quiet", "--allow-empty", "-m", f"{number}")
    commits = git(folder, "rev-list", "--first-parent", "--reverse", "main").split()
    assert len(commits) == 8
    (project.folder / "slow").write_text(" ".join(f"custom-{each[:12]}" for each in commits[5:]))
    mine(project)
    options = ("--quiet", "--maximum", "5", "--set=replay.margin=0.1")
    command = ["bisect", str(project.spec), "--good", "main~7", "--bad", "main", *options]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["releases"] == commits and found["suspects"] == [commits[5]]
    assert main(command) == 0
    assert f"worse from {commits[5][:12]} on" in capsys.readouterr().out
    aside = git(folder, "rev-parse", "aside")
    refused = refuse(errors.UsageError, "bisect", project.spec, "--good", aside, "--bad", "main", *options)
    assert "is no commit below main along its first parents" in refused.message


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
