"""The file service: what a host may do with the files of one folder of a virtual iPhone."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from meltrepro.lab.iphone.frames import (
    AFC_HEADER,
    LARGEST_PLIST,
    AfcHeader,
    Malformed,
    afc_packet,
    read_afc,
    strings,
    zero_ended,
)
from meltrepro.lab.iphone.identity import STORAGE_BYTES
from meltrepro.lab.iphone.stream import Mishaps, Stream

_MOST_READ = 64 << 20


U64 = struct.Struct("<Q")


class Op(IntEnum):
    status = 0x01
    data = 0x02
    read_folder = 0x03
    truncate = 0x07
    remove = 0x08
    make_folder = 0x09
    file_info = 0x0A
    device_info = 0x0B
    open = 0x0D
    opened = 0x0E
    read = 0x0F
    write = 0x10
    seek = 0x11
    tell = 0x12
    told = 0x13
    close = 0x14
    set_size = 0x15
    rename = 0x18
    lock = 0x1B
    link = 0x1C
    set_time = 0x1E
    remove_all = 0x22


class Status(IntEnum):
    success = 0
    unknown = 1
    bad_argument = 7
    not_found = 8
    is_folder = 9
    denied = 10
    unsupported = 15
    exists = 16
    no_space = 18
    io = 20
    not_empty = 33


_STATUS_OF = {
    errno.ENOENT: Status.not_found,
    errno.ENOTDIR: Status.not_found,
    errno.EISDIR: Status.is_folder,
    errno.EACCES: Status.denied,
    errno.EPERM: Status.denied,
    errno.EEXIST: Status.exists,
    errno.ENOSPC: Status.no_space,
    errno.ENOTEMPTY: Status.not_empty,
    errno.EINVAL: Status.bad_argument,
    errno.EBADF: Status.bad_argument,
}
_MODES = {
    1: os.O_RDONLY,
    2: os.O_RDWR | os.O_CREAT,
    3: os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    4: os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    5: os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    6: os.O_RDWR | os.O_APPEND | os.O_CREAT,
}
_KINDS = {stat.S_IFDIR: "S_IFDIR", stat.S_IFREG: "S_IFREG", stat.S_IFLNK: "S_IFLNK"}


class Refused(Exception):
    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass
class AfcFiles:
    root: Path
    mishaps: Mishaps
    only: str = ""
    """The one folder below the root that may be entered; empty for all of them."""
    _open: dict[int, int] = field(default_factory=dict)
    _last: int = 0

    def serve(self, stream: Stream) -> None:
        """Do what the host asks until it leaves; raises `StreamEnded`, `Malformed`."""
        try:
            while True:
                header = read_afc(stream.read(AFC_HEADER.size))
                arguments = stream.read(header.arguments)
                try:
                    if header.operation == Op.write:
                        answer = self._write(header, arguments, stream)
                    else:
                        answer = self._answer(header, arguments, stream)
                except Refused as refusal:
                    answer = afc_packet(header.number, Op.status, U64.pack(refusal.status))
                except OSError as error:
                    status = _STATUS_OF.get(error.errno or 0, Status.io)
                    answer = afc_packet(header.number, Op.status, U64.pack(status))
                stream.send(answer)
        finally:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()

    def _answer(self, header: AfcHeader, arguments: bytes, stream: Stream) -> bytes:
        if header.payload > LARGEST_PLIST:
            raise Malformed(f"{header.payload} bytes behind an operation that writes nothing")
        arguments += stream.read(header.payload)
        number = header.number
        match header.operation:
            case Op.read:
                handle, size = _numbers(arguments, 2)
                return afc_packet(number, Op.data, payload=os.read(self._descriptor(handle), min(size, _MOST_READ)))
            case Op.read_folder:
                return afc_packet(number, Op.data, payload=zero_ended(".", "..", *self._names(arguments)))
            case Op.file_info:
                return afc_packet(number, Op.data, payload=zero_ended(*self._info(arguments)))
            case Op.device_info:
                return afc_packet(number, Op.data, payload=zero_ended(*self._device_info()))
            case Op.open:
                return afc_packet(number, Op.opened, U64.pack(self._enter(arguments)))
            case Op.tell:
                descriptor = self._descriptor(_numbers(arguments, 1)[0])
                return afc_packet(number, Op.told, U64.pack(os.lseek(descriptor, 0, os.SEEK_CUR)))
        change = self._changes().get(header.operation)
        if change is None:
            raise Refused(Status.unsupported)
        change(arguments)
        return afc_packet(number, Op.status, U64.pack(Status.success))

    def _changes(self) -> dict[int, Callable[[bytes], None]]:
        """Operations whose only answer is how they ended."""
        return {
            Op.close: self._close,
            Op.link: self._link,
            Op.lock: lambda arguments: None,  # nobody else has these files open
            Op.make_folder: self._make_folder,
            Op.remove: self._remove,
            Op.remove_all: self._remove_all,
            Op.rename: self._rename,
            Op.seek: self._seek,
            Op.set_size: self._set_size,
            Op.set_time: self._set_time,
            Op.truncate: self._truncate,
        }

    # -- paths ------------------------------------------------------------------------------------------------------

    def _path(self, name: str, *, itself: bool = False) -> Path:
        """Where a name leads, which is never out of the root; with `itself`, a link and not what it points to."""
        inside = Path(os.path.normpath("/" + name.lstrip("/")))
        if "\0" in name:
            raise Refused(Status.bad_argument)
        if self.only and inside.parts[1:2] != (self.only,):
            raise Refused(Status.denied)
        path = self.root / inside.relative_to("/")
        self._require_inside(path.parent if itself else path)
        return path

    def _require_inside(self, path: Path) -> None:
        """Links of the app's own making may lead anywhere."""
        try:
            inside = path.resolve().is_relative_to(self.root.resolve())
        except RuntimeError:  # links that lead to each other
            inside = False
        if not inside:
            raise Refused(Status.denied)

    def _one(self, arguments: bytes, *, itself: bool = False) -> Path:
        names = strings(arguments)
        if not names:
            raise Refused(Status.bad_argument)
        return self._path(names[0], itself=itself)

    # -- questions --------------------------------------------------------------------------------------------------

    def _names(self, arguments: bytes) -> list[str]:
        return sorted(path.name for path in self._one(arguments).iterdir())

    def _info(self, arguments: bytes) -> Iterator[str]:
        path = self._one(arguments, itself=True)
        found = path.lstat()
        yield from ("st_size", str(found.st_size), "st_blocks", str(found.st_blocks), "st_nlink", str(found.st_nlink))
        yield from ("st_ifmt", _KINDS.get(stat.S_IFMT(found.st_mode), "S_IFCHR"))
        yield from ("st_mtime", str(found.st_mtime_ns), "st_birthtime", str(found.st_ctime_ns))
        if path.is_symlink():
            yield from ("LinkTarget", str(path.readlink()))

    def _device_info(self) -> Iterator[str]:
        free = self.mishaps.now.free
        yield from ("Model", "VirtualiPhone1,1", "FSTotalBytes", str(STORAGE_BYTES))
        yield from ("FSFreeBytes", str(STORAGE_BYTES if free is None else self.mishaps.left), "FSBlockSize", "4096")

    # -- open files -------------------------------------------------------------------------------------------------

    def _descriptor(self, handle: int) -> int:
        if handle not in self._open:
            raise Refused(Status.bad_argument)
        return self._open[handle]

    def _enter(self, arguments: bytes) -> int:
        (mode,) = _numbers(arguments, 1)
        path = self._one(arguments[U64.size :])
        if mode not in _MODES:
            raise Refused(Status.bad_argument)
        if path.is_dir():
            raise Refused(Status.is_folder)
        self._last += 1
        self._open[self._last] = os.open(path, _MODES[mode] | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        return self._last

    def _close(self, arguments: bytes) -> None:
        (handle,) = _numbers(arguments, 1)
        os.close(self._descriptor(handle))
        del self._open[handle]

    def _seek(self, arguments: bytes) -> None:
        handle, whence = _numbers(arguments, 2)
        (offset,) = struct.unpack_from("<q", arguments.ljust(3 * U64.size, b"\0"), 2 * U64.size)
        if whence > os.SEEK_END:
            raise Refused(Status.bad_argument)
        os.lseek(self._descriptor(handle), offset, whence)

    def _set_size(self, arguments: bytes) -> None:
        handle, size = _numbers(arguments, 2)
        os.ftruncate(self._descriptor(handle), min(size, STORAGE_BYTES))

    def _write(self, header: AfcHeader, arguments: bytes, stream: Stream) -> bytes:
        """Write what comes, as it comes: a connection that is lost leaves what had arrived."""
        left, piece, refusal = header.payload, arguments[U64.size :], None
        handle = _numbers(arguments, 1)[0] if len(arguments) >= U64.size else 0
        while piece or left:
            if not piece:
                piece = stream.read_some(left)
                left -= len(piece)
            if refusal is None:
                try:
                    self._store(self._descriptor(handle), piece)
                except Refused as error:
                    refusal = error  # the rest of it has to be read all the same
            piece = b""
        if refusal is not None:
            raise refusal
        return afc_packet(header.number, Op.status, U64.pack(Status.success))

    def _store(self, descriptor: int, piece: bytes) -> None:
        if not self.mishaps.fits(len(piece)):
            raise Refused(Status.no_space)
        keeps = self.mishaps.now.keeps
        if keeps is not None:
            piece = piece[: max(0, keeps - os.lseek(descriptor, 0, os.SEEK_CUR))]
        while piece:
            piece = piece[os.write(descriptor, piece) :]

    # -- changes ----------------------------------------------------------------------------------------------------

    def _make_folder(self, arguments: bytes) -> None:
        self._one(arguments).mkdir(parents=True, exist_ok=True)

    def _remove(self, arguments: bytes) -> None:
        path = self._one(arguments, itself=True)
        if path == self.root:
            raise Refused(Status.denied)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()

    def _remove_all(self, arguments: bytes) -> None:
        path = self._one(arguments, itself=True)
        if path == self.root:
            raise Refused(Status.denied)
        for folder, folders, files in os.walk(path, topdown=False):
            for name in files:
                (Path(folder) / name).unlink()
            for name in folders:
                inner = Path(folder) / name
                inner.unlink() if inner.is_symlink() else inner.rmdir()
        self._remove(arguments)

    def _rename(self, arguments: bytes) -> None:
        names = strings(arguments)
        if len(names) < 2:
            raise Refused(Status.bad_argument)
        self._path(names[0], itself=True).rename(self._path(names[1], itself=True))

    def _link(self, arguments: bytes) -> None:
        (kind,) = _numbers(arguments, 1)
        names = strings(arguments[U64.size :])
        if len(names) < 2:
            raise Refused(Status.bad_argument)
        place = self._path(names[1], itself=True)
        if kind == 1:
            os.link(self._path(names[0]), place)
        elif names[0].startswith("/"):
            raise Refused(Status.denied)
        else:
            self._require_inside(place.parent / names[0])
            place.symlink_to(names[0])

    def _truncate(self, arguments: bytes) -> None:
        (size,) = _numbers(arguments, 1)
        os.truncate(self._one(arguments[U64.size :]), min(size, STORAGE_BYTES))

    def _set_time(self, arguments: bytes) -> None:
        (changed,) = _numbers(arguments, 1)
        with contextlib.suppress(OverflowError):
            os.utime(self._one(arguments[U64.size :]), ns=(time.time_ns(), changed))


def _numbers(arguments: bytes, count: int) -> tuple[int, ...]:
    if len(arguments) < count * U64.size:
        raise Refused(Status.bad_argument)
    return tuple(U64.unpack_from(arguments, place * U64.size)[0] for place in range(count))
