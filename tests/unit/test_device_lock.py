"""One campaign per device: whoever starts it, wherever its cache lies."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.errors import DeviceBusy, StoreError
from meltrepro.targets.device_lock import hold, lock_path

NOBODY = 65534
HOLD = """
import sys
from meltrepro.targets.device_lock import hold
with hold(sys.argv[1], "theirs"):
    print("held", flush=True)
    sys.stdin.read()
"""
WAIT = """
import sys
from meltrepro.targets.device_lock import hold
with hold("host-1", sys.argv[1], wait_s=1e6, waits=lambda who: print(who, flush=True)):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_holder_is_named() -> None:
    with hold("host-1", "quickstart"):
        with pytest.raises(
            DeviceBusy, match=rf"quickstart \(process {os.getpid()}, user {os.getuid()}, since 20[-0-9]+ [0-9:]+\)"
        ):
            refused("host-1")
        with hold("host-2", "other"):
            pass
    with hold("host-1", "other"):
        pass


def refused(device: str) -> None:
    with hold(device, "other"):
        raise AssertionError("never reached")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00", '{"campaign": "a", "pid": "b", "user": 0}', "[" * 9000])
def test_a_holder_that_has_not_said_who_it_is(text: str) -> None:
    with hold("host-1", "quickstart"):
        lock_path("host-1").write_text(text)
        with pytest.raises(DeviceBusy, match="only just begun"):
            refused("host-1")


def test_what_a_holder_says_acts_on_no_terminal() -> None:
    with hold("host-1", "\x1b[2J"), pytest.raises(DeviceBusy) as caught:
        refused("host-1")
    assert caught.value.message.isprintable()


def test_an_error_inside_frees_the_device() -> None:
    with pytest.raises(ValueError, match="mine"), hold("host-1", "a"):
        raise ValueError("mine")
    with hold("host-1", "b"):
        pass


@pytest.mark.parametrize(
    "device", ["../../etc/passwd", "a/b", "emulator-5554", "192.168.0.7:5555", "", "..", "é" * 500, "\udcff"]
)
def test_no_id_leaves_the_folder(tmp_path: Path, device: str) -> None:
    assert lock_path(device).parent == lock_path(device).resolve().parent == tmp_path / "locks"
    with hold(device, "a"):
        pass


def test_ids_that_look_alike_are_two_devices() -> None:
    with hold("a:b", "one"), hold("a_b", "other"):
        pass


@pytest.mark.parametrize("variable", ["MELTREPRO_CACHE", "MELTREPRO_HOME", "HOME", "XDG_RUNTIME_DIR", "TMPDIR"])
def test_no_setting_moves_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    monkeypatch.delenv("MELTREPRO_LOCKS")
    places = {lock_path("host-1")}
    monkeypatch.setenv(variable, str(tmp_path / "another"))
    places.add(lock_path("host-1"))
    assert len(places) == 1


def test_the_place_is_one_where_everybody_may_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that whoever asks, the answer is the same: Fedora's /run/lock is root's alone."""
    closed, shared = tmp_path / "closed", tmp_path / "shared"
    for folder, mode in ((closed, 0o755), (shared, 0o1777)):
        folder.mkdir()
        folder.chmod(mode)
    monkeypatch.delenv("MELTREPRO_LOCKS")
    monkeypatch.setattr(settings, "_COMMON", (tmp_path / "none", closed, shared, tmp_path))
    assert settings.locks() == (shared if os.geteuid() == 0 else tmp_path)


def test_a_holder_that_was_killed_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, "host-1"], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DeviceBusy, match=rf"theirs \(process {holder.pid}, "):
            refused("host-1")
        holder.send_signal(signal.SIGKILL)
    with hold("host-1", "mine"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("first", ["mine", "theirs"])
def test_another_user_is_kept_off_and_let_in(tmp_path: Path, first: str) -> None:
    for folder in (*tmp_path.parents, tmp_path):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)

    def theirs() -> int:
        pid = os.fork()
        if pid == 0:
            os.setuid(NOBODY)
            try:
                with hold("host-1", "theirs"):
                    os._exit(0)
            except DeviceBusy:
                os._exit(32)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    if first == "theirs":
        lock_path("host-1").parent.mkdir(mode=0o1777)
        lock_path("host-1").parent.chmod(0o1777)
        assert theirs() == 0
    with hold("host-1", "mine"):
        assert theirs() == 32
    assert theirs() == 0


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "no folder"])
def test_what_is_no_lock_file_is_not_used(tmp_path: Path, kind: str) -> None:
    path = lock_path("x")
    if kind == "no folder":
        path.parent.write_text("in the way")
    else:
        path.parent.mkdir()
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(StoreError, match="device lock"):
        refused("x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_was_removed_meanwhile_is_made_anew() -> None:
    with hold("host-1", "first"):
        lock_path("host-1").unlink()
        with hold("host-1", "second"), pytest.raises(DeviceBusy, match="second"):
            refused("host-1")


@contextmanager
def waiter(name: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that waits for the device, and for whom."""
    with subprocess.Popen([sys.executable, "-c", WAIT, name], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_first_come_first_served() -> None:
    with ExitStack() as stack:
        with hold("host-1", "first"):
            second, said = stack.enter_context(waiter("second"))
            assert said.startswith(f"first (process {os.getpid()}, ") and "wait" not in said
            third, said = stack.enter_context(waiter("third"))
            assert said.endswith("; 1 other waits for it\n")
        with pytest.raises(DeviceBusy, match="waits? for it"):
            refused("host-1")
        assert heard(second) == "held\n"
        with pytest.raises(DeviceBusy, match=r"second \(.*; 1 other waits for it"):
            refused("host-1")
        second.kill()
        assert heard(third) == "held\n"
        third.kill()
    with hold("host-1", "last"):
        pass


def test_a_waiter_that_was_killed_keeps_no_place() -> None:
    with ExitStack() as stack:
        with hold("host-1", "first"):
            second, _ = stack.enter_context(waiter("second"))
            third, _ = stack.enter_context(waiter("third"))
            second.kill()
            second.wait()
        assert heard(third) == "held\n"


def test_without_locks_of_bytes_nobody_waits_and_devices_are_held_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on kernels that are made up; who wants to wait there is told."""
    for name in ("F_OFD_GETLK", "F_OFD_SETLK"):
        monkeypatch.setattr(fcntl, name, 9999)
    with hold("host-1", "first"), pytest.raises(DeviceBusy, match="first"):
        refused("host-1")
    with pytest.raises(StoreError, match="device lock"), hold("host-1", "second", wait_s=1):
        raise AssertionError("never reached")


def test_waiting_has_an_end() -> None:
    told: list[str] = []
    with (
        hold("host-1", "first"),
        pytest.raises(DeviceBusy, match="first"),
        hold("host-1", "x", wait_s=0.01, waits=told.append),
    ):
        raise AssertionError("never reached")
    assert len(told) == 1
    with hold("host-1", "x", wait_s=0.01, waits=told.append):
        assert len(told) == 1, "nobody is waited for where it is free"
