"""Tiny whole models of every family as GGUF files, with made-up numbers: norms, biases and factors are such that each of them tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import gguf as library
import numpy as np

from meltrepro.frameworks.llamacpp.vocabulary import vocabulary
from meltrepro.manifest.shapes import SHAPES
from tests.support.ggufs import ARRAY, BOOL, I32, REAL, STRING, U32, Value, gguf

WIDTH, INNER, LAYERS, CONTEXT, TOKENS = 128, 192, 2, 256, 1024


@dataclass(frozen=True)
class Tiny:
    """A model of a family."""

    architecture: str
    heads: int = 4
    kv_heads: int = 2
    head: int = 32
    rotated: int | None = None
    base: float = 10000.0
    tied: bool = True
    factors: bool = False
    """Of the rotations' lengths, as Llama-3.1 has them."""
    centred: bool = False
    biased: bool = False
    unbiased_layer: int | None = None
    """Which has none where the others have."""
    heads_normed: tuple[int, int] | None = None
    """For how many heads queries and keys have norms of their own."""
    parallel: bool = False


MODELS: Mapping[str, Tiny] = {
    "llama-3": Tiny("llama", base=500000.0, factors=True),
    "qwen2": Tiny("qwen2", base=1e6, biased=True, tied=False),
    "qwen3": Tiny("qwen3", head=64, base=1e6, heads_normed=(1, 1)),
    "gemma": Tiny("gemma", heads=2, kv_heads=1, head=96),
    "stablelm": Tiny("stablelm", heads=2, head=64, rotated=16, tied=False, centred=True, biased=True),
    "stablelm-beside": Tiny(
        "stablelm", rotated=8, kv_heads=4, tied=False, centred=True, heads_normed=(4, 4), parallel=True
    ),
}


def model(tiny: Tiny, kind: str = "F32", *, widened: bool = False) -> bytes:
    """A file whose matrices are of this type, and all else of 32-bit floats; `widened` they are too, with the values of the codes."""
    random, values = np.random.default_rng(11), _metadata(tiny)
    queries, keys = tiny.heads * tiny.head, tiny.kv_heads * tiny.head
    tensors: list[tuple[str, tuple[int, ...], int, bytes]] = []

    def add(name: str, *shape: int, around: float = 0.0, spread: float = 1.0) -> None:
        numbers = (around + spread * random.standard_normal(shape[::-1])).astype("<f4")
        stored = library.GGMLQuantizationType[kind if len(shape) == 2 and "norm" not in name else "F32"]
        content = library.quants.quantize(numbers, stored)
        if widened:
            content, stored = library.quants.dequantize(content, stored), library.GGMLQuantizationType.F32
        tensors.append((name, shape, int(stored), content.tobytes()))

    def matrix(name: str, columns: int, rows: int) -> None:
        add(f"{name}.weight", columns, rows, spread=2 * columns**-0.5)

    def norm(name: str) -> None:
        add(f"{name}.weight", WIDTH, around=1.0, spread=0.4)
        if tiny.centred:
            add(f"{name}.bias", WIDTH, spread=0.4)

    # Gemma's are small, for the root of the width makes them larger.
    add("token_embd.weight", WIDTH, TOKENS, spread=0.1 if tiny.architecture == "gemma" else 1.0)
    for i in range(LAYERS):
        layer = f"blk.{i}."
        norm(f"{layer}attn_norm")
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            matrix(f"{layer}attn_{part}", WIDTH, rows)
            if tiny.biased and i != tiny.unbiased_layer:
                add(f"{layer}attn_{part}.bias", rows)
        if tiny.heads_normed is not None:
            for part, count in zip("qk", tiny.heads_normed, strict=True):
                sizes = (tiny.head,) if count == 1 else (tiny.head, count)
                add(f"{layer}attn_{part}_norm.weight", *sizes, around=1.0, spread=0.4)
        matrix(f"{layer}attn_output", queries, WIDTH)
        if not tiny.parallel:
            norm(f"{layer}ffn_norm")
        for part, columns, rows in (("gate", WIDTH, INNER), ("up", WIDTH, INNER), ("down", INNER, WIDTH)):
            matrix(f"{layer}ffn_{part}", columns, rows)
    norm("output_norm")
    if not tiny.tied:
        matrix("output", WIDTH, TOKENS)
    if tiny.factors:
        lengths = np.geomspace(1, 8, tiny.head // 2, dtype="<f4")
        tensors.append(("rope_freqs.weight", lengths.shape, 0, lengths.tobytes()))
    return gguf(values, tensors, architecture=tiny.architecture)


def _metadata(tiny: Tiny) -> dict[str, Value]:
    kind = tiny.architecture
    words = vocabulary(replace(SHAPES["tiny-stablelm"], vocabulary=TOKENS))
    epsilon = "layer_norm_epsilon" if tiny.centred else "layer_norm_rms_epsilon"
    return {
        f"{kind}.block_count": (U32, LAYERS),
        f"{kind}.context_length": (U32, CONTEXT),
        f"{kind}.embedding_length": (U32, WIDTH),
        f"{kind}.feed_forward_length": (U32, INNER),
        f"{kind}.attention.head_count": (U32, tiny.heads),
        f"{kind}.attention.head_count_kv": (U32, tiny.kv_heads),
        f"{kind}.attention.key_length": (U32, tiny.head),
        f"{kind}.attention.value_length": (U32, tiny.head),
        f"{kind}.attention.{epsilon}": (REAL, 1e-5),
        f"{kind}.rope.dimension_count": (U32, tiny.rotated or tiny.head),
        f"{kind}.rope.freq_base": (REAL, tiny.base),
        "tokenizer.ggml.model": (STRING, words.kind),
        "tokenizer.ggml.pre": (STRING, "gpt-2"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, [*words.tokens])),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [*words.types])),
        "tokenizer.ggml.merges": (ARRAY, (STRING, [*words.merges])),
        "tokenizer.ggml.bos_token_id": (U32, words.bos),
        "tokenizer.ggml.eos_token_id": (U32, words.eos),
        "tokenizer.ggml.add_bos_token": (BOOL, words.adds_bos),
    }
