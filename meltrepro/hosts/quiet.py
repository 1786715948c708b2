"""Trials and what would take their CPUs, never at the same time on one host: builds and transfers wait for trials, and trials for them.

Locks of files, which the kernel releases however a process ends. Who wants quiet for something else comes before the next trial:
a host of many devices always has one running.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meltrepro import settings, untrusted
from meltrepro.atomic import reason_of
from meltrepro.errors import StoreError


@contextmanager
def measuring() -> Iterator[None]:
    """While a trial runs on a device of this host; others may run on its other devices."""
    with _locked("door", fcntl.LOCK_EX):
        room = _lock("room", fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(room)


@contextmanager
def working() -> Iterator[None]:
    """While this host builds or copies: no trial runs on any of its devices."""
    with _locked("door", fcntl.LOCK_EX), _locked("room", fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(name: str, how: int) -> Iterator[None]:
    descriptor = _lock(name, how)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(name: str, how: int) -> int:
    path = settings.locks() / f"meltrepro-{name}.lock"
    try:
        descriptor = _open(path)
    except OSError as error:
        raise StoreError(
            f"cannot use the lock {path}: {reason_of(error)}", hint="every user must be able to write there"
        ) from error
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = untrusted.opener(str(path), os.O_RDONLY | os.O_CREAT | os.O_EXCL)
        os.fchmod(descriptor, 0o666)
        return descriptor
    except FileExistsError:
        return untrusted.opener(str(path), os.O_RDONLY)
