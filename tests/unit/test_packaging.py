"""What the project says of itself agrees: requirements, their lock, their licences, the Makefile and the README."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
ENTRY = re.compile(r"[^\s\\]+==\S+(?: ; [^\\\n]+?)?(?: \\\n {4}--hash=sha256:[0-9a-f]{64})+\n")
TARGETS = {
    *(
        "setup",
        "quickstart",
        "test",
        "test-fast",
        "test-python",
        "test-debian",
        "lint",
        "bench",
        "ui",
        "reproduce-paper",
        "clean",
        "help",
    ),
}


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _locked(lock: Path) -> list[Requirement]:
    """What a lock holds for any platform."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if not line.startswith(" ")]


def _here(requirements: list[Requirement]) -> dict[str, Requirement]:
    """What of it this platform needs, by name."""
    return {canonicalize_name(one.name): one for one in requirements if one.marker is None or one.marker.evaluate()}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_exact_versions_and_hashes_and_nothing_else(lock: Path) -> None:
    """No index, no path, no comment that would tell where it was made; an entry without a hash would not match."""
    text = lock.read_text(encoding="utf-8")
    assert text
    assert ENTRY.sub("", text) == ""


def test_the_lock_satisfies_every_declared_requirement() -> None:
    locked = _here(_locked(ROOT / "requirements" / "dev.lock"))
    project = _project()
    for text in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        wanted = Requirement(text)
        (pin,) = locked[canonicalize_name(wanted.name)].specifier
        assert pin.version in wanted.specifier, f"{text} is locked at {pin.version}"


def test_what_is_gpl_stays_in_a_lock_of_its_own_that_only_tests_install() -> None:
    (wanted,) = (Requirement(text) for text in _project()["optional-dependencies"]["ios"])
    assert wanted.name == "pymobiledevice3"
    locked = {lock.name: _here(_locked(lock)) for lock in LOCKS}
    assert [name for name, packages in locked.items() if wanted.name in packages] == ["ios.lock"]
    (pin,) = locked["ios.lock"][wanted.name].specifier
    assert pin.version in wanted.specifier
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^(\S+):.*\.ios\b(?!:)", makefile, re.MULTILINE) == ["ios", "test"]


def test_the_locks_agree() -> None:
    """They are installed into one environment, one after the other."""
    common = _here(_locked(ROOT / "requirements" / "dev.lock"))
    for name, one in _here(_locked(ROOT / "requirements" / "ios.lock")).items():
        assert name not in common or one.specifier == common[name].specifier, name


def test_every_package_has_its_licence_told() -> None:
    text = (ROOT / "docs" / "third-party.md").read_text(encoding="utf-8").partition("## Built or fetched")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    direct = {row[0] for row in rows if len(row) == 3} - {"package", "---"}
    grouped = [name for row in rows if len(row) == 2 for name in row[1].split(", ")]
    told = direct | set(grouped) - {"packages", "---"}
    project = _project()
    declared = [
        *project["dependencies"],
        *(one for extra in ("ios", "lab") for one in project["optional-dependencies"][extra]),
    ]
    assert direct == {canonicalize_name(Requirement(one).name) for one in declared}
    assert told == {name for lock in LOCKS for name in _here(_locked(lock))}


def test_the_makefile_has_the_promised_targets_and_explains_them() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    explained = set(re.findall(r"^([a-z-]+):[^=\n]* ## .", makefile, re.MULTILINE))
    assert explained >= TARGETS
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert set(phony.split()) == explained, "a file of that name would stop a target that is not phony"


def test_the_readme_names_only_what_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", readme):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    assert {"quickstart", "ui"} <= set(re.findall(r"^make ([a-z-]+)", readme, re.MULTILINE))
    for path in re.findall(r"\bspecs/[a-z-]+\.yaml", readme):
        assert (ROOT / path).is_file(), path


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert re.search(r"^make test test-debian\b", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert "`make test`" in (ROOT / "README.md").read_text(encoding="utf-8")
