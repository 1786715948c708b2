"""The lab's keeper: what cannot run is named, and the rest runs all the same."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import EngineError
from meltrepro.lab import keeper, system
from meltrepro.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A machine that can run arm64 programs, as far as the keeper asks; nobody waits for a signal."""
    monkeypatch.setattr(system, "require_emulation", lambda: None)
    monkeypatch.setattr(signal, "sigwait", lambda signals: None)
    found = Settings(tmp_path / "cache", tmp_path / "home", offline=True, mirrors=None, jobs=1)
    (found.cache / "lab").mkdir(parents=True)
    return found


def starts(places: dict[str, Any] | None) -> Any:
    """A start of devices that gives these places, or fails."""

    def start(settings: Settings, stack: contextlib.ExitStack, missing: dict[str, str]) -> dict[str, Any]:
        if places is None:
            raise EngineError("packages cannot be had")
        return places

    return start


@pytest.mark.parametrize("works", ["phones", "boards"])
def test_one_kind_that_cannot_run_leaves_the_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, works: str
) -> None:
    phones, boards = ({name: {"kind": "x"} for name in names} for names in (keeper.PHONES, keeper.BOARDS))
    monkeypatch.setattr(keeper, "_start_phones", starts(phones if works == "phones" else None))
    monkeypatch.setattr(keeper, "_start_boards", starts(boards if works == "boards" else None))
    keeper.keep(settings)
    (written,) = settings.cache.rglob("keeper.json")
    known = json.loads(written.read_bytes())
    running, missing = (keeper.PHONES, keeper.BOARDS) if works == "phones" else (keeper.BOARDS, keeper.PHONES)
    assert known["devices"] == list(running)
    assert known["missing"] == dict.fromkeys(missing, "packages cannot be had")


def test_nothing_that_can_run_is_an_error_with_every_reason(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_start_phones", starts(None))
    monkeypatch.setattr(keeper, "_start_boards", starts(None))
    with pytest.raises(EngineError) as caught:
        keeper.keep(settings)
    for name in (*keeper.PHONES, *keeper.BOARDS):
        assert f"{name}: packages cannot be had" in caught.value.message
    assert not list(settings.cache.rglob("keeper.json"))


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
