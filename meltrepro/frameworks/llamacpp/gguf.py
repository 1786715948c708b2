"""GGUF files: what one is and what is wrong with it, told by its header, before anything is made of it."""

from __future__ import annotations

import re
from pathlib import Path

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp import header
from meltrepro.frameworks.llamacpp.header import GgufHeader, called, shown
from meltrepro.store.kinds import kind_of
from meltrepro.words import counted, readable

_MAGIC = b"GGUF"
_AGAIN = "get the file again from where it came from"
_MERGE = "merge them with llama-gguf-split --merge FIRST OUT, and name OUT"
_SPLIT, _SPLITS = "split.no", "split.count"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_OTHERS = {
    "adapter": "a LoRA adapter, which changes a model and is none",
    "imatrix": "an importance matrix, which helps a quantizer and is no model",
    "mmproj": "the part of a model that reads pictures (mmproj), without the model itself",
}
"""What else is written as GGUF, by `general.type`."""
_OTHER_ARCHITECTURES = {"clip": "mmproj", "imatrix": "imatrix"}


def check(path: Path) -> GgufHeader:
    """The header of a file that holds a whole model; raises `ModelError` for anything else, with what it is instead."""
    _require_magic(path)
    found = header.read(path)
    _require_whole(path, found)
    require_model(called(path), found)
    return found


def scan(path: Path) -> GgufHeader:
    """The header of a file, whatever it holds; raises `ModelError` where there is none or it is damaged."""
    _require_magic(path)
    return header.read(path)


def parameters(path: Path) -> int:
    """How many weights a file holds; raises `ModelError` for a file that cannot be read."""
    return sum(tensor.elements for tensor in scan(path).tensors)


def read_or_none(path: Path) -> GgufHeader | None:
    """The header of a file; `None` where there is none that can be read."""
    try:
        return scan(path)
    except (ModelError, OSError):
        return None


def describe(path: Path) -> str:
    """What a file is, in a line: `GGUF 3, llama, 291 tensors (226 Q4_0, 65 F32), 3.8 GB`; an error's message of a broken one."""
    try:
        found = scan(path)
    except ModelError as error:
        return error.message
    except OSError as error:
        return f"its file cannot be read: {error}"
    types = ", ".join(f"{count} {kind}" for kind, count in found.types.most_common(4))
    parts = [
        f"GGUF {found.version}",
        shown(found.architecture or "no architecture"),
        f"{counted(len(found.tensors), 'tensor')} ({types})",
        readable(found.size),
    ]
    kind, pre = found.text("tokenizer.ggml.model"), found.text("tokenizer.ggml.pre")
    if kind is not None:
        parts.insert(2, f"tokenizer {shown(kind)}" + (f" ({shown(pre)})" if pre is not None else ""))
    if found.size > found.end + found.alignment:
        parts.append(f"{found.size - found.end:,} bytes behind its end")
    return ", ".join(parts)


def name_refusal(name: str) -> str | None:
    """Why a file is no model by its name; `None` where it may be one."""
    part = shard(name)
    return f"by its name it is {part}: get all of them, and name the first as a source of kind file" if part else None


def shard(name: str) -> str | None:
    """What a file name says of a split model; `None` where it names a whole one."""
    found = _SHARD.search(name)
    if found is None or int(found[2]) < 2:
        return None
    return f"file {int(found[1])} of {int(found[2])} of a split model"


def _require_magic(path: Path) -> None:
    name = called(path)
    with path.open("rb") as file:
        head = file.read(24)
    if head[:4] != _MAGIC:
        kind = kind_of(path)
        what = f"; it is {kind.what}" if kind is not None else ""
        raise ModelError(
            f"{name} is not a GGUF file: it begins with {head[:4]!r}, expected {_MAGIC!r}{what}",
            hint=kind.hint
            if kind is not None
            else "give a file in GGUF format; convert other formats with llama.cpp's converter first",
        )
    version = int.from_bytes(head[4:8], "little")
    if version and not version & 0xFFFF:
        raise ModelError(
            f"{name} is a GGUF file of version {version}, which is {int.from_bytes(head[4:8], 'big')} on a big-endian "
            "machine: it was written for one, and versions 2 and 3 in little-endian are supported",
            hint="take the little-endian file, or turn it with: gguf-convert-endian FILE little (from the package gguf)",
        )
    if version not in (2, 3):
        raise ModelError(
            f"{name} is a GGUF file of version {version}; versions 2 and 3 are supported",
            hint="convert the model anew, or take a newer file" if version < 2 else _AGAIN,
        )
    if len(head) < 24:
        raise ModelError(f"{name} is a GGUF file without tensors, or a truncated one", hint=_AGAIN)


def _require_whole(path: Path, found: GgufHeader) -> None:
    """Raise `ModelError` for a part of a split model, a file that ends too early, and files that were joined."""
    name, shards = called(path), found.number(_SPLITS) or 0
    joined = _joined(path, found)
    if shards > 1:
        first = (found.number(_SPLIT) or 0) + 1
        what = f"{counted(shards, 'file')} joined by cat" if joined else f"file {first} of {shards}"
        raise ModelError(f"{name} is {what} of a split model (split.count {shards})", hint=_merge(path, joined, shards))
    if joined:
        raise ModelError(
            f"{name} holds more than one GGUF file, one behind the other", hint=_merge(path, joined, shards)
        )
    require_end(name, found)


def require_end(name: str, found: GgufHeader) -> None:
    """Raise `ModelError` for a file that ends too early, or whose rows end within a block."""
    if found.end > found.size:
        last = max(found.tensors, key=lambda each: each.offset)
        raise ModelError(
            f"{name} is a truncated GGUF file: it has {found.size:,} bytes, and its tensor {shown(last.name)} ends at {found.end:,}",
            hint=_AGAIN,
        )
    broken = next((each for each in found.tensors if each.dimensions[0] % each.block), None)
    if broken is not None:
        raise ModelError(
            f"{name} is a damaged GGUF file: its tensor {shown(broken.name)} has rows of {broken.dimensions[0]} numbers, and "
            f"{broken.type_name} holds them by {broken.block}",
            hint=_AGAIN,
        )


def _merge(path: Path, joined: bool, shards: int) -> str:
    if joined:
        return "cat does not make a model of them: merge the files as they were with llama-gguf-split --merge FIRST OUT"
    first = _SHARD.sub(lambda match: f"-00001-of-{match[2]}.gguf", path.name)
    if _SHARD.search(path.name) is None:
        return _MERGE
    missing = [
        number
        for number in range(1, min(shards, 1000) + 1)
        if not path.with_name(_SHARD.sub(f"-{number:05}-of-{shards:05}.gguf", path.name)).exists()
    ]
    whole = f"merge them with llama-gguf-split --merge {first} OUT, and name OUT"
    return f"get the other files too ({counted(len(missing), 'file')} not here), then {whole}" if missing else whole


def _joined(path: Path, found: GgufHeader) -> bool:
    """Whether another file begins where this one ends."""
    places = {found.end, header.aligned(found.end, found.alignment)}
    with path.open("rb") as file:
        for place in (each for each in places if each < found.size):
            file.seek(place)
            if file.read(4) == _MAGIC:
                return True
    return False


def require_model(name: str, found: GgufHeader) -> None:
    """Raise `ModelError` for what else is written as GGUF."""
    other = found.text("general.type") or _OTHER_ARCHITECTURES.get(found.architecture or "")
    if other in _OTHERS:
        raise ModelError(f"{name} is {_OTHERS[other]}", hint="name the file of the model itself")
    if not found.tensors:
        raise ModelError(
            f"{name} is a GGUF file without tensors, or a truncated one",
            hint="a vocabulary alone is no model: name the file that has the weights, or get it again",
        )
