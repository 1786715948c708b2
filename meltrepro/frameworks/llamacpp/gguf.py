"""GGUF files: what is checked before anything is built from them, and the one rewrite that old releases need."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from meltrepro.errors import ModelError

_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_SHARING = frozenset({"gemma"})
"""Architectures whose output matrix is the embedding's by definition: no release looks for another."""
_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type; 8 is a string, 9 an array."""
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4
_LEAST_STRING = 8
"""The length that stands before it."""


def check(path: Path) -> None:
    """Raise `ModelError` unless the file begins as a GGUF file of version 2 or 3 does and names at least one tensor."""
    with path.open("rb") as file:
        head = file.read(24)
    if head[:4] != b"GGUF":
        raise ModelError(
            f"{path.name[:16]} is not a GGUF file: it begins with {head[:4]!r}, expected b'GGUF'",
            hint="give a file in GGUF format; convert other formats with llama.cpp's converter first",
        )
    version = int.from_bytes(head[4:8], "little")
    if version not in (2, 3):
        raise ModelError(f"{path.name[:16]} is a GGUF file of version {version}; versions 2 and 3 are supported")
    if len(head) < 24 or int.from_bytes(head[8:16], "little") == 0:
        raise ModelError(f"{path.name[:16]} is a GGUF file without tensors, or a truncated one")


def parameters(path: Path) -> int:
    """How many weights a file holds; raises `ModelError` for a file that cannot be read."""
    import gguf

    scan(path)
    try:
        return sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(path).tensors)
    except (ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{path.name[:16]} cannot be read as GGUF: {error}") from error


def untie(source: Path, destination: Path) -> bool:
    """Write a copy whose output matrix stands in the file, for releases that cannot share the embedding's.

    Returns `False`, and writes nothing, where the file has one. The same source gives the same bytes; the weights are
    the same numbers. Raises `ModelError` for a file that cannot be read.
    """
    import gguf

    scan(source)
    try:
        reader = gguf.GGUFReader(source)
        names = [tensor.name for tensor in reader.tensors]
        architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
        values = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, LookupError) as error:
        raise ModelError(
            f"{source.name[:16]} cannot be read as GGUF: {error}", hint="get the file again from where it came from"
        ) from error
    if _OUTPUT in names or _EMBEDDING not in names or architecture in _SHARING:
        return False
    writer = gguf.GGUFWriter(destination, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == gguf.Keys.General.ARCHITECTURE:
            continue  # the writer adds these itself
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, values[name], field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    embedding = reader.tensors[names.index(_EMBEDDING)]
    writer.add_tensor(_OUTPUT, embedding.data, raw_dtype=embedding.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return True


# -- header ------------------------------------------------------------------------------------------------------------


def scan(path: Path) -> None:
    """Raise `ModelError` where a header goes on behind the end of its file or names what no GGUF file has.

    Every count is held against the bytes that are there: a reader that believes in 2^40 strings reads for days, and a model
    file comes from anywhere.
    """
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
            elif inner in _VALUE_BYTES:
                self._skip(count * _VALUE_BYTES[inner])
            else:
                raise self._damaged(f"an array of type {inner}")
        elif kind in _VALUE_BYTES:
            self._skip(_VALUE_BYTES[kind])
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
