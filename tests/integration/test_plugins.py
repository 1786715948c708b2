"""docs/plugins.md, executed: a framework and a target kind that no file of meltrepro knows, installed as packages."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT

TUTORIAL = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
PLUGINS = ROOT / "tests" / "plugins"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def named(text: str) -> tuple[str, str]:
    """The file that a block says it is of, and what it shows of it."""
    first, _, rest = text.partition("\n")
    return first.removeprefix("# "), rest


@pytest.mark.parametrize("text", [*blocks("python"), *blocks("toml")], ids=lambda text: named(text)[0])
def test_the_tutorial_shows_what_the_packages_hold(text: str) -> None:
    file, shown = named(text)
    assert shown.strip("\n") in (PLUGINS / file).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who has installed both."""
    site = tmp_path_factory.mktemp("site")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert uv is not None, "make setup puts uv into .venv"
    packages = [shutil.copytree(PLUGINS / name, site.parent / name) for name in ("toy_framework", "toy_target")]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--python", sys.executable, "--target", str(site)]
    subprocess.run([uv, "pip", "install", *options, *packages], check=True, timeout=300)
    return {**os.environ, "PYTHONPATH": str(site)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the user works."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "story.txt").write_text("Once upon a time there was a fox.\nThe fox was here.\n" * 40)
    (manifest,) = (shown for file, shown in map(named, blocks("yaml")) if file == "toy.yaml")
    (folder / "toy.yaml").write_text(manifest)
    yield folder
    shutil.rmtree("/var/tmp/meltrepro-toybox", ignore_errors=True)


def meltrepro(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "meltrepro", *arguments]
    variables = {**environment, "MELTREPRO_HOME": str(folder / "home")}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=1200)


@pytest.fixture(scope="module")
def walked(folder: Path, installed: dict[str, str]) -> dict[str, str]:
    """What each command of the tutorial says, by command."""
    said: dict[str, str] = {}
    for text in blocks("console"):
        for line in text.splitlines():
            if line.startswith("$ meltrepro "):
                command = line.removeprefix("$ meltrepro ")
                done = meltrepro(folder, installed, *shlex.split(command))
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
                said[command.split()[0]] = done.stdout + done.stderr
    return said


@pytest.mark.machine
def test_a_framework_and_a_target_of_others_go_all_the_way(walked: dict[str, str], folder: Path) -> None:
    assert {"validate", "plan", "lock", "build", "run", "report", "bundle", "devices"} <= set(walked)
    assert "toybox" in walked["devices"]
    campaigns = list((folder / "home").rglob("campaign.json"))
    assert campaigns
    cells = json.loads(campaigns[0].read_text())["cells"]
    assert {(cell["framework"], cell["target"], cell["quantization"]) for cell in cells} == {
        ("toy", target, quantization) for target in ("host", "box") for quantization in ("as-is", "half")
    }
    trials = [json.loads(path.read_text()) for path in campaigns[0].parent.rglob("r00*/outcome.json")]
    assert [trial["state"] for trial in trials] == ["ok"] * 8, trials
    requests = [json.loads(path.read_text()) for path in campaigns[0].parent.rglob("r00*/request.json")]
    assert all("smoothing" in json.dumps(request) for request in requests)
    assert (folder / "report" / "index.html").is_file()


@pytest.mark.machine
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("s/smoothing: 2/smothing: 2/", "smoothing"),
        ("s/smoothing: 2/smoothing: 0/", "toy.yaml:"),
        ("s/kind: toybox/kind: toybux/", "toybox"),
        ("s/  toy: {/  tuy: {/", "toy"),
    ],
)
def test_mistakes_in_their_keys_are_found_like_any_other(
    folder: Path, installed: dict[str, str], tmp_path: Path, change: str, expected: str
) -> None:
    shutil.copy(folder / "story.txt", tmp_path)
    text = subprocess.run(["sed", change, folder / "toy.yaml"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "toy.yaml").write_text(text)
    done = meltrepro(tmp_path, installed, "validate", "toy.yaml")
    assert done.returncode == 3, done.stdout + done.stderr
    assert expected in done.stdout + done.stderr
    assert re.search(r"toy\.yaml:\d+:\d+", done.stdout + done.stderr)


def test_the_contract_suite_runs_in_their_own_tests(installed: dict[str, str]) -> None:
    suites = [PLUGINS / name / "tests" for name in ("toy_framework", "toy_target")]
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull, "--rootdir", str(PLUGINS)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, suites)],
        env=installed,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
