"""The lab's supervisor: what cannot run is named, and the rest runs all the same."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

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


def starts(places: dict[str, Any] | None) -> supervisor.Start:
    """A start of devices that gives these places, or fails."""

    def start(settings: Settings, stack: contextlib.ExitStack, remarks: dict[str, str]) -> dict[str, Any]:
        if places is None:
            raise EngineError("packages cannot be had")
        return places

    return start


KINDS = {"phones": supervisor.PHONES, "boards": supervisor.BOARDS, "iphones": supervisor.IPHONES}


@pytest.mark.parametrize("works", KINDS)
def test_a_kind_that_cannot_run_leaves_the_others(settings: Settings, works: str) -> None:
    kinds: dict[tuple[str, ...], supervisor.Start] = {
        names: starts({name: {"kind": "x"} for name in names} if kind == works else None)
        for kind, names in KINDS.items()
    }
    supervisor.keep(settings, kinds, wait=lambda: None)
    (written,) = settings.cache.rglob("supervisor.json")
    known = json.loads(written.read_bytes())
    missing = [name for kind, names in KINDS.items() if kind != works for name in names]
    assert known["devices"] == list(KINDS[works])
    assert known["missing"] == dict.fromkeys(missing, "packages cannot be had")


def test_nothing_that_can_run_is_an_error_with_every_reason(settings: Settings) -> None:
    with pytest.raises(EngineError) as caught:
        supervisor.keep(settings, dict.fromkeys(supervisor.KINDS, starts(None)))
    for name in itertools.chain(*KINDS.values()):
        assert f"{name}: packages cannot be had" in caught.value.message
    assert not list(settings.cache.rglob("supervisor.json"))


@pytest.mark.parametrize(
    ("root", "tools", "said"),
    [
        (False, True, "virtual devices need root"),
        (True, False, "virtual devices need qemu-aarch64-static, which is not installed"),
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
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}" if tools else None)
    with pytest.raises(EngineError, match=said) as caught:
        system.require_emulation()
    assert root is False or caught.value.hint
