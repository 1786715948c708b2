"""The one rewrite that old releases need: a copy whose output matrix stands in the file, held against its source.

What is new is the list of tensors, which has one more.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.header import ARCHITECTURE, called, shown
from meltrepro.frameworks.llamacpp.rewrite import Piece, pieces, size_of, write

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
_SHARING = frozenset({"gemma"})
"""Architectures whose output matrix is the embedding's by definition: no release looks for another."""


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
        tensors = {each.name: Piece(each, file, found.data) for each in found.tensors}
        write(out, found.values, file, [*tensors.items(), (OUTPUT, tensors[EMBEDDING])], found.alignment)
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
            size = size_of(tensor)
            if not _same(before, old.data + tensor.offset, size, after, new.data + there_.offset, size):
                raise _differs(copy, f"the tensor {shown(name)} has other numbers")


def _same(one: BinaryIO, at: int, size: int, other: BinaryIO, there: int, length: int) -> bool:
    if size != length:
        return False
    return all(a == b for a, b in zip(pieces(one, at, size), pieces(other, there, size), strict=True))


def _differs(copy: Path, what: str) -> ModelError:
    return ModelError(
        f"{called(copy)} is not a faithful copy of its source: {what}",
        hint="the disk may be at fault; if it comes again, report it as a fault of meltrepro",
    )
