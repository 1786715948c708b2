"""The service `sync`: files, by the requests that `adb push` and `adb pull` make."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.adbd.machine import Machine
from tests.support.adbd.transport import Stream

_PIECE = 64 << 10
_LONGEST_PATH = 1024
_U32 = 0xFFFFFFFF


class _Over(Exception):
    """The server has ended the stream."""


class _Files:
    """The requests of one stream."""

    def __init__(self, stream: Stream, machine: Machine) -> None:
        self._stream = stream
        self._machine = machine
        self._buffer = bytearray()

    def serve(self) -> None:
        requests: dict[bytes, Callable[[str], None]] = {
            b"STAT": self._stat,
            b"LST2": lambda path: self._stat2(b"LST2", path, follow=False),
            b"STA2": lambda path: self._stat2(b"STA2", path, follow=True),
            b"LIST": self._list,
            b"LIS2": self._list2,
            b"SEND": self._send,
            b"SND2": self._send2,
            b"RECV": self._receive,
            b"RCV2": self._receive2,
        }
        while True:
            name, size = self._head()
            if name == b"QUIT":
                return
            if name not in requests or size > _LONGEST_PATH:
                self._fail(f"unknown request {name!r}")
                return
            requests[name](os.fsdecode(self._take(size)))

    # -- bytes ------------------------------------------------------------------------------------------------------

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self._stream.read()
            if not data:
                raise _Over
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _head(self) -> tuple[bytes, int]:
        name, size = struct.unpack("<4sI", self._take(8))
        return name, size

    def _answer(self, name: bytes, data: bytes) -> None:
        self._stream.write(name + struct.pack("<I", len(data)) + data)

    def _fail(self, reason: str) -> None:
        self._answer(b"FAIL", reason.encode())

    def _here(self, path: str) -> Path:
        return self._machine.seen_from_here(path)

    # -- what is there ----------------------------------------------------------------------------------------------

    def _stat(self, path: str) -> None:
        found, _ = _look(self._here(path), follow=False)
        self._stream.write(b"STAT" + struct.pack("<III", *_short(found)))

    def _stat2(self, name: bytes, path: str, *, follow: bool) -> None:
        self._stream.write(name + _long(*_look(self._here(path), follow=follow)))

    def _list(self, path: str) -> None:
        for name, status, _ in self._entries(path):
            self._stream.write(b"DENT" + struct.pack("<IIII", *_short(status), len(name)) + name)
        self._stream.write(b"DONE" + bytes(16))

    def _list2(self, path: str) -> None:
        for name, status, error in self._entries(path):
            self._stream.write(b"DNT2" + _long(status, error) + struct.pack("<I", len(name)) + name)
        self._stream.write(b"DONE" + bytes(72))

    def _entries(self, path: str) -> Iterator[tuple[bytes, os.stat_result | None, int]]:
        folder = self._here(path)
        there = folder.is_dir()
        for name in (".", "..", *(each.name for each in folder.iterdir())) if there else ():
            yield os.fsencode(name), *_look(folder / name, follow=False)

    # -- files ------------------------------------------------------------------------------------------------------

    def _send(self, request: str) -> None:
        path, _, mode = request.rpartition(",")
        self._store(path, int(mode))

    def _send2(self, path: str) -> None:
        name, mode, flags = struct.unpack("<4sII", self._take(12))
        self._store(path, mode, None if name == b"SND2" and flags == 0 else "compression was not offered")

    def _store(self, path: str, mode: int, error: str | None = None) -> None:
        """Write what comes; where that fails the rest of it is still heard, as the protocol wants it."""
        target = self._here(path)
        with contextlib.ExitStack() as stack:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(target.open("wb", buffering=0))
            except OSError as failure:
                error = error or f"couldn't create file: {failure.strerror}"
            while True:
                name, size = self._head()
                if name == b"DONE":
                    break
                if name != b"DATA" or size > _PIECE:
                    raise _Over
                data = self._take(size)
                try:
                    if error is None and file.write(data) != len(data):
                        error = os.strerror(errno.ENOSPC)
                except OSError as failure:
                    error = f"write failed: {failure.strerror}"
        if error is None:
            try:
                target.chmod(mode & 0o777)
                os.utime(target, (size, size))  # it is the time of change that comes with DONE
            except OSError as failure:
                error = f"cannot finish: {failure.strerror}"
        if error is None:
            self._answer(b"OKAY", b"")
        else:
            with contextlib.suppress(OSError):
                target.unlink()
            self._fail(error)

    def _receive2(self, path: str) -> None:
        name, flags = struct.unpack("<4sI", self._take(8))
        if name != b"RCV2" or flags != 0:
            self._fail("compression was not offered")
        else:
            self._receive(path)

    def _receive(self, path: str) -> None:
        try:
            with self._here(path).open("rb") as file:
                while data := file.read(_PIECE):
                    self._answer(b"DATA", data)
        except OSError as error:
            self._fail(f"open failed: {error.strerror}")
            return
        self._answer(b"DONE", b"")


def serve_sync(stream: Stream, machine: Machine) -> None:
    stream.opened()
    with contextlib.suppress(_Over, OSError):
        _Files(stream, machine).serve()


def _look(path: Path, *, follow: bool) -> tuple[os.stat_result | None, int]:
    """The status of a file, or why there is none."""
    try:
        return path.stat(follow_symlinks=follow), 0
    except OSError as error:
        return None, error.errno or errno.EIO


def _short(found: os.stat_result | None) -> tuple[int, int, int]:
    """Mode, size and time as the first version tells them; zeros where there is nothing."""
    return (found.st_mode, found.st_size & _U32, int(found.st_mtime) & _U32) if found else (0, 0, 0)


def _long(found: os.stat_result | None, error: int) -> bytes:
    """All of it, as the second version tells it."""
    if found is None:
        return struct.pack("<I", error) + bytes(64)
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
    numbers = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size)
    return struct.pack("<IQQIIIIQqqq", 0, found.st_dev, found.st_ino, *numbers, *times)
