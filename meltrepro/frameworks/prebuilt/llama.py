"""Which models of the Llama family, and of its relatives, can be converted, told by a GGUF header alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp.header import GgufHeader, Tensor
from meltrepro.frameworks.prebuilt.families import FAMILIES

LLAMA = ("llama",)
"""What every engine takes."""
EMBEDDING, OUTPUT, _NORM, FACTORS = "token_embd.weight", "output.weight", "output_norm.weight", "rope_freqs.weight"
_PARTS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
_LAYER = tuple(f"{part}.weight" for part in _PARTS)
BLOCK = 32
"""Numbers that share a scale."""
TYPES = frozenset(("Q4_0", "Q8_0", "Q6_K", "F32", "F16"))
"""What can be taken over."""


@dataclass(frozen=True)
class LlamaShape:
    """What a header says of a model's size."""

    layers: int
    heads: int
    kv_heads: int
    head: int
    """Numbers of a head."""
    rotated: int
    """Those of them that are turned, the first."""
    width: int
    vocabulary: int
    context: int
    base: float
    """Of the rotations' frequencies."""
    epsilon: float


def refusal(header: GgufHeader, architectures: Collection[str] = LLAMA, *, as_is: bool = False) -> str | None:
    """Why a model cannot be converted, by its header; with `as_is` its codes are to be kept."""
    kind = header.architecture
    if kind is None or kind not in architectures:
        return unknown(kind, architectures)
    for key in ("expert_count", "rope.scaling.type"):
        value = header.values.get(f"{kind}.{key}")
        if value is not None and value.content not in (0, "none"):
            return f"its {kind}.{key} is {value.content}, which is not converted"
    family, names = FAMILIES[kind], {each.name: each for each in header.tensors}
    layers = header.number(f"{kind}.block_count") or 0
    whole = {EMBEDDING, _NORM, *(("output_norm.bias",) if family.centred else ())}

    def of_layers(*parts: str) -> set[str]:
        return {f"blk.{i}.{part}" for i in range(layers) for part in parts}

    wanted = whole | of_layers(*_LAYER, *family.needs) - of_layers(*family.may_lack)
    if layers and not wanted <= names.keys():
        return f"it has no tensor {min(wanted - names.keys())}"
    groups = [of_layers(*group) for group in (*family.may_have, family.may_lack)]
    odd = names.keys() - wanted.union(*groups, {OUTPUT}, {FACTORS} if kind in LLAMA else ())
    if layers and odd:
        return f"its tensor {min(odd)} is not converted"
    for group in groups:
        if names.keys() & group and not group <= names.keys():
            return f"it has no tensor {min(group - names.keys())}, and others of the kind"
    odd_type = next((each for each in header.tensors if each.type_name not in TYPES), None)
    return refused_type(odd_type) if as_is and odd_type is not None else None


def unknown(kind: str | None, architectures: Collection[str]) -> str:
    """Why models of an architecture are not converted."""
    return f"models of architecture {kind or 'that they do not name'} are not converted, those of {', '.join(architectures)} are"


def misfit(header: GgufHeader, *, whole: bool) -> str | None:
    """Why a model that has all tensors has no size that can be converted."""
    if not header.number(f"{header.architecture}.block_count"):  # a piece of one, which llama.cpp's tools speak of
        return None
    try:
        shape_of(header, whole=whole)
    except ModelError as error:
        return error.message
    return None


def shape_of(header: GgufHeader, *, whole: bool = True) -> LlamaShape:
    """Raises `ModelError` for sizes that are missing or do not fit together; with `whole` heads are to fill the width and turn whole."""
    kind = header.architecture

    def number(key: str, absent: float | None = None) -> float:
        value = header.values.get(f"{kind}.{key}")
        if value is None and absent is not None:
            return absent
        if value is None or isinstance(value.content, str | None) or not value.content > 0:
            raise ModelError(f"the header has no {kind}.{key}", hint="get the file again from where it came from")
        return value.content

    named = {each.name: each.dimensions for each in header.tensors}
    (width, vocabulary), heads = named[EMBEDDING], int(number("attention.head_count"))
    kv_heads, head = int(number("attention.head_count_kv", heads)), int(number("attention.key_length", width // heads))
    rotated = int(number("rope.dimension_count", head))
    columns = {each.dimensions[0] for each in header.tensors if len(each.dimensions) == 2 and "norm" not in each.name}
    rows = [named[f"blk.0.attn_{part}.weight"][1] for part in "qkv"]
    fits = rows == [heads * head, kv_heads * head, kv_heads * head] and rotated <= head and not rotated % 2
    if whole:
        fits = fits and head * heads == width and rotated == head
    if not fits or heads % kv_heads or any(each % BLOCK for each in columns):
        raise ModelError(
            f"a width of {width} with {heads} heads of {head} ({kv_heads} for keys, {rotated} rotated) is not converted"
        )
    return LlamaShape(
        *(int(number("block_count")), heads, kv_heads, head, rotated, width, vocabulary, int(number("context_length"))),
        *(float(number("rope.freq_base", 10000.0)), float(number(FAMILIES[str(kind)].epsilon))),
    )


def refused_type(tensor: Tensor) -> str:
    """Why a tensor's codes cannot be kept."""
    return f"its tensor {tensor.name} is {tensor.type_name}, whose codes cannot be kept; those of {', '.join(sorted(TYPES))} can"
