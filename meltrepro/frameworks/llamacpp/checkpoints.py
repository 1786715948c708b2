"""Checkpoints: what is wrong with one, told by its configuration and the headers of its weights, before anything converts it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from meltrepro.chat.own import of_checkpoint, says
from meltrepro.chat.render import ends
from meltrepro.chat.template import ChatTemplate
from meltrepro.errors import ModelError
from meltrepro.frameworks.base import Look
from meltrepro.frameworks.llamacpp.knowledge import known, of_release
from meltrepro.store.kinds import kind_of
from meltrepro.untrusted import read_regular

_CONFIG, _INDEX = "config.json", "model.safetensors.index.json"
_AGAIN = "download the checkpoint again"
_HEADER_BYTES = 100 << 20
"""No header of a safetensors file is longer; its length is the file's own claim."""
_TYPES = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"})
"""Of the numbers that converters read."""
_BY_HAND = "convert it by hand, and give the GGUF file as source"
_NEWEST = "2026-10-01"
"""The release that converts most; engines from wheels take its converter."""


def check(files: Mapping[str, Path]) -> None:
    """Raise `ModelError` where a checkpoint's files, by name, are damaged or of a kind that is not converted."""
    if (refused := _refusal(files, _NEWEST)) is not None:
        raise ModelError(f"{_CONFIG}: {refused}", hint=_BY_HAND)
    if (refused := _check_weights(files)) is not None:
        raise ModelError(refused, hint="choose the unquantized repository of the model")


def look(files: Mapping[str, Path], release: str, template: ChatTemplate | None) -> Look:
    """What is to be said of a checkpoint's files, of which the weights may not be here; raises `ModelError` for damage."""
    refused = _refusal(files, release)
    if refused is None and any(name.endswith(".safetensors") for name in files):
        refused = _check_weights(files)
    context = _json(_CONFIG, _small(files[_CONFIG])).get("max_position_embeddings")
    known = context if type(context) is int and context > 0 else None
    warnings = () if refused else tuple(_warnings(files, template))
    chat = of_checkpoint({name: _small(path) for name, path in files.items() if says(name)})
    return Look(refused, warnings, known, chat=chat)


def architecture(files: Mapping[str, Path]) -> str | None:
    """As the GGUF file of it will name its architecture; `None` for one that is not converted."""
    kind, newest = _named(_json(_CONFIG, _small(files[_CONFIG]))), of_release(_NEWEST)
    return newest.checkpoints.get(kind) if isinstance(kind, str) and newest is not None else None


def _named(config: Mapping[str, Any]) -> object:
    kinds = config.get("architectures")
    return kinds[0] if isinstance(kinds, list) and kinds else None


def _refusal(files: Mapping[str, Path], release: str) -> str | None:
    """Why a release does not convert a checkpoint, by its configuration; raises `ModelError` where that is damaged."""
    config, knowledge = _json(_CONFIG, _small(files[_CONFIG])), of_release(release)
    if knowledge is None:
        return None
    kind = _named(config)
    if not isinstance(kind, str) or kind not in knowledge.checkpoints:
        other = f"; it is a {config['model_type']}" if isinstance(config.get("model_type"), str) else ""
        near = known(knowledge.checkpoints, kind if isinstance(kind, str) else "")
        return f"models of the architecture {kind or 'that it does not name'} are not converted by release {release}{other} ({near})"
    quantized = config.get("quantization_config")
    if isinstance(quantized, dict) and (method := str(quantized.get("quant_method"))) not in knowledge.unpacks:
        others = f"plain ones and {', '.join(knowledge.unpacks)}" if knowledge.unpacks else "only plain ones"
        return f"its weights are quantized already ({method}), and release {release} converts {others}"
    return None


def _check_weights(files: Mapping[str, Path]) -> str | None:
    """Raise `ModelError` for damaged weights; returns why whole ones are not converted."""
    weights = {name: _tensors(name, path) for name, path in files.items() if name.endswith(".safetensors")}
    if _INDEX in files:
        where = _json(_INDEX, _small(files[_INDEX])).get("weight_map")
        if not isinstance(where, dict):
            raise ModelError(f"{_INDEX} has no weight_map", hint=_AGAIN)
        for tensor, file in where.items():
            if tensor not in weights.get(str(file), ()):
                what = f"{file} does not hold it" if str(file) in weights else f"there is no {file}"
                raise ModelError(f"{_INDEX} names the tensor {tensor} in {file}, and {what}", hint=_AGAIN)
    kinds = {kind: f"{tensor} in {name}" for name, tensors in weights.items() for tensor, kind in tensors.items()}
    foreign = sorted(kinds.keys() - _TYPES)
    if foreign:
        return f"{kinds[foreign[0]]} holds numbers of type {foreign[0]}, and the converter reads {', '.join(sorted(_TYPES))}"
    return None


def _warnings(files: Mapping[str, Path], template: ChatTemplate | None) -> Iterator[str]:
    """A marker that ends answers is a token of its own, and stands as such in a tokenizer's files."""
    texts = [_small(path) for name, path in files.items() if "token" in name or name == "vocab.json"]
    if template is None or not texts:
        return
    for marker in ends(template):
        if not any(marker.encode() in text for text in texts):
            yield f"{template.label} ends turns with {marker}, which is no token of it: answers will go on"


def _small(path: Path) -> bytes:
    try:
        return read_regular(path, _HEADER_BYTES)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error}", hint=_AGAIN) from error


def _json(name: str, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} is no JSON: {error}", hint=_AGAIN) from error
    if not isinstance(document, dict):
        raise ModelError(f"{name} is no JSON object", hint=_AGAIN)
    return document


def _tensors(name: str, path: Path) -> Mapping[str, str]:
    """Types of the tensors in a safetensors file by name; raises `ModelError` where the file is cut off or something else."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_BYTES):
            kind = kind_of(path)
            what = f"it is {kind.what}" if kind is not None else f"the first bytes say that {length} are its header"
            raise ModelError(
                f"{name} is cut off or no safetensors file: {size} bytes, {what}",
                hint=kind.hint if kind is not None and size else "download it again",
            )
        header = _json(f"the header of {name}", file.read(length))
    try:
        tensors = {key: entry for key, entry in header.items() if key != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        kinds = {key: str(entry["dtype"]) for key, entry in tensors.items()}
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"the header of {name} does not say where its tensors are", hint="download it again"
        ) from error
    expected = 8 + length + end
    if size != expected:
        raise ModelError(f"{name} has {size} bytes, and its header says {expected}", hint="download the file again")
    return kinds
