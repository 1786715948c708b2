"""docs/tutorial.md, walked: what it says to type is typed, in one folder, one command after the other."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT

pytestmark = pytest.mark.machine

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
BLOCKS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
BUSY = "measure: {limits: {cpu_pressure: 1, noise: 10}}\n"
"""A machine that runs tests is busy; the page is not about that."""


def typed() -> list[tuple[str, list[str]]]:
    """Each command of the page with the lines that it is to print."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(BLOCKS).splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


@pytest.fixture(scope="module")
def walked(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What each command said."""
    folder = tmp_path_factory.mktemp("first")
    for name, text in FILES.items():
        # Two spinning threads on two busy cores wait for each other; and a short answer is typed as a long one is.
        text = text.replace("{kind: host}", "{kind: host, threads: 1}").replace("max_tokens: 32", "max_tokens: 8")
        (folder / name).write_text(text + BUSY)
    said = {}
    for command, _ in typed():
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)],
            cwd=folder,
            env={**os.environ, "MELTREPRO_HOME": str(folder / "home")},
            capture_output=True,
            text=True,
            check=False,
            timeout=1700,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said[command] = done.stdout + done.stderr
    assert (folder / "report" / "index.html").is_file()
    assert list((folder / "report" / "tables").glob("*.csv"))
    return said


@pytest.mark.parametrize(("command", "shown"), [each for each in typed() if each[1]], ids=lambda value: str(value)[:40])
def test_a_command_prints_what_the_page_shows(walked: Mapping[str, str], command: str, shown: list[str]) -> None:
    """Line by line, in order, each as the beginning of one; `...` stands for what is left out."""
    lines = iter(re.sub(r" +", " ", walked[command]).splitlines())
    for line in shown:
        if line != "...":
            pattern = ".*".join(map(re.escape, re.sub(r" +", " ", line).split("...")))
            assert any(re.match(pattern, printed) for printed in lines), f"{line}\n{walked[command]}"


def test_a_slip_is_told_as_the_page_shows(tmp_path: Path) -> None:
    (name, text), *_ = FILES.items()
    (tmp_path / name).write_text(f"# {name}\n{text}".replace("quantizations", "quantisations"))
    command = [sys.executable, "-m", "meltrepro", "validate", name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    (expected,) = re.findall(r"^    (error: .*)$", PAGE, re.MULTILINE)
    assert (done.returncode, done.stderr.strip()) == (3, expected)
