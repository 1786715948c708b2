"""Files and texts of strangers: read with bounds, so that whatever is in them becomes a value or one `ValueError`.

JSON is read more strictly than usual: UTF-8 alone, no key twice, no number that a 64-bit integer or a measurement cannot
be, no half of a character, no endless nesting. YAML of people is read by `positions`, which has bounds of its own.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)
MOST_INT = 2**64 - 1
"""Of numbers of inodes, which are the largest; what a type allows is less."""
MOST_FLOAT = 1e30
"""Larger than any quantity that is measured, and so small that its square and the sums of it are numbers too."""
MOST_DEPTH = 64
_DIGITS = 20
"""Of `MOST_INT`; Python itself refuses thousands of them with an error of its own."""
_SHOWN = 200


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


_TOO_DEEP = f"nested deeper than {MOST_DEPTH} levels"


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
