"""Whether a release can load a model, told by the model's header and by what is known of the release."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from meltrepro.chat.render import ends
from meltrepro.chat.template import ChatTemplate
from meltrepro.frameworks.base import Look
from meltrepro.frameworks.llamacpp import chat, gguf, split
from meltrepro.frameworks.llamacpp.header import ARCHITECTURE, STRING, GgufHeader, shown
from meltrepro.frameworks.llamacpp.knowledge import Knowledge, known, of_release
from meltrepro.frameworks.llamacpp.options import WIDTHS
from meltrepro.frameworks.llamacpp.synthetic import header_of
from meltrepro.manifest.shapes import ModelShape
from meltrepro.words import counted

_MODEL, _TOKENS, _MERGES = "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
_PRE = "tokenizer.ggml.pre"
_NONE = ("no_vocab", "none")
_PAIRS = "gpt2"
"""The tokenizer that joins pairs of bytes, which needs merges and looks at pre-tokenizers."""
_MOST_OF_TOKENS = 256 << 20


def look(model: Path | Mapping[str, Path], release: str, template: ChatTemplate | None, kv_type: object = None) -> Look:
    """What a release makes of a file, or of those of a split model; raises `ModelError` where it holds no model."""
    if not isinstance(model, Path):
        found, header = _seen(model[min(model)], split.header(model), release, template), split.header(model)
    else:
        path, info = model, model.stat()
        found, header = _look(path, (info.st_size, info.st_mtime_ns, info.st_ino), release, template)
    if found.refusal is None and isinstance(kv_type, str) and (why := _cache_refusal(header, kv_type)) is not None:
        return replace(found, refusal=why)
    return found


def _cache_refusal(found: GgufHeader, kv_type: str) -> str | None:
    """Why keys and values of a model cannot be kept as a type, of which many stand together."""
    keys, _, values = kv_type.partition("-")
    architecture = found.architecture
    heads, width = (found.number(f"{architecture}.{key}") for key in ("attention.head_count", "embedding_length"))
    for what, key, kind in (("keys", "key_length", keys), ("values", "value_length", values or keys)):
        size = found.number(f"{architecture}.attention.{key}") or (width // heads if width and heads else None)
        if size is not None and size % WIDTHS[kind]:
            return (
                f"its {what} have {size} numbers, which is no multiple of the {WIDTHS[kind]} that {kind} keeps together"
            )
    return None


def shape_refusal(shape: ModelShape, release: str) -> str | None:
    """Why a release cannot load a model of a shape, which nobody has written yet; `None` where it can, or nobody can tell."""
    knowledge = of_release(release)
    if knowledge is None:
        return None
    found = header_of(shape)
    if (why := _refusal(found, release, knowledge)) is not None:
        return why
    if shape.tokenizer is not None and knowledge.pre_tokenizers is None:
        return (
            f"release {release} does not look at pre-tokenizers, so that it would count other tokens than the model has"
        )
    return None


def describe(path: Path, release: str) -> str:
    """What a file is, and what of it a release knows, in a line."""
    said = gguf.describe(path)
    knowledge = of_release(release)
    if knowledge is None:
        return said
    found = gguf.read_or_none(path)
    why = _refusal(found, release, knowledge) if found is not None else None
    more = why or f"release {release} knows all that its header names"
    return f"{said}; {more}"


@lru_cache(maxsize=64)
def _look(
    path: Path, state: tuple[int, int, int], release: str, template: ChatTemplate | None
) -> tuple[Look, GgufHeader]:
    header = gguf.check(path)
    return _seen(path, header, release, template), header


def _seen(path: Path, found: GgufHeader, release: str, template: ChatTemplate | None) -> Look:
    """The same by a header, whose metadata are at `path`."""
    knowledge = of_release(release)
    refusal = _refusal(found, release, knowledge) if knowledge is not None else None
    context = found.number(f"{found.architecture}.context_length")
    warnings = () if refusal else tuple(_warnings(path, found, template))
    return Look(refusal, warnings, context or None, chat=chat.own(path, found))


def _refusal(found: GgufHeader, release: str, knowledge: Knowledge) -> str | None:
    """Why a release cannot load a model; `None` where nothing is in the way that a header shows."""
    architecture, tokenizer = found.architecture, found.text(_MODEL)
    if architecture is None:
        return f"its header does not say its architecture ({ARCHITECTURE})"
    if architecture not in knowledge.architectures:
        return f"release {release} does not know architecture {shown(architecture)} ({known(knowledge.architectures, architecture)})"
    unknown = [each for each in found.tensors if each.type not in knowledge.types]
    if unknown:
        return (
            f"release {release} does not know the type {unknown[0].type_name}, which {counted(len(unknown), 'tensor')} "
            f"of it {'has' if len(unknown) == 1 else 'have'}, the first of them {shown(unknown[0].name)}"
        )
    if not _is_whole(found):
        return None
    if tokenizer in (None, *_NONE) or not found.holds(_TOKENS):
        return f"it has no tokenizer ({_MODEL}, {_TOKENS})"
    if tokenizer not in knowledge.tokenizers:
        return f"release {release} does not know tokenizer {shown(tokenizer)} ({known(knowledge.tokenizers)})"
    if tokenizer == _PAIRS and not found.holds(_MERGES):
        return f"its tokenizer has no merges ({_MERGES})"
    pre = found.text(_PRE)
    if tokenizer == _PAIRS and pre and knowledge.pre_tokenizers is not None and pre not in knowledge.pre_tokenizers:
        return f"release {release} does not know pre-tokenizer {shown(pre)} ({known(knowledge.pre_tokenizers, pre)})"
    return None


def _warnings(path: Path, found: GgufHeader, template: ChatTemplate | None) -> Iterator[str]:
    if not _is_whole(found):
        yield f"its header names no layers ({shown(found.architecture or 'llama')}.block_count), so no release loads it"
        return
    tokens = found.values.get(_TOKENS)
    if template is None or tokens is None or tokens.inner != STRING or tokens.end - tokens.begin > _MOST_OF_TOKENS:
        return
    with path.open("rb") as file:
        file.seek(tokens.begin)
        text = file.read(tokens.end - tokens.begin)
    for marker in ends(template):
        if struct.pack("<Q", len(marker)) + marker.encode() not in text:
            yield f"{template.label} ends turns with {marker}, which is no token of it: answers will go on"


def _is_whole(found: GgufHeader) -> bool:
    """Whether a header describes a model with its layers, and not a piece that tests and tools make."""
    return found.number(f"{found.architecture}.block_count") is not None
