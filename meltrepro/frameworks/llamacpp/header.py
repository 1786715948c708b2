"""The header of a GGUF file, walked once with every count held against the bytes that are left.

A reader that believes in 2^40 strings reads for days, and a model file comes from anywhere: so nothing here is as large as a
number in the file says, and arrays are passed over. What stands where in the file is kept, so that a copy can take it over
byte by byte without knowing what it means.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import BinaryIO

from meltrepro.errors import ModelError
from meltrepro.words import shorten, visible

ALIGNMENT = "general.alignment"
ARCHITECTURE = "general.architecture"
VERSION = 3
STRING, ARRAY = 8, 9
_LAYOUTS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""How a number is written, by its type; 8 is a string, 9 an array."""
_UNSIGNED_32 = 4
_USUAL_ALIGNMENT = 32
_MOST_DIMENSIONS = 4
_LEAST_STRING = 8
"""The length that stands before it."""
_MOST_PAIRS, _MOST_TENSORS, _MOST_STRINGS = 1 << 16, 1 << 20, 1 << 24
"""Far more than any model has: 100, some 10,000, and tokens by the million."""
_LONGEST_NAME = 1 << 10
_LONGEST_VALUE = 64 << 10
"""Of a text that is kept; longer ones, such as chat templates, are passed over."""
TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Name, numbers in a block and bytes of a block of each type that gguf's own library knows, whose import takes a second."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Value:
    """A piece of metadata: where it stands, and what it is."""

    begin: int
    """Where its key begins."""
    end: int
    kind: int
    content: int | float | str | None = None
    """A number or a text that is not too long; `None` of an array."""
    inner: int | None = None
    """Type of what an array holds."""
    count: int | None = None
    """Of its entries."""


@dataclass(frozen=True)
class Tensor:
    """A tensor as the header names it."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int
    """Of its numbers, from where the data begin."""

    @property
    def elements(self) -> int:
        return prod(self.dimensions)

    @property
    def type_name(self) -> str:
        """What llama.cpp calls its type; a number where nobody here knows that."""
        return TYPES[self.type][0] if self.type in TYPES else f"type {self.type}"

    @property
    def block(self) -> int:
        """How many numbers are written together."""
        return TYPES[self.type][1] if self.type in TYPES else 1

    @property
    def size(self) -> int | None:
        """In bytes; `None` of a type that nobody here knows."""
        if self.type not in TYPES:
            return None
        _, block, size = TYPES[self.type]
        return self.elements // block * size


@dataclass(frozen=True)
class GgufHeader:
    """All that a GGUF file says before its numbers begin."""

    version: int
    values: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data: int
    """Where the numbers begin."""
    size: int
    """Of the file."""
    alignment: int

    def text(self, key: str) -> str | None:
        """A text of the metadata; `None` where there is none."""
        value = self.values.get(key)
        return value.content if value is not None and isinstance(value.content, str) else None

    def number(self, key: str) -> int | None:
        """A whole number of the metadata; `None` where there is none."""
        value = self.values.get(key)
        return value.content if value is not None and isinstance(value.content, int) else None

    def holds(self, key: str) -> bool:
        """Whether the metadata have an array that is not empty."""
        value = self.values.get(key)
        return value is not None and bool(value.count)

    @property
    def architecture(self) -> str | None:
        return self.text(ARCHITECTURE)

    @cached_property
    def end(self) -> int:
        """Where the last number ends, as far as the sizes of types are known."""
        if not self.tensors:
            return min(self.data, self.size)
        return self.data + max(each.offset + (each.size or 0) for each in self.tensors)

    @property
    def types(self) -> Counter[str]:
        """How many tensors there are of each type."""
        return Counter(each.type_name for each in self.tensors)


def aligned(place: int, alignment: int) -> int:
    """The first place from there on at which something may begin."""
    return -(-place // alignment) * alignment


def shown(text: str) -> str:
    """A text out of a file as messages have it: short, on one line, and such that any terminal and record can hold it."""
    return shorten(visible(" ".join(text.split())))


def called(path: Path) -> str:
    """What a file is called in messages: objects of the store have digests for names, of which the beginning will do."""
    return path.name[:16] if re.fullmatch(r"[0-9a-f]{40,64}", path.name) else path.name


def read(path: Path) -> GgufHeader:
    """The header of a file; raises `ModelError` where it goes on behind the file's end or names what no GGUF file has."""
    with path.open("rb") as file:
        return _Walk(file, path.stat().st_size, called(path)).header()


def read_text(path: Path, key: str, value: Value, most: int) -> str | None:
    """A text that was too long to be kept with the header; `None` where it has more than `most` bytes."""
    begin = value.begin + 8 + len(key.encode("utf-8", "surrogateescape")) + 4 + 8  # the key, a type, the length
    if value.end - begin > most:
        return None
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(value.end - begin).decode("utf-8", "surrogateescape")


class _Walk:
    """One pass over a header; each step consumes bytes, so that it ends with the file at the latest."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file, self._size, self._name = file, size, name
        self._buffer, self._place, self._read = b"", 0, 0
        """What was read last, how far it is used, and where in the file it ends."""

    def header(self) -> GgufHeader:
        self._take(4)
        version, tensors, pairs = self._number("I"), self._number("Q"), self._number("Q")
        values: dict[str, Value] = {}
        for _ in range(self._count(pairs, _LEAST_STRING + 5, _MOST_PAIRS)):
            begin = self._at
            key = self._name_of("a key")
            if key in values:
                raise self._damaged(f"{shown(key)} twice")
            values[key] = self._value(begin, self._number("I"))
        found = tuple(self._tensor() for _ in range(self._count(tensors, _LEAST_STRING + 16, _MOST_TENSORS)))
        alignment = self._alignment(values.get(ALIGNMENT))
        twice = next((name for name, count in Counter(each.name for each in found).items() if count > 1), None)
        if twice is not None:
            raise self._damaged(f"the tensor {shown(twice)} twice")
        header = GgufHeader(version, values, found, aligned(self._at, alignment), self._size, alignment)
        astray = next((each for each in found if each.offset % alignment), None)
        if astray is not None:
            raise self._damaged(
                f"the tensor {shown(astray.name)} at {astray.offset}, which is no multiple of {alignment}"
            )
        return header

    def _value(self, begin: int, kind: int) -> Value:
        if kind == STRING:
            length = self._number("Q")
            if length > _LONGEST_VALUE:
                self._skip(length)
                return Value(begin, self._at, kind)
            return Value(begin, content=self._take(length).decode("utf-8", "surrogateescape"), end=self._at, kind=kind)
        if kind == ARRAY:
            inner, count = self._number("I"), self._number("Q")
            if inner == STRING:
                self._strings(self._count(count, _LEAST_STRING, _MOST_STRINGS))
            elif inner in _LAYOUTS:
                self._skip(count * struct.calcsize(f"<{_LAYOUTS[inner]}"))
            else:
                more = ", an array of arrays, which no release reads" if inner == ARRAY else ""
                raise self._damaged(f"an array of type {inner}{more}")
            return Value(begin, self._at, kind, inner=inner, count=count)
        if kind in _LAYOUTS:
            content = self._number(_LAYOUTS[kind])
            return Value(begin, self._at, kind, content)
        raise self._damaged(f"a value of type {kind}")

    def _tensor(self) -> Tensor:
        name, dimensions = self._name_of("a tensor"), self._number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise self._damaged(f"a tensor of {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        tensor = Tensor(name, shape, self._number("I"), self._number("Q"))
        if tensor.elements >= 2**63:
            raise self._damaged(f"the tensor {shown(name)} of {' x '.join(map(str, shape))} numbers")
        return tensor

    def _alignment(self, value: Value | None) -> int:
        if value is None:
            return _USUAL_ALIGNMENT
        number = value.content if value.kind == _UNSIGNED_32 and isinstance(value.content, int) else 0
        if number.bit_count() != 1:
            raise self._damaged(
                f"an alignment of {shown(str(value.content))}; a power of two, as a number of 32 bits, was expected"
            )
        return number

    def _strings(self, count: int) -> None:
        """Pass over so many strings; done in the buffer as far as that goes, for vocabularies have half a million."""
        while count:
            buffer, place, end = self._buffer, self._place, len(self._buffer)
            while count and place + _LEAST_STRING <= end:
                after = place + _LEAST_STRING + int.from_bytes(buffer[place : place + _LEAST_STRING], "little")
                if after > end:
                    break
                place, count = after, count - 1
            self._place = place
            if count:
                self._skip(self._number("Q"))
                count -= 1

    def _name_of(self, what: str) -> str:
        length = self._number("Q")
        if length > min(_LONGEST_NAME, self._left):
            raise self._damaged(
                f"something of {length} bytes in the {self._left} bytes that are left, as the name of {what}"
            )
        return self._take(length).decode("utf-8", "surrogateescape")

    def _count(self, count: int, least_bytes: int, most: int) -> int:
        if count * least_bytes > self._left or count > most:
            raise self._damaged(f"{count} entries in the {self._left} bytes that are left")
        return count

    def _number(self, layout: str) -> int:
        number: int = struct.unpack(f"<{layout}", self._take(struct.calcsize(f"<{layout}")))[0]
        return number

    @property
    def _at(self) -> int:
        """How far into the file the walk has come."""
        return self._read - len(self._buffer) + self._place

    @property
    def _left(self) -> int:
        return self._size - self._at

    def _take(self, size: int) -> bytes:
        if size > self._left:
            raise self._damaged(f"something of {size} bytes in the {self._left} bytes that are left")
        while self._place + size > len(self._buffer):
            more = self._file.read(_BLOCK)
            if not more:
                raise self._damaged("something that is no longer there")
            self._buffer, self._place = self._buffer[self._place :] + more, 0
            self._read += len(more)
        found = self._buffer[self._place : self._place + size]
        self._place += size
        return found

    def _skip(self, size: int) -> None:
        if size > self._left:
            raise self._damaged(f"something of {size} bytes in the {self._left} bytes that are left")
        if self._place + size <= len(self._buffer):
            self._place += size
            return
        self._read = self._file.seek(self._at + size)
        self._buffer, self._place = b"", 0

    def _damaged(self, what: str) -> ModelError:
        return ModelError(
            f"{self._name} is a truncated or damaged GGUF file: its header names {visible(' '.join(what.split()))}",
            hint="get the file again from where it came from",
        )
