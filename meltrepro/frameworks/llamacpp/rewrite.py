"""GGUF files made of others: metadata and numbers are taken over byte by byte, so that nothing about them can be lost.

Not their types, nor what is empty, nor texts in no encoding. The bytes of what is written are part of a model's identity:
another order or padding would be another model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp.header import ARCHITECTURE, VERSION, Tensor, Value, aligned, shown

_AT_ONCE = 4 << 20


@dataclass(frozen=True)
class Piece:
    """A tensor in a file."""

    tensor: Tensor
    file: BinaryIO
    data: int
    """Where the numbers of that file begin."""


def write(
    out: BinaryIO, values: Mapping[str, Value], file: BinaryIO, tensors: Sequence[tuple[str, Piece]], alignment: int
) -> None:
    """Write a file of tensors and of the metadata of a `file`: the architecture first, then all in the order in which it is given.

    Raises `ModelError` where a file has become shorter, or a tensor is of a type whose size is not known.
    """
    out.write(b"GGUF" + struct.pack("<IQQ", VERSION, len(tensors), len(values)))
    first = values[ARCHITECTURE]
    for value in (first, *(each for each in values.values() if each is not first)):
        _copy(file, value.begin, value.end - value.begin, out.write)
    offset = 0
    for name, piece in tensors:
        text, shape = name.encode("utf-8", "surrogateescape"), piece.tensor.dimensions
        out.write(struct.pack("<Q", len(text)) + text + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        out.write(struct.pack("<IQ", piece.tensor.type, offset))
        offset = aligned(offset + size_of(piece.tensor), alignment)
    _pad(out, alignment)
    for _, piece in tensors:
        _copy(piece.file, piece.data + piece.tensor.offset, size_of(piece.tensor), out.write)
        _pad(out, alignment)


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor; raises `ModelError` where that is not known."""
    if tensor.size is None:
        raise ModelError(
            f"how large the tensor {shown(tensor.name)} is ({tensor.type_name}) is not known here",
            hint="convert or quantize the model anew",
        )
    return tensor.size


def pieces(file: BinaryIO, begin: int, size: int) -> Iterator[bytes]:
    """A part of a file; raises `ModelError` where the file has become shorter."""
    file.seek(begin)
    while size:
        piece = file.read(min(size, _AT_ONCE))
        if not piece:
            raise ModelError(
                "a GGUF file ends before its last tensor", hint="get the file again from where it came from"
            )
        size -= len(piece)
        yield piece


def _pad(out: BinaryIO, alignment: int) -> None:
    place = out.tell()
    out.write(bytes(aligned(place, alignment) - place))


def _copy(file: BinaryIO, begin: int, size: int, write: Callable[[bytes], object]) -> None:
    for piece in pieces(file, begin, size):
        write(piece)
