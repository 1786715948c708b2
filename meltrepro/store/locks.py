"""Locks between processes: one by key for work that must not be done twice, one for the store as a whole.

Both are held by open files, so that the kernel lets go of them when a process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from meltrepro.atomic import make_folder, reason_of, writing
from meltrepro.errors import StoreError

_NOTICE_AFTER_S = 1.0
"""A shorter wait is not worth a message."""


@contextmanager
def exclusive(path: Path, key: str, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path` alone; `on_wait` is told once who else holds it. Raises `StoreError`."""
    from filelock import FileLock, Timeout

    make_folder(path.parent)
    lock = FileLock(path)
    with writing(path):
        try:
            lock.acquire(timeout=_NOTICE_AFTER_S)
        except Timeout:
            if on_wait is not None:
                on_wait(f"waiting for {holders(path)} to finish with {key}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


class UseLock:
    """The lock of a whole store: shared by everyone who uses it, held alone by who cleans it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._close: Callable[[], object] | None = None

    def share(self) -> None:
        """Keep cleaners out for as long as this object lives; waits for one that is at work.

        A store that cannot be locked (somebody else's, read-only) is used without: who cannot write there cannot clean.
        """
        if self._descriptor is None:
            self._descriptor = self._open()
            if self._descriptor is not None:
                self._close = weakref.finalize(self, os.close, self._descriptor)
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        if self._close is not None:
            self._close()
        self._descriptor = self._close = None

    @contextmanager
    def alone(self, wait_s: float = 2.0) -> Iterator[None]:
        """Hold the store alone; raises `StoreError` where others still use it after `wait_s` seconds."""
        self.share()
        if self._descriptor is None:
            raise StoreError(f"{self._path}: cannot be locked", hint="only who may write to the store may clean it")
        deadline = time.monotonic() + wait_s
        while not self._try_alone(self._descriptor):
            if time.monotonic() > deadline:
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)
                raise StoreError(
                    f"the store {self._path.parent.parent} is in use by {holders(self._path)}",
                    hint="try again when that has finished",
                )
            time.sleep(0.05)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def _try_alone(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be locked: {reason_of(error)}") from error
        return True

    def _open(self) -> int | None:
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            with suppress(OSError):
                return os.open(self._path, flags, 0o666)
        return None


def holders(path: Path) -> str:
    """Who holds the lock file, for people: `process 1234 (meltrepro)`, or `another process` where nobody can tell."""
    try:
        inode = path.stat().st_ino
        table = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return "another process"
    # Fields: number, kind, "ADVISORY", mode, pid, device:inode, range; a waiting process has "->" before the kind.
    entries = [line.split() for line in table]
    pids = {int(e[4]) for e in entries if e[1] == "FLOCK" and e[5].rpartition(":")[2] == str(inode)}
    names = [f"process {pid}{_program(pid)}" for pid in sorted(pids - {os.getpid()}) if pid > 0]
    return ", ".join(names) or "another process"


def _program(pid: int) -> str:
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        return ""
