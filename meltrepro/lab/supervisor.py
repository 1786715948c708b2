"""The process that keeps a lab running, and what others do about it: start it, ask for it, end it.

    <run>/lab/supervisor.lock  held by the supervisor as long as it lives
    <run>/lab/supervisor.json  its process id, and what could not be had
    <run>/lab/<device>.json    how a device is reached (targets/lab.py reads it)
    <cache>/lab/               file systems, and what devices store until the lab is down

Devices and servers die with the supervisor, however it ends. One that dies before it is told as dead; SIGUSR1 has the
supervisor start it anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from meltrepro import settings as settings_module
from meltrepro.atomic import make_folder, remove, write_bytes
from meltrepro.errors import EngineError, MeltreproError, StoreError, TargetError
from meltrepro.settings import Settings
from meltrepro.steps import silent
from meltrepro.store.cas import Store

if TYPE_CHECKING:
    from meltrepro.lab.system import System

Place = Mapping[str, Any]
"""How a device is reached; its `kind` is that of the target, without one of its `processes` it is dead."""
Start = Callable[[str, Settings, contextlib.ExitStack, dict[str, str]], Place]
"""Starts the device of a name, which ends with the stack, and notes what is odd about it."""
_UP_S = 180.0
_DOWN_S = 20.0
_PAIR_S = 20.0
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}


@dataclass(frozen=True)
class LabDevice:
    start: Start
    command: Callable[[Place], str]
    """By which other tools reach it."""


@dataclass(frozen=True)
class Status:
    pid: int | None = None
    devices: Mapping[str, Place] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    """What could not be had, with the reason."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """What is not quite as it should be, by device."""

    dead: Sequence[str] = ()
    """Devices that were started, of which a process has ended."""

    @property
    def up(self) -> bool:
        return self.pid is not None


def status(settings: Settings) -> Status:
    """What runs; what a supervisor that was killed has left does not count."""
    folder = _folder(settings)
    if not _kept(folder):
        return Status()
    known = _read(folder / "supervisor.json")
    devices = {name: _read(folder / f"{name}.json") for name in known.get("devices", ())}
    dead = [name for name, place in devices.items() if not all(map(_alive, place.get("processes", ())))]
    return Status(known.get("pid"), devices, known.get("missing", {}), known.get("remarks", {}), dead)


def up(settings: Settings) -> Status:
    """Start a lab unless it runs, and what is dead of one that does; wait until its devices can be used.

    Raises `EngineError` where none can.
    """
    from meltrepro.lab import system

    found = status(settings)
    if found.pid is not None:
        deadline = time.monotonic() + _UP_S
        if found.dead:
            os.kill(found.pid, signal.SIGUSR1)
        while found.dead and time.monotonic() < deadline:
            time.sleep(0.1)
            found = status(settings)
    if found.up:
        return found
    system.require_emulation()
    folder = _folder(settings)
    _clear(settings)
    make_folder(folder)
    log = folder / "supervisor.log"
    with log.open("wb") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "meltrepro.lab.supervisor"],
            cwd="/",
            env={**os.environ, "MELTREPRO_CACHE": str(settings.cache)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _UP_S
    try:
        while time.monotonic() < deadline and supervisor.poll() is None:
            if (found := status(settings)).up:
                return found
            time.sleep(0.1)
    except BaseException:
        supervisor.terminate()
        supervisor.wait()
        raise
    supervisor.terminate()
    supervisor.wait()
    said = log.read_text(errors="replace").strip().splitlines()[-3:]
    raise EngineError("the lab did not come up:\n" + "\n".join(said), hint=f"its log is {log}")


def down(settings: Settings) -> bool:
    """End a lab and remove everything that its devices stored; returns whether it ran."""
    found = status(settings)
    if found.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGTERM)
        deadline = time.monotonic() + _DOWN_S
        while _kept(_folder(settings)):
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(found.pid, signal.SIGKILL)
            time.sleep(0.1)
    _clear(settings)
    return found.up


def _revival_asked() -> bool:
    """Wait until somebody wants anything; whether it is dead devices that are to be started, not the end."""
    return signal.sigwait(_SIGNALS) == signal.SIGUSR1


def keep(settings: Settings, starts: Mapping[str, Start], wait: Callable[[], bool] = _revival_asked) -> None:
    """Be the supervisor: start the devices, and say how they are reached; whenever `wait` says so, start the dead ones anew."""
    from meltrepro.lab import system

    folder = _folder(settings)
    with FileLock(folder / "supervisor.lock", timeout=0), contextlib.ExitStack() as stack:
        system.require_emulation()
        missing: dict[str, str] = {}
        remarks: dict[str, str] = {}
        places: dict[str, Place] = {}
        lives = {name: stack.enter_context(contextlib.ExitStack()) for name in starts}
        wanted = list(starts)
        while True:
            for name in wanted:
                lives[name].close()
                places.pop(name, None)
                try:
                    places[name] = starts[name](name, settings, lives[name], remarks)
                except (EngineError, TargetError) as error:  # the others are of use without
                    missing[name] = error.one_line
            if not places:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
                raise EngineError(f"no virtual device can run here: {reasons}")
            for name, place in places.items():
                write_bytes(folder / f"{name}.json", json.dumps(place).encode())
            devices = [name for name in starts if name in places]
            known = {"pid": os.getpid(), "devices": devices, "missing": missing, "remarks": remarks}
            write_bytes(folder / "supervisor.json", json.dumps(known).encode())
            for name in missing:
                (folder / f"{name}.json").unlink(missing_ok=True)
            if not wait():
                return
            wanted = list(status(settings).dead)


def _root(kind: System, name: str, settings: Settings, remarks: dict[str, str]) -> Path:
    """The file system of a kind of device; says of its device where it is not the pinned one."""
    from meltrepro.lab import system

    store = Store(settings.store)
    root = system.device_root(kind, store, settings.cache / "lab", silent, offline=settings.offline)
    if not system.is_pinned(kind, root):
        remarks[name] = system.remark(kind, store)
    return root


def _start_phone(name: str, settings: Settings, stack: contextlib.ExitStack, remarks: dict[str, str]) -> Place:
    """Start the phone and an adb server of its own."""
    from meltrepro.lab import system
    from meltrepro.lab.phone import VirtualPhone
    from meltrepro.lab.server import AdbServer

    data = settings.cache / "lab"
    root = _root(system.PHONE, name, settings, remarks)
    server = AdbServer(data / "adb")
    stack.callback(server.stop)
    server.start()
    phone = VirtualPhone(root, data / name, name=name)
    stack.callback(phone.erase)
    phone.start()
    server.attach(phone.address)
    place = {"adb_port": server.server.port, "serial": phone.address, "truth": str(phone.truth)}
    return {"kind": "android", **place, "processes": [phone.inside, server.pid]}


def _start_board(name: str, settings: Settings, stack: contextlib.ExitStack, remarks: dict[str, str]) -> Place:
    from meltrepro.lab import system
    from meltrepro.lab.jetson import USER, VirtualJetson

    root = _root(system.BOARD, name, settings, remarks)
    board = VirtualJetson(root, settings.cache / "lab" / name, name=name)
    stack.callback(board.erase)
    board.start()
    return {
        "kind": "jetson",
        "port": board.relay.port,
        "user": USER,
        "key": str(board.key),
        "known_hosts": str(board.known_hosts),
        "truth": str(board.truth),
        "processes": [board.inside],
    }


def _start_iphone(name: str, settings: Settings, stack: contextlib.ExitStack, remarks: dict[str, str]) -> Place:
    """Start the iPhone, and have it trust this machine: usbmuxd offers every program the pairing of the first."""
    from meltrepro.lab.iphone.device import ARM, VirtualIphone
    from meltrepro.targets.ios.devices import open_attached, require_driver

    require_driver()
    folder = settings.cache / "lab" / name
    phone = VirtualIphone(folder, name, programs=ARM)
    stack.callback(phone.erase)
    phone.start()
    open_attached(phone.udid, folder / "pairings", phone.address).pair(_PAIR_S)
    place = {"usbmux": phone.address, "udid": phone.udid, "truth": str(phone.truth), "meter": str(phone.meter)}
    return {"kind": "ios", **place}


def _adb(place: Place) -> str:
    """By the adb of the server: one of another version would end it and start its own."""
    from meltrepro.targets.android.adb_server import program

    return f"ANDROID_ADB_SERVER_PORT={place['adb_port']} {shlex.quote(program())} -s {place['serial']} shell"


def _ssh(place: Place) -> str:
    options = ["-i", place["key"], "-o", f"UserKnownHostsFile={place['known_hosts']}", "-p", str(place["port"])]
    return shlex.join(["ssh", *options, f"{place['user']}@127.0.0.1"])


def _ideviceinfo(place: Place) -> str:
    return f"USBMUXD_SOCKET_ADDRESS={place['usbmux']} ideviceinfo -u {place['udid']}"


DEVICES: Mapping[str, LabDevice] = {
    "phone": LabDevice(_start_phone, _adb),
    "jetson": LabDevice(_start_board, _ssh),
    "iphone": LabDevice(_start_iphone, _ideviceinfo),
}
"""The devices of a lab, by name."""


def _clear(settings: Settings) -> None:
    folder = _folder(settings)
    for path in folder.glob("*.json"):
        path.unlink(missing_ok=True)
    for name in (*DEVICES, "adb"):
        with contextlib.suppress(StoreError):
            remove(settings.cache / "lab" / name)


def _kept(folder: Path) -> bool:
    """Whether a supervisor lives and has everything up."""
    if not (folder / "supervisor.json").exists():
        return False
    try:
        with FileLock(folder / "supervisor.lock", timeout=0):
            return False
    except Timeout:
        return True


def _alive(process: object) -> bool:
    """Whether a process runs; one that has ended, and for which its parent has not asked yet, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][:1] not in ("Z", "X")
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return known
    except (OSError, ValueError):
        return {}


def _folder(settings: Settings) -> Path:
    return settings.run / "lab"


if __name__ == "__main__":
    # Before any thread is made, so that all of them leave these signals to `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        keep(settings_module.load(), {name: device.start for name, device in DEVICES.items()})
    except MeltreproError as failure:
        sys.exit(f"{failure.message}" + (f"\nnext: {failure.hint}" if failure.hint else ""))
