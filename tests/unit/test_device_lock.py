"""One campaign per device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meltrepro.errors import DeviceBusy, StoreError
from meltrepro.targets.device_lock import hold, lock_path


def test_the_holder_is_named(tmp_path: Path) -> None:
    path = lock_path(tmp_path, "host-1")
    with hold(path, "quickstart"):
        with pytest.raises(DeviceBusy, match=rf"quickstart \(process {os.getpid()}\)"), hold(path, "other"):
            raise AssertionError("never reached")
        with hold(lock_path(tmp_path, "host-2"), "other"):
            pass
    with hold(path, "other"):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00"])
def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path, text: str) -> None:
    path = lock_path(tmp_path, "host-1")
    with hold(path, "quickstart"):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(DeviceBusy, match="only just begun"), hold(path, "other"):
            raise AssertionError("never reached")


def test_an_error_inside_frees_the_device(tmp_path: Path) -> None:
    path = lock_path(tmp_path, "host-1")
    with pytest.raises(ValueError, match="mine"), hold(path, "a"):
        raise ValueError("mine")
    with hold(path, "b"):
        pass


@pytest.mark.parametrize("device", ["../../etc/passwd", "a/b", "emulator-5554", "192.168.0.7:5555", "", ".."])
def test_no_id_leaves_the_folder(tmp_path: Path, device: str) -> None:
    path = lock_path(tmp_path, device)
    assert path.parent == tmp_path / "devices"
    assert path.resolve().parent == (tmp_path / "devices").resolve()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "devices").write_text("in the way")
    with pytest.raises(StoreError, match="device lock"), hold(lock_path(tmp_path, "x"), "a"):
        raise AssertionError("never reached")
