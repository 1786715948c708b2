"""An ordinary user without what namespaces take: told at once what root has to install and set."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from meltrepro.build import base
from meltrepro.build.namespaces import remedy
from meltrepro.build.process_engine import sandbox_version
from meltrepro.errors import EngineError
from meltrepro.workflow.machine import CheckState, check_machine

USER = pwd.getpwuid(os.getuid()).pw_name
ENOUGH = {"etc/subuid": f"{USER}:100000:65536\n", "etc/subgid": f"{os.getuid()}:100000:65536"}


def system(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def programs(folder: Path, **scripts: str) -> str:
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (ENOUGH, None),
        ({**ENOUGH, "proc/sys/kernel/unprivileged_userns_clone": "1\n"}, None),
        (
            {**ENOUGH, "proc/sys/kernel/unprivileged_userns_clone": "0\n"},
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            {**ENOUGH, "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ({**ENOUGH, "proc/sys/user/max_user_namespaces": "0\n"}, "sysctl -w user.max_user_namespaces=15000"),
        ({}, f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {USER}"),
        (
            {**ENOUGH, "etc/subuid": "other:100000:65536\nother:200000:65536\n"},
            f"usermod --add-subuids 265536-331071 {USER}",
        ),
        ({**ENOUGH, "etc/subgid": f"{USER}:100000:1000\n"}, f"usermod --add-subgids 165536-231071 {USER}"),
        ({**ENOUGH, "etc/subuid": f"# {USER}\n\n{USER}:x:y\n"}, f"usermod --add-subuids 165536-231071 {USER}"),
    ],
)
def test_what_is_in_the_way_has_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: str | None
) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", newuidmap="", newgidmap=""))
    found = remedy(ids=True, system=system(tmp_path / "system", files))
    assert found == (expected and f"as root: {expected}")


def test_programs_and_switches_come_before_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    where = system(tmp_path, {"proc/sys/user/max_user_namespaces": "0"})
    found = remedy(ids=True, system=where) or ""
    assert found.split(" && ")[:2] == [
        "as root: sysctl -w user.max_user_namespaces=15000",
        "apt-get install uidmap",
    ]
    assert remedy(system=where) == "as root: sysctl -w user.max_user_namespaces=15000", "bubblewrap needs no ids"


HELPER = """
[ "$1" = --unshare-helper ] || exit 9
echo "W: no entry in /etc/subuid for ann" >&2; echo "E: cannot find newuidmap" >&2; exit 25
"""


def test_who_cannot_make_the_base_is_told_so_before_anything_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", mmdebstrap=HELPER))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineError, match=r"no entry in /etc/subuid for ann; cannot find newuidmap") as caught:
        base.mmdebstrap()
    assert "\n" not in caught.value.one_line
    assert "as root: " in str(caught.value.hint)
    assert "apt-get install uidmap" in str(caught.value.hint)
    (check,) = (check for check in check_machine() if check.name == "mmdebstrap")
    assert (check.state, check.found) == (CheckState.missing, caught.value.message)
    assert check.remedy == caught.value.hint


@pytest.mark.parametrize("script", ["exit 0", 'echo "Unknown option: unshare-helper" >&2; exit 1'])
def test_one_that_works_or_cannot_be_asked_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", mmdebstrap=script))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert base.mmdebstrap() == str(tmp_path / "bin" / "mmdebstrap")


def test_a_sandbox_that_the_kernel_forbids_says_which_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbids = '[ "$1" = --version ] || { echo "bwrap: setting up uid map: Permission denied" >&2; exit 1; }'
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", bwrap=forbids))
    with pytest.raises(EngineError, match="Permission denied") as caught:
        sandbox_version()
    assert "--engine docker" in str(caught.value.hint)
