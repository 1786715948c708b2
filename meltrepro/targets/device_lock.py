"""One campaign per device: a lock between all processes of a machine, which the kernel releases however its holder ends.

Who waits for it has a place in a queue (`turns`), and nobody who comes later gets it before.

It lies where every user may write and no setting leads, so that neither another user nor another cache measures on the
device meanwhile. The file stays: who removed it could not know that nobody has just opened it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from meltrepro import settings, untrusted
from meltrepro.atomic import reason_of
from meltrepro.errors import DeviceBusy, StoreError
from meltrepro.targets import turns
from meltrepro.words import counted, plural

_MOST = 4096
"""Bytes of what a holder says of itself, which anybody could have written."""
_LONGEST = 80
_LOOK_S = 0.5
"""Between two looks whether a device is free; they cost the trial that runs there nothing that could be measured."""


def lock_path(device_id: str) -> Path:
    """The lock file of a device; the same for all users of this machine."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", device_id)[:_LONGEST]
    digest = hashlib.sha256(device_id.encode("utf-8", "surrogateescape")).hexdigest()
    return settings.locks() / f"meltrepro-{name}-{digest[:16]}.lock"


@contextmanager
def hold(
    device_id: str, campaign: str, *, wait_s: float = 0.0, waits: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Hold a device's lock while the block runs; `campaign` is told to whoever asks meanwhile.

    Others that hold it are waited for, at most `wait_s`, first come, first served; `waits` then hears once who they are.

    Raises `DeviceBusy`, which names the holder, and `StoreError` where there can be no lock file.
    """
    path = lock_path(device_id)
    try:
        descriptor = _lock_in_turn(path, wait_s, waits)
    except OSError as error:
        raise StoreError(
            f"cannot use the device lock {path}: {reason_of(error)}",
            hint="every user of this machine's devices must be able to write there: remove what is in the way",
        ) from error
    try:
        holder = {"pid": os.getpid(), "user": os.getuid(), "campaign": campaign[:_LONGEST], "since": int(time.time())}
        _say(descriptor, holder)
        yield
    finally:
        _say(descriptor, None)
        os.close(descriptor)


def _lock_in_turn(path: Path, wait_s: float, waits: Callable[[str], None]) -> int:
    """The open lock file, locked when it is free and nobody waits who came before; raises `DeviceBusy`."""
    until = time.monotonic() + wait_s
    queue = _open(path)
    try:
        place = turns.take(queue) if wait_s else None
        told = False
        while True:
            before = turns.ahead(queue, place)
            if not before:
                with suppress(BlockingIOError):
                    return _lock(path)
            others = f"; {counted(before, 'other')} {plural(before, 'waits', 'wait')} for it" if before else ""
            who = _describe(path) + others
            if time.monotonic() >= until:
                raise DeviceBusy(
                    f"another campaign is measuring on this device: {who}",
                    hint="wait until it is done (run, replay and study do so with --wait), or stop it; two at once would disturb each other",
                )
            if not told:
                waits(who)
                told = True
            time.sleep(_LOOK_S)
    finally:
        os.close(queue)  # with it goes the place


def _lock(path: Path) -> int:
    """The open lock file, locked; raises `BlockingIOError` where somebody else holds it."""
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # somebody has tidied up; what was locked is no longer there for others


def _open(path: Path) -> int:
    while True:
        with suppress(FileNotFoundError):
            try:
                return untrusted.opener(str(path), os.O_RDWR)
            except PermissionError:  # somebody else's, who has not let others write to it, but it can be locked
                return untrusted.opener(str(path), os.O_RDONLY)
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o1777)
        with suppress(FileExistsError):
            descriptor = untrusted.opener(str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL)
            os.fchmod(descriptor, 0o666)
            return descriptor


def _say(descriptor: int, holder: dict[str, object] | None) -> None:
    with suppress(OSError):  # a name is a courtesy: the disk may be full, the file somebody else's
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode() if holder else b"", 0)


def _describe(path: Path) -> str:
    try:
        known = untrusted.load_json(untrusted.read_regular(path, _MOST))
        who = f"{ascii(str(known['campaign']))[1:-1]} (process {int(known['pid'])}, user {int(known['user'])}"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(int(known["since"])))
        return f"{who}, since {since})"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "it has only just begun"
