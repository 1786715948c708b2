"""Files that are whole or not there, and what the operating system says put into plain words."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from meltrepro.errors import SourceError, StoreError
from meltrepro.words import readable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_ELSEWHERE = "or choose another place with MELTREPRO_CACHE (store) or MELTREPRO_HOME (records)"
_UMASK = threading.Lock()
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_NO_FOLDER = frozenset({errno.ENOTDIR, errno.EEXIST, errno.EISDIR})


class HashingWriter(io.RawIOBase):
    """Writes to an unbuffered file and hashes what is written; `needed` is the expected size in bytes."""

    def __init__(self, raw: io.FileIO, path: Path, needed: int | None = None) -> None:
        self._raw = raw
        self._path = path
        self._needed = needed
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes written so far."""

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Append all of `data`. Raises `StoreError`."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        done = 0
        with writing(self._path, self._needed):
            while done < len(view):  # a nearly full disk takes a part, and refuses the next
                done += self._raw.write(view[done:])
        self.size += done
        return done

    @property
    def digest(self) -> str:
        """sha256 of what was written so far."""
        return self._hash.hexdigest()


@contextmanager
def writing(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn an `OSError` of the body into a `StoreError` that names `path`; `needed` is in bytes."""
    try:
        yield
    except OSError as error:
        raise store_error(error, path, needed) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the body into a `SourceError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {reason_of(error)}") from error


def store_error(error: OSError, path: Path, needed: int | None = None) -> StoreError:
    """What went wrong at `path`, what was needed and is free in bytes, and what to do next."""
    reason = reason_of(error)
    if error.errno in _FULL:
        wanted = f"{readable(needed)} needed, " if needed is not None else ""
        return StoreError(
            f"{path}: {reason} ({wanted}{readable(free_bytes(path))} free)",
            hint=f"free some space, run meltrepro gc, {_ELSEWHERE}",
        )
    if error.errno == errno.EROFS:
        return StoreError(f"{path}: cannot be written: {reason}", hint=f"mount it writable, {_ELSEWHERE}")
    if error.errno in _FORBIDDEN:
        return StoreError(
            f"{path}: cannot be written: {reason}", hint=f"give this user the right to write there, {_ELSEWHERE}"
        )
    if error.errno in _NO_FOLDER:
        return StoreError(
            f"{path}: cannot be written: {reason}",
            hint=f"a file stands where a folder is needed, or the reverse: move it away, {_ELSEWHERE}",
        )
    return StoreError(f"{path}: cannot be written: {reason}", hint=f"check that disk, {_ELSEWHERE}")


def reason_of(error: OSError) -> str:
    """What the operating system says, without the path, which our messages name themselves."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write at `path`, which need not exist yet; in bytes."""
    for place in (path, *path.parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:  # not there yet, or not ours to look at: its parent is on the same disk, or the best we know
            continue
    return 0


def require_free(path: Path, needed: int) -> None:
    """Raise `StoreError` where `needed` bytes do not fit at `path`: sooner than with half a file on a full disk."""
    if needed > free_bytes(path):
        raise store_error(OSError(errno.ENOSPC, ""), path, needed)


def make_folder(path: Path) -> None:
    """Make a folder with its parents, so that it outlives a power failure. Raises `StoreError`."""
    if path.is_dir():
        return
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file, whole or not at all; `durable` waits until it is on the disk. Raises `StoreError`."""
    make_folder(path.parent)
    with writing(path, len(content)):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~_umask())  # not by its name, which others may give to a link
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file or a whole tree, read-only folders and deep ones too; nothing there is fine. Raises `StoreError`."""
    with writing(path):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        # From the top, where each folder moves before its turn: so none is too deep, and each can be entered.
        token, number, left = token_hex(4), 0, [path]
        _make_enterable(path)
        while left:
            folder = left.pop()
            with os.scandir(folder) as entries:
                found = list(entries)
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    _make_enterable(Path(entry.path))
                    left.append(path / f".{token}.{number}")
                    os.rename(entry.path, left[-1])
                    number += 1
                else:
                    os.unlink(entry.path)
            if folder != path:
                folder.rmdir()
        path.rmdir()


def _make_enterable(folder: Path) -> None:
    mode = folder.stat().st_mode
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        folder.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)


def _umask() -> int:
    """The process's umask; there is no way to read it but to set it, which no other thread may do meanwhile."""
    with _UMASK:
        mask = os.umask(0)
        os.umask(mask)
        return mask
