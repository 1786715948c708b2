"""What every converted model has beside its weights: `vocabulary.gguf`, the source's tokens, and `model.json`, which the runner reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp.header import ARCHITECTURE, VERSION, GgufHeader
from meltrepro.frameworks.prebuilt.llama import FACTORS, LlamaShape

VOCABULARY, FACTS = "vocabulary.gguf", "model.json"


class Converted(Protocol):
    """What an engine says of its folders."""

    @property
    def title(self) -> str: ...

    @property
    def files(self) -> Sequence[str]: ...


def write_vocabulary(source: Path, header: GgufHeader, folder: Path) -> None:
    """The metadata byte by byte, without a tensor: what llama.cpp's tokenizer reads."""
    first = header.values[ARCHITECTURE]
    others = [each for each in header.values.values() if each is not first]
    with source.open("rb") as file, (folder / VOCABULARY).open("wb") as out:
        head: Sequence[int] = (VERSION, 0, len(header.values))
        out.write(b"GGUF" + head[0].to_bytes(4, "little") + b"".join(each.to_bytes(8, "little") for each in head[1:]))
        for value in (first, *others):
            file.seek(value.begin)
            out.write(file.read(value.end - value.begin))
        out.write(bytes(-out.tell() % header.alignment))


def write_facts(header: GgufHeader, shape: LlamaShape, folder: Path, **more: object) -> None:
    """What every runner reads, and what else an engine wants to know."""
    facts = {
        "layers": shape.layers,
        "kv_heads": shape.kv_heads,
        "head": shape.head,
        "vocabulary": shape.vocabulary,
        "context": shape.context,
        "parameters": sum(each.elements for each in header.tensors if each.name != FACTORS),
        **more,
    }
    (folder / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def facts_of(folder: Path, engine: Converted) -> Mapping[str, int]:
    """What the conversion wrote beside a model; raises `ModelError` where the folder is not all of one."""
    missing = [name for name in (*engine.files, VOCABULARY, FACTS) if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"the folder has no {missing[0]}, so it is no model that was converted for {engine.title}")
    found: Mapping[str, int] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return found
