"""Power mode, clocks and fan of a Jetson: which commands are run, by an account that may run these alone or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.errors import TargetError
from meltrepro.targets.jetson.controls import controls, sudoers
from meltrepro.targets.jetson.options import JetsonOptions, JetsonSettings
from meltrepro.targets.remote.shell import Reply, Shell
from tests.support.links import LocalLink

SUDO = """#!/bin/sh
shift
echo "$*" >> "{log}"
[ "$2" != --store ] || echo clocks > "$3"
{then}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a board on which sudo writes down what it is asked for."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    sudo(tmp_path, "exit 0")
    return tmp_path / "there"


def sudo(folder: Path, then: str) -> None:
    (folder / "sudo").write_text(SUDO.format(log=folder / "asked", then=then))
    (folder / "sudo").chmod(0o755)


def set_to(root: Path, name: str, value: str) -> Reply:
    control = next(each for each in controls(str(root)) if each.name == name)
    return Shell(LocalLink(root.parent)).run(control.set(value))


def asked(root: Path) -> list[str]:
    path = root.parent / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_how_clocks_were_is_kept_once_and_put_back_once(root: Path) -> None:
    kept, tool = root / "clocks.conf", "/usr/bin/jetson_clocks"
    for name, value in (("clocks", "pinned"), ("fan", "fastest")):
        assert set_to(root, name, value).status == 0
    assert asked(root) == [f"{tool} --store {kept}", tool, f"{tool} --fan"]
    for name, value in (("fan", "controlled"), ("clocks", "free")):
        assert set_to(root, name, value).status == 0
    assert asked(root)[3:] == [f"{tool} --restore {kept}"]
    assert not kept.exists()


def test_nothing_is_run_that_the_list_for_sudo_lacks(root: Path) -> None:
    for name, value in (("clocks", "pinned"), ("fan", "fastest"), ("clocks", "free")):
        set_to(root, name, value)
    allowed = sudoers("melt", "/there").partition("NOPASSWD: ")[2].strip().split(", ")
    run = [command.replace(str(root), "/there") for command in asked(root)]
    assert {command if " " in command else f'{command} ""' for command in run} <= set(allowed)


def test_a_list_for_sudo_says_nothing_else() -> None:
    for user, folder in (("melt, ALL", "/there"), ("melt", "/a b"), ("melt", "/a,ALL")):
        with pytest.raises(TargetError):
            sudoers(user, folder)


def test_what_was_not_kept_is_not_put_back(root: Path) -> None:
    assert set_to(root, "clocks", "free").status == 0
    assert asked(root) == []


@pytest.mark.parametrize("name", ["clocks", "fan"])
def test_an_account_that_would_be_asked_changes_nothing(root: Path, name: str) -> None:
    (root.parent / "sudo").write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    reply = set_to(root, name, {"clocks": "pinned", "fan": "fastest"}[name])
    assert reply.status != 0
    assert "a password is required" in reply.err


def test_settings_are_set_in_an_order_that_makes_sense() -> None:
    asked_for = JetsonSettings(fan="fastest", clocks="pinned", power_mode="30W")
    assert list(asked_for.model_dump(exclude_none=True)) == ["power_mode", "clocks", "fan"]
    assert JetsonSettings(power_mode="MODE_30W") == JetsonSettings(power_mode="30W"), "as the board's own file has it"


@pytest.mark.parametrize("mode", ["30W; reboot", "", "a/b", ".*"])
def test_a_name_that_could_mean_something_else_is_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="power_mode"):
        JetsonOptions.model_validate({"kind": "jetson", "host": "orin", "settings": {"power_mode": mode}})
