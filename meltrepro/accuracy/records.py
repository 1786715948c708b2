"""Data files as rows: JSON Lines, one JSON list, or CSV; and fields of rows, with a clear word where one is missing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from meltrepro.errors import DataError
from meltrepro.foreign import load_json

Row = Mapping[str, Any]


def rows(content: bytes) -> Sequence[Row]:
    """The rows of a file, in order; raises `DataError` for a file that is none of the three formats."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the data set is not text in UTF-8 (byte {error.start})") from error
    start = text.lstrip()[:1]
    if start == "[":
        return _list(text)
    return _lines(text) if start == "{" else _table(text)


def _list(text: str) -> Sequence[Row]:
    try:
        found = load_json(text, repeated=True)
    except ValueError as error:
        raise DataError(f"the data set begins like JSON and is none: {error}") from error
    if not all(isinstance(row, dict) for row in found):
        raise DataError("the data set is a JSON list of something else than mappings")
    return [dict(row) for row in found]


def _lines(text: str) -> Sequence[Row]:
    found: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = load_json(line, repeated=True)
        except ValueError as error:
            raise DataError(f"line {number} of the data set is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"line {number} of the data set is no JSON mapping")
        found.append(row)
    return found


def _table(text: str) -> Sequence[Row]:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        found = list(reader)
    except csv.Error as error:
        raise DataError(f"the data set is neither JSON nor CSV: {error}") from error
    for number, row in enumerate(found, 1):
        if None in row or None in row.values():
            raise DataError(f"row {number} of the data set has not as many fields as its heading")
    return found


def text(row: Row, number: int, name: str) -> str:
    """A field that must be text."""
    value = row.get(name)
    if not isinstance(value, str):
        raise DataError(f"question {number}: expected text in {name!r}, got {_short(value)}")
    return value


def texts(value: object, number: int, name: str) -> tuple[str, ...]:
    """A field that must be a list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(f"question {number}: expected a list of texts in {name!r}, got {_short(value)}")
    return tuple(value)


def index(value: object, number: int, name: str) -> int:
    """A field that must be a whole number, perhaps written as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value, re.ASCII):
        return int(value)
    raise DataError(f"question {number}: expected a number in {name!r}, got {_short(value)}")


def _short(value: object) -> str:
    shown = "nothing" if value is None else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
