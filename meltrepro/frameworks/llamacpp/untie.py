"""The one rewrite that old releases need: a copy whose output matrix stands in the file, held against its source.

All metadata are taken over byte by byte, so that nothing about them can be lost: not their types, nor what is empty, nor
texts in no encoding. What is new is the list of tensors, which has one more. The bytes of a copy are part of a model's
identity: another order or padding would be another model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.header import ARCHITECTURE, VERSION, GgufHeader, Tensor, aligned, called, shown

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
_SHARING = frozenset({"gemma"})
"""Architectures whose output matrix is the embedding's by definition: no release looks for another."""
_PIECE = 4 << 20


def untie(source: Path, destination: Path) -> bool:
    """Write a copy whose output matrix stands in the file, for releases that cannot share the embedding's.

    Returns `False`, and writes nothing, where the file has one. The same source gives the same bytes; the weights are
    the same numbers. Raises `ModelError` for a file that cannot be read, or where the copy is not what it should be.
    """
    found = gguf.check(source)
    names = {tensor.name for tensor in found.tensors}
    if found.architecture is None:
        raise ModelError(
            f"{called(source)} cannot be read as GGUF: it does not say its architecture ({ARCHITECTURE})",
            hint="get the file again from where it came from",
        )
    if OUTPUT in names or EMBEDDING not in names or found.architecture in _SHARING:
        return False
    unknown = next((each for each in found.tensors if each.size is None), None)
    if unknown is not None:
        raise ModelError(
            f"{called(source)} cannot be copied: how large its tensor {shown(unknown.name)} is ({unknown.type_name}) is not known here",
            hint="convert or quantize the model anew",
        )
    with source.open("rb") as file, destination.open("wb") as out:
        _write(file, found, out)
    compare(source, destination)
    return True


def compare(source: Path, copy: Path) -> None:
    """Raise `ModelError` unless a copy has the metadata and tensors of its source, and the embedding as output matrix.

    Reads both files once more, piece by piece.
    """
    old, new = gguf.check(source), gguf.check(copy)
    tensors = {each.name: each for each in old.tensors}
    wanted = {**tensors, OUTPUT: tensors[EMBEDDING]}
    written = {each.name: each for each in new.tensors}
    if new.values.keys() != old.values.keys() or written.keys() != wanted.keys():
        what = next(iter((new.values.keys() ^ old.values.keys()) | (written.keys() ^ wanted.keys())))
        raise _differs(copy, f"one of them has no {shown(what)}")
    with source.open("rb") as before, copy.open("rb") as after:
        for key, value in old.values.items():
            there = new.values[key]
            if not _same(before, value.begin, value.end - value.begin, after, there.begin, there.end - there.begin):
                raise _differs(copy, f"the value of {shown(key)} is another")
        for name, tensor in wanted.items():
            there_ = written[name]
            if (tensor.dimensions, tensor.type) != (there_.dimensions, there_.type):
                raise _differs(copy, f"the tensor {shown(name)} has another shape or type")
            size = _size(tensor)
            if not _same(before, old.data + tensor.offset, size, after, new.data + there_.offset, size):
                raise _differs(copy, f"the tensor {shown(name)} has other numbers")


def _write(file: BinaryIO, found: GgufHeader, out: BinaryIO) -> None:
    """The copy: architecture first, then the other values and the tensors in the order of the source, then the new one."""
    tensors = {each.name: each for each in found.tensors}
    written = [*tensors.items(), (OUTPUT, tensors[EMBEDDING])]
    out.write(b"GGUF" + struct.pack("<IQQ", VERSION, len(written), len(found.values)))
    first = found.values[ARCHITECTURE]
    for value in (first, *(each for each in found.values.values() if each is not first)):
        _copy(file, value.begin, value.end - value.begin, out.write)
    offset = 0
    for name, tensor in written:
        text, shape = name.encode("utf-8", "surrogateescape"), tensor.dimensions
        out.write(struct.pack("<Q", len(text)) + text + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        out.write(struct.pack("<IQ", tensor.type, offset))
        offset = aligned(offset + _size(tensor), found.alignment)
    _pad(out, found.alignment)
    for _, tensor in written:
        _copy(file, found.data + tensor.offset, _size(tensor), out.write)
        _pad(out, found.alignment)


def _size(tensor: Tensor) -> int:
    assert tensor.size is not None, "refused before anything is written"
    return tensor.size


def _pad(out: BinaryIO, alignment: int) -> None:
    place = out.tell()
    out.write(bytes(aligned(place, alignment) - place))


def _copy(file: BinaryIO, begin: int, size: int, write: Callable[[bytes], object]) -> None:
    for piece in _pieces(file, begin, size):
        write(piece)


def _same(one: BinaryIO, at: int, size: int, other: BinaryIO, there: int, length: int) -> bool:
    if size != length:
        return False
    return all(a == b for a, b in zip(_pieces(one, at, size), _pieces(other, there, size), strict=True))


def _pieces(file: BinaryIO, begin: int, size: int) -> Iterator[bytes]:
    """A part of a file; raises `ModelError` where the file has become shorter."""
    file.seek(begin)
    while size:
        piece = file.read(min(size, _PIECE))
        if not piece:
            raise ModelError(
                "a GGUF file ends before its last tensor", hint="get the file again from where it came from"
            )
        size -= len(piece)
        yield piece


def _differs(copy: Path, what: str) -> ModelError:
    return ModelError(
        f"{called(copy)} is not a faithful copy of its source: {what}",
        hint="the disk may be at fault; if it comes again, report it as a fault of meltrepro",
    )
