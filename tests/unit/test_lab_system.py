"""What file systems of virtual devices are made of, and how people are told to reach the devices."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from meltrepro import resources
from meltrepro.build import base
from meltrepro.cli import lab
from meltrepro.errors import EngineError
from meltrepro.lab.system import BOARD, PHONE, System, device_root, is_pinned
from meltrepro.steps import silent
from meltrepro.store.cas import Store


@pytest.mark.parametrize("system", [PHONE, BOARD], ids=lambda system: system.name)
def test_a_file_system_is_known_by_all_that_it_is_made_of(system: System) -> None:
    pins = system.pinned()
    assert {package.architecture for package in pins} <= {"arm64", "all"}
    assert set(system.packages) <= {package.name for package in pins}
    root = Path("/anywhere") / system.key(pins)
    assert is_pinned(system, root)
    other = [replace(pins[0], digest="0" * 64), *pins[1:]]
    assert not is_pinned(system, Path("/anywhere") / system.key(other))


def test_stand_ins_go_where_boards_have_the_real_ones() -> None:
    files = BOARD.own_files()
    assert {"usr/bin/tegrastats", "usr/bin/jetson_clocks", "usr/sbin/nvpmodel", "etc/nvpmodel.conf"} <= set(files)
    assert files["etc/nv_tegra_release"].startswith(b"# R36 (release), REVISION: 4.3,")


@pytest.mark.parametrize("name", ["phone", "jetson"])
def test_scripts_are_shell(name: str) -> None:
    scripts = [path for path in (resources.images() / name).rglob("*") if path.is_file()]
    shell = [path for path in scripts if path.read_bytes().startswith(b"#!")]
    assert shell
    for path in shell:
        subprocess.run(["sh", "-n", str(path)], check=True)


def test_the_command_that_reaches_a_board_can_be_pasted() -> None:
    place = {"kind": "jetson", "port": 2200, "user": "root", "key": "/a b/key", "known_hosts": "/a b/known"}
    assert shlex.split(lab._way(place)) == [
        *("ssh", "-i", "/a b/key", "-o", "UserKnownHostsFile=/a b/known", "-p", "2200", "root@127.0.0.1")
    ]


def test_offline_asks_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object) -> NoReturn:
        raise AssertionError("the archive was asked")

    monkeypatch.setattr(base, "resolve", resolve)
    with pytest.raises(
        EngineError, match="offline, and the store does not hold the packages of a virtual phone"
    ) as caught:
        device_root(PHONE, Store(tmp_path / "store"), tmp_path, silent, offline=True)
    assert caught.value.hint
