"""What strangers wrote, read with bounds: files that are what they claim to be, and JSON that becomes a value or one error.

Whoever ran the program of a trial, or handed a campaign over, chose what lies there. So a link in a record is never
followed, a pipe never waited for, and a file that claims a terabyte never read. JSON is read more strictly than usual:
UTF-8 alone, no key twice, no number that a 64-bit integer or a measurement cannot be, no half of a character, no endless
nesting. YAML of people is read by `manifest.yaml.positions`, which has bounds of its own.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

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
M = TypeVar("M", bound=BaseModel)
MOST_INT = 2**64 - 1
"""Of numbers of inodes, which are the largest; what a type allows is less."""
MOST_FLOAT = 1e30
"""Larger than any quantity that is measured, and so small that its square and the sums of it are numbers too."""
MOST_DEPTH = 64
_DIGITS = 20
"""Of `MOST_INT`; Python itself refuses thousands of them with an error of its own."""
_SHOWN = 200
_TOO_DEEP = f"nested deeper than {MOST_DEPTH} levels"


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


def whole_number(text: str) -> int | None:
    """The number that a text says in decimal digits; `None` for what is none, or larger than any file."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None


def is_there(path: str | Path) -> bool:
    """Whether something is at a path; nothing is at one that cannot even be looked at."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; raises `OSError` for a device or pipe too, which might never end or never begin."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("it is not a regular file")
    return file


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file, at most `most` bytes; raises `OSError` for a larger one too."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"it is larger than {most >> 20} MiB")
    return content


def load_json(content: bytes | str, *, repeated: bool = False) -> Any:
    """The value in a JSON text; raises `ValueError` for anything else, whatever it is.

    Where keys may be `repeated`, as in some published data sets, the last one counts.
    """
    text = content if isinstance(content, str) else content.decode()
    try:
        value = json.loads(
            text,
            object_pairs_hook=None if repeated else _mapping,
            parse_int=_whole,
            parse_float=_fraction,
            parse_constant=_no_number,
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > MOST_DEPTH and _is_deeper(value, MOST_DEPTH):
        raise ValueError(_TOO_DEEP)
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text holds half of a character") from None
    return value


def parse(model: type[M], content: bytes | str) -> M:
    """The model in a JSON text; raises `ValueError` that says which field is wrong."""
    return as_model(model, load_json(content))


def as_model(model: type[M], value: object) -> M:
    """The model that plain data stand for; raises `ValueError` that says which field is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ValueError(first_fault(error)) from error


def first_fault(error: ValidationError) -> str:
    """The first of Pydantic's findings on one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    return f"{where[:_SHOWN]}: {first['msg'][:_SHOWN]}"


def _not_plain(path: str, what: str) -> NotPlain:
    return NotPlain(errno.EINVAL, f"it is {what}, expected a plain file", path)


def _refuse(path: Path, what: str) -> None:
    raise RecordError(f"{shown(path)} is {what}: a record holds plain files alone", hint=_HINT)


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {ascii(twice)[:_SHOWN]} stands there twice")
    return found


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > _DIGITS or abs(number := int(text)) > MOST_INT:
        raise ValueError(f"the number {text[:_DIGITS]}... is too large")
    return number


def _fraction(text: str) -> float:
    number = float(text)
    if not abs(number) <= MOST_FLOAT:
        raise ValueError(f"the number {text[:_DIGITS]} is too large")
    return number


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _is_deeper(value: Any, most: int) -> bool:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most == 0 if not below else any(_is_deeper(each, most - 1) for each in below) if most else True
