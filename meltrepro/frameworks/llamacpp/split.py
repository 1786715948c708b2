"""Models that were split into several GGUF files (`NAME-00001-of-00003.gguf`): seen and joined as the one that they are.

The first file has the metadata, each its tensors. Releases before March 2024 load no split ones, and no quantizer takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

from meltrepro.errors import ModelError
from meltrepro.frameworks.base import ModelStep
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.header import GgufHeader, shown
from meltrepro.frameworks.llamacpp.rewrite import Piece, write
from meltrepro.store.checkpoint import CONFIG
from meltrepro.words import counted

_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"
_AGAIN = "get all of its files again, from one place"


def is_split(model: Path | Mapping[str, Path]) -> TypeGuard[Mapping[str, Path]]:
    """Whether files are those of a split model, and not those of a checkpoint."""
    return not isinstance(model, Path) and CONFIG not in model


def header(model: Path | Mapping[str, Path]) -> GgufHeader:
    """What a file says, or the files of a split model by name say together; raises `ModelError` where they are not whole.

    Offsets of tensors are those in their own files.
    """
    if isinstance(model, Path):
        return gguf.check(model)
    files = model
    found = _headers(files)
    whole = replace(
        found[0],
        values={key: value for key, value in found[0].values.items() if key not in (_NUMBER, _COUNT, _TENSORS)},
        tensors=tuple(tensor for each in found for tensor in each.tensors),
        size=sum(each.size for each in found),
    )
    gguf.require_model(min(files), whole)
    return whole


def join(folder: Path, destination: Path) -> bool:
    """Write one file of a split model whose files are in a folder; the same files give the same bytes."""
    files = {path.name: path for path in folder.iterdir()}
    whole, found = header(files), _headers(files)
    with ExitStack() as stack, destination.open("wb") as out:
        opened = [stack.enter_context(files[name].open("rb")) for name in sorted(files)]
        tensors = [
            (tensor.name, Piece(tensor, file, each.data))
            for file, each in zip(opened, found, strict=True)
            for tensor in each.tensors
        ]
        write(out, whole.values, opened[0], tensors, whole.alignment)
    return True


STEP = ModelStep("join-1", run=join, shared=True)
"""Name and version are part of a model's identity."""


def _headers(files: Mapping[str, Path]) -> list[GgufHeader]:
    """Of each file in order; raises `ModelError` where one is damaged, or of another model or place than its name says."""
    found = {name: gguf.scan(files[name]) for name in sorted(files)}
    for number, (name, each) in enumerate(found.items()):
        said = (each.number(_NUMBER), each.number(_COUNT))
        if said != (number, len(files)):
            what = "no part of a split model" if said[1] is None else f"file {(said[0] or 0) + 1} of {said[1]}"
            raise ModelError(
                f"{name} is by its name file {number + 1} of {len(files)} of a split model, by its header {what}",
                hint=_AGAIN,
            )
        gguf.require_end(name, each)
    names = [tensor.name for each in found.values() for tensor in each.tensors]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"{min(files)}: two files of the split model have the tensor {shown(twice)}", hint=_AGAIN)
    first = next(iter(found.values()))
    count = first.number(_TENSORS)
    if count is not None and count != len(names):
        raise ModelError(
            f"{min(files)}: the split model should have {counted(count, 'tensor')}, its files have {len(names)}",
            hint=_AGAIN,
        )
    return list(found.values())
