"""The files of a record as what they claim to be: plain files, of a size that can be read.

Whoever ran the program of a trial, or handed a campaign over, chose what lies there. So a link is never followed, a pipe
never waited for, and a file that claims a terabyte never read.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from meltrepro.errors import RecordError

WHOLE = 64 << 20
"""Most bytes of a file that is read as a whole."""
PIECEWISE = 1 << 30
"""Most bytes of a file that is read piece by piece."""
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_HINT = "remove it, or get the record again from where it came from"


class NotPlain(OSError):
    """What stands at a path is no plain file, or too large a one; `strerror` says which."""


class Tampered(RecordError):
    """A program left something in its record that no program has to write there."""


def opened(path: Path, most: int | None = PIECEWISE) -> BufferedReader:
    """A plain file of at most so many bytes, for reading; raises `OSError`, of which `NotPlain` is a kind."""
    file = os.fdopen(opener(str(path), os.O_RDONLY), "rb")
    size = os.fstat(file.fileno()).st_size
    if most is not None and size > most:
        file.close()
        raise NotPlain(errno.EFBIG, f"it has {size:,} bytes, at most {most:,} expected", str(path))
    return file


def read(path: Path, most: int = WHOLE) -> bytes:
    """The content of a plain file of at most so many bytes; raises `OSError`, of which `NotPlain` is a kind."""
    with opened(path, most) as file:
        return file.read(most)


def opener(path: str, flags: int) -> int:
    """The `opener` of `open` for plain files alone; raises `OSError`, of which `NotPlain` is a kind."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    except ValueError as error:  # a name from a damaged record
        raise NotPlain(errno.EINVAL, "no file has such a name", path) from error
    except OSError as error:
        what = odd(Path(path))
        if what is None:
            raise
        raise _not_plain(path, what) from error
    what = kind(os.fstat(descriptor).st_mode)
    if what is not None:
        os.close(descriptor)
        raise _not_plain(path, what)
    return descriptor


def require(path: Path) -> Path:
    """The path of a plain file that can be read; raises `RecordError` where it is none, `FileNotFoundError` where there is none."""
    try:
        opened(path).close()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordError(f"{shown(path)} cannot be read: {error.strerror}", hint=_HINT) from error
    return path


def files(folder: Path) -> list[str]:
    """Every file below a campaign's folder, by relative path; what is still being made is left out.

    Raises `RecordError` for anything but plain files and folders with names that can be shown.
    """
    found: list[str] = []
    left = [""]
    while left:
        inside = left.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    if unfinished(entry.name):
                        continue
                    name = f"{inside}/{entry.name}" if inside else entry.name
                    known = left if entry.is_dir(follow_symlinks=False) else found
                    if not entry.name.isprintable():
                        _refuse(folder / name, "something with a name that cannot be shown")
                    if known is found and not entry.is_file(follow_symlinks=False) and (what := odd(folder / name)):
                        _refuse(folder / name, what)
                    known.append(name)
        except FileNotFoundError:
            continue  # an attempt at a trial was set aside meanwhile
        except OSError as error:
            raise RecordError(f"{shown(folder / inside)} cannot be read: {error.strerror}", hint=_HINT) from error
    return sorted(found)


def unfinished(name: str) -> bool:
    """Whether something of this name is still being made, or its making was cut short."""
    return name.startswith(".") and name.endswith(".tmp")


def odd(path: Path) -> str | None:
    """What stands in the place of a plain file, in words; `None` where it is one, or nothing."""
    try:
        return kind(os.lstat(path).st_mode)
    except OSError:
        return None


def kind(mode: int) -> str | None:
    """What a mode is of, in words; `None` of a plain file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no plain file")


def shown(path: Path) -> str:
    """A path or name that others chose, without what would act on a terminal."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _not_plain(path: str, what: str) -> NotPlain:
    return NotPlain(errno.EINVAL, f"it is {what}, expected a plain file", path)


def _refuse(path: Path, what: str) -> None:
    raise RecordError(f"{shown(path)} is {what}: a record holds plain files alone", hint=_HINT)
