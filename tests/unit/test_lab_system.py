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
from meltrepro.build.model import Package
from meltrepro.cli import lab
from meltrepro.errors import EngineError
from meltrepro.lab import pins, supervisor
from meltrepro.lab.system import BOARD, PHONE, System, device_root, is_pinned
from meltrepro.settings import Settings
from meltrepro.steps import Sink, silent
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
    assert shlex.split(supervisor.DEVICES["jetson"].command(place)) == [
        *("ssh", "-i", "/a b/key", "-o", "UserKnownHostsFile=/a b/known", "-p", "2200", "root@127.0.0.1")
    ]


def test_packages_that_the_archive_no_longer_has_are_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The virtual phone is made of today's packages then, and says so where it is shown."""
    store, folder = Store(tmp_path / "cache/store"), tmp_path / "cache/lab"
    folder.mkdir(parents=True)
    one, other = store.put_bytes(b"one"), store.put_bytes(b"other")
    system = replace(PHONE, packages=("one",))
    old = (Package("one", "1", "arm64", one), Package("libzstd1", "1.5.7", "arm64", "0" * 64))
    today = (old[0], replace(old[1], version="1.5.8", digest=other))
    monkeypatch.setattr(System, "pinned", lambda self: old)
    monkeypatch.setattr(base, "resolve", lambda *_: today)
    (folder / system.key(today)).mkdir()
    settings = Settings(tmp_path / "cache", tmp_path, offline=False, mirrors=None, jobs=1)
    remarks: dict[str, str] = {}
    assert supervisor._root(system, "phone", settings, remarks) == folder / system.key(today)
    assert "no longer has libzstd1 1.5.7, which it was tested with: it is made of today's" in remarks["phone"]
    assert resources.make("lock-lab") is None or "make lock-lab" in remarks["phone"]
    lab._show(supervisor.Status(1, {}, {"jetson": "no room"}, remarks), False)
    said = capsys.readouterr().out.splitlines()
    assert said == ["jetson              missing: no room", f"phone               note: {remarks['phone']}"]


def test_pins_are_written_anew_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[base.Flavour] = []

    def resolve(store: Store, sink: Sink, flavour: base.Flavour) -> tuple[Package, ...]:
        asked.append(flavour)
        return (Package("mksh", "2", str(flavour.architecture), "1" * 64),)

    files = [replace(kind, arch=arch).pins for kind in (PHONE, BOARD) for arch in ("arm64", "amd64")]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(resources.image_file(file))
    before = PHONE.pinned()
    monkeypatch.setattr(resources, "images", lambda: tmp_path)
    monkeypatch.setattr(base, "resolve", resolve)
    said = list(pins.pin_all(Store(tmp_path / "store"), silent))
    assert {(each.architecture, each.variant) for each in asked} == {("arm64", "extract"), ("amd64", "extract")}
    assert [line.partition(":")[0] for line in said] == files
    version = next(each.version for each in before if each.name == "mksh")
    assert f"mksh {version} -> 2" in said[0] and "adbd" in said[0]
    assert [each.version for each in PHONE.pinned()] == ["2"]
    assert all(line.endswith(": as it was") for line in pins.pin_all(Store(tmp_path / "store"), silent))


def test_offline_asks_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object) -> NoReturn:
        raise AssertionError("the archive was asked")

    monkeypatch.setattr(base, "resolve", resolve)
    with pytest.raises(
        EngineError, match="offline, and the store does not hold the packages of a virtual phone"
    ) as caught:
        device_root(PHONE, Store(tmp_path / "store"), tmp_path, silent, offline=True)
    assert caught.value.hint
