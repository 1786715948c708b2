"""The lab's supervisor: what cannot run is named, and the rest runs all the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from meltrepro.cli.app import main
from meltrepro.errors import EngineError
from meltrepro.lab import supervisor, system
from meltrepro.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A machine that can run arm64 programs, as far as the supervisor asks."""
    monkeypatch.setattr(system, "require_emulation", lambda: None)
    found = Settings(tmp_path / "cache", tmp_path / "home", offline=True, mirrors=None, jobs=1)
    (found.cache / "lab").mkdir(parents=True)
    return found


def cannot(name: str, *_: object) -> supervisor.Place:
    raise EngineError("packages cannot be had")


@pytest.mark.parametrize("works", supervisor.DEVICES)
def test_a_device_that_cannot_run_leaves_the_others(settings: Settings, works: str) -> None:
    starts: dict[str, supervisor.Start] = {**dict.fromkeys(supervisor.DEVICES, cannot), works: lambda *_: {"kind": "x"}}
    supervisor.keep(settings, starts, wait=lambda: False)
    (written,) = settings.cache.rglob("supervisor.json")
    known = json.loads(written.read_bytes())
    assert known["devices"] == [works]
    assert known["missing"] == {
        name: "packages cannot be had" for name in ("phone", "jetson", "iphone") if name != works
    }


def test_nothing_that_can_run_is_an_error_with_every_reason(settings: Settings) -> None:
    with pytest.raises(EngineError) as caught:
        supervisor.keep(settings, dict.fromkeys(supervisor.DEVICES, cannot))
    for name in supervisor.DEVICES:
        assert f"{name}: packages cannot be had" in caught.value.message
    assert not list(settings.cache.rglob("supervisor.json"))


@pytest.mark.parametrize(
    ("root", "tools", "said"),
    [
        (False, True, "virtual devices need root"),
        (True, False, "virtual devices need qemu-aarch64-static, ip, .* which this machine lacks"),
        (True, True, "the kernel cannot be told how to run arm64 programs"),
    ],
)
def test_what_the_machine_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: bool, tools: bool, said: str
) -> None:
    """No root, no emulator, and a kernel without binfmt_misc."""
    (tmp_path / "register").mkdir()
    monkeypatch.setattr(system, "_BINFMT", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(shutil, "which", lambda tool, path=None: f"/usr/bin/{tool}" if tools else None)
    with pytest.raises(EngineError, match=said) as caught:
        system.require_emulation()
    assert root is False or caught.value.hint


PLACES: dict[str, supervisor.Place] = {
    "phone": {"kind": "android", "adb_port": 5, "serial": "s"},
    "iphone": {"kind": "ios", "usbmux": "127.0.0.1:5", "udid": "U"},
}


def test_a_dead_device_is_told_and_started_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A phone whose process ends; the other and what else runs stay as they are."""
    monkeypatch.setenv("MELTREPRO_CACHE", str(settings.cache))
    living: dict[str, subprocess.Popen[bytes]] = {}
    ended: list[str] = []

    def start(name: str, _: Settings, stack: ExitStack, __: dict[str, str]) -> supervisor.Place:
        process = living[name] = subprocess.Popen(["sleep", "infinity"])
        stack.callback(ended.append, name)
        stack.callback(process.wait)
        stack.callback(process.kill)
        return {**PLACES[name], "processes": [process.pid]}

    def look(wants: bool, *dead: str) -> bool:
        found = supervisor.status(settings)
        assert (found.up, list(found.devices), list(found.dead)) == (True, ["phone", "iphone"], list(dead))
        assert main(["lab", "status"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in said if "dead" in line] == list(dead)
        return wants

    def life() -> Iterator[bool]:
        yield look(True)
        first = dict(living)
        living["phone"].kill()
        os.waitid(os.P_PID, living["phone"].pid, os.WEXITED | os.WNOWAIT)
        look(True, "phone")
        yield True
        assert ended == ["phone"]
        assert living["phone"] is not first["phone"] and living["iphone"] is first["iphone"]
        yield look(False)

    wait = life()
    starts: dict[str, supervisor.Start] = {"phone": start, "iphone": start}
    supervisor.keep(settings, starts, wait=lambda: next(wait))
    assert sorted(ended) == ["iphone", "phone", "phone"]


def test_a_dead_device_that_cannot_come_back_is_missing(settings: Settings) -> None:
    waits = iter((True, False))

    def once(name: str, *_: object) -> supervisor.Place:
        starts[name] = cannot
        return {"kind": "x", "processes": [0]}

    starts: dict[str, supervisor.Start] = {"phone": once, "jetson": lambda *_: {"kind": "x"}}
    found = []

    def wait() -> bool:
        found.append(supervisor.status(settings))
        return next(waits)

    supervisor.keep(settings, starts, wait=wait)
    assert [list(each.devices) for each in found] == [["phone", "jetson"], ["jetson"]]
    assert [list(each.dead) for each in found] == [["phone"], []]
    assert found[1].missing == {"phone": "packages cannot be had"}
