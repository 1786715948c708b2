"""The header of a GGUF file, walked with nothing of it believed: every count is held against the bytes that are there.

A reader that believes a count of 2^40 strings reads for days; a model file comes from anywhere.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from meltrepro.errors import ModelError

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type; 8 is a string, 9 an array."""
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4
_LEAST_STRING = 8
"""The length that stands before it."""


def scan(path: Path) -> None:
    """Raise `ModelError` where a header goes on behind the end of its file or names what no GGUF file has."""
    with path.open("rb") as file:
        _Walk(file, path.stat().st_size, path.name[:16]).file()


class _Walk:
    """One pass over a header; each step consumes bytes, so that it ends with the file at the latest."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._left = size
        self._name = name

    def file(self) -> None:
        self._skip(8)
        tensors, pairs = self._number("<Q"), self._number("<Q")
        for _ in range(self._count(pairs, _LEAST_STRING + 5)):
            self._string()
            self._value(self._number("<I"))
        for _ in range(self._count(tensors, _LEAST_STRING + 16)):
            self._string()
            dimensions = self._number("<I")
            if not 1 <= dimensions <= _MOST_DIMENSIONS:
                raise self._damaged(f"a tensor of {dimensions} dimensions")
            self._skip(8 * dimensions + 12)

    def _value(self, kind: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner == _STRING:
                for _ in range(self._count(count, _LEAST_STRING)):
                    self._string()
            elif inner in _SIZES:
                self._skip(count * _SIZES[inner])
            else:
                raise self._damaged(f"an array of type {inner}")
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise self._damaged(f"a value of type {kind}")

    def _string(self) -> None:
        self._skip(self._number("<Q"))

    def _count(self, count: int, least_bytes: int) -> int:
        if count * least_bytes > self._left:
            raise self._damaged(f"{count} entries in the {self._left} bytes that are left")
        return count

    def _number(self, layout: str) -> int:
        size = struct.calcsize(layout)
        self._take(size)
        return int(struct.unpack(layout, self._file.read(size))[0])

    def _skip(self, size: int) -> None:
        self._take(size)
        self._file.seek(size, 1)

    def _take(self, size: int) -> None:
        if size > self._left:
            raise self._damaged(f"something of {size} bytes in the {self._left} bytes that are left")
        self._left -= size

    def _damaged(self, what: str) -> ModelError:
        return ModelError(
            f"{self._name} is a truncated or damaged GGUF file: its header names {what}",
            hint="get the file again from where it came from",
        )
