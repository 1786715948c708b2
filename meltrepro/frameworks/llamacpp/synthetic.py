"""GGUF files of a known shape with made-up weights, written here and the same everywhere.

A weight is raw bits of a counter-based generator (Philox 4x64 of NumPy, whose raw output is fixed by its definition):
sign, mantissa and the two lowest bits of the exponent are random, the rest of the exponent is fixed for each matrix by
the length of its rows. So every weight is a normal number over four octaves, activations keep their size from layer to
layer, and no step is a matter of rounding or of a mathematical library. Matrices are streamed in pieces of 2 MiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from meltrepro.frameworks.base import Bring
from meltrepro.frameworks.llamacpp import tokenizers
from meltrepro.frameworks.llamacpp.entries import ARRAY, FLOAT32, INT32, STRING, Plain, array, entry, text
from meltrepro.frameworks.llamacpp.header import GgufHeader, Tensor, Value
from meltrepro.frameworks.llamacpp.vocabulary import vocabulary
from meltrepro.manifest.shapes import FloatType, ModelShape
from meltrepro.store.source import GENERATOR

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ALIGNMENT = 32
"""Of tensors in a GGUF file, in bytes."""
_PIECE_WORDS = 1 << 18
"""64-bit words that are made at once."""
_F32 = 0
_TENSOR_TYPE = {"f32": _F32, "f16": 1}
_FILE_TYPE = {"f32": 0, "f16": 1}
_WIDTH = {"f32": 4, "f16": 2}
_PAIRS, _MADE_UP_PRE = "gpt2", "gpt-2"
"""The tokenizer that joins pairs of bytes, and how a made-up one of the kind splits text before."""
_PHI_BEFORE = 4096
"""Context that Phi's models were trained for before they were stretched, in tokens."""


@dataclass(frozen=True)
class TensorShape:
    """One tensor of a model file."""

    name: str
    dims: tuple[int, ...]
    """The length of a row first, as GGUF files have it."""

    @property
    def elements(self) -> int:
        return prod(self.dims)

    @property
    def is_random(self) -> bool:
        """Whether its numbers are made up; those of norms, biases and factors do nothing."""
        return len(self.dims) > 1

    @property
    def is_matrix(self) -> bool:
        """Whether it is kept in the model's type and quantized; all others, also what chooses experts, are f32 in every file."""
        return self.is_random and not self.name.endswith("ffn_gate_inp.weight")

    def type_in(self, weights: FloatType) -> FloatType:
        """Its type in a file whose matrices have another."""
        return weights if self.is_matrix else "f32"


@lru_cache(maxsize=32)
def tensors_of(shape: ModelShape) -> tuple[TensorShape, ...]:
    """Every tensor of a shape, by the names of llama.cpp and in the order of its files."""
    return tuple(_tensors(shape))


def _tensors(shape: ModelShape) -> Iterator[TensorShape]:
    width = shape.width
    yield TensorShape("token_embd.weight", (width, shape.vocabulary))
    if shape.factors:
        for name in ("rope_factors_long", "rope_factors_short") if shape.arch == "phi3" else ("rope_freqs",):
            yield TensorShape(f"{name}.weight", (shape.rotary // 2,))
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        yield from _norm(shape, f"{block}attn_norm")
        yield from _attention(shape, block)
        if shape.arch == "gemma3":
            yield from _norm(shape, f"{block}post_attention_norm")
        yield from _norm(shape, f"{block}ffn_norm")
        yield from _inner(shape, block)
        if shape.arch == "gemma3":
            yield from _norm(shape, f"{block}post_ffw_norm")
    yield from _norm(shape, "output_norm")
    if not shape.shares_output:
        yield TensorShape("output.weight", (width, shape.vocabulary))


def _attention(shape: ModelShape, block: str) -> Iterator[TensorShape]:
    width, queries, keys = shape.width, shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    if shape.arch == "phi3":
        yield TensorShape(f"{block}attn_qkv.weight", (width, queries + 2 * keys))
    else:
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield TensorShape(f"{block}attn_{part}.weight", (width, rows))
    for part, size in zip("qk", shape.head_norms, strict=False):
        yield TensorShape(f"{block}attn_{part}_norm.weight", (size,))
    yield TensorShape(f"{block}attn_output.weight", (queries, width))


def _inner(shape: ModelShape, block: str) -> Iterator[TensorShape]:
    width, inner = shape.width, shape.feed_forward
    if shape.arch == "phi3":
        yield TensorShape(f"{block}ffn_up.weight", (width, 2 * inner))
        yield TensorShape(f"{block}ffn_down.weight", (inner, width))
        return
    if shape.experts:
        yield TensorShape(f"{block}ffn_gate_inp.weight", (width, shape.experts))
    many, tail = ((shape.experts,), "_exps") if shape.experts else ((), "")
    for part, columns, rows in (("gate", width, inner), ("up", width, inner), ("down", inner, width)):
        yield TensorShape(f"{block}ffn_{part}{tail}.weight", (columns, rows, *many))


def _norm(shape: ModelShape, name: str) -> Iterator[TensorShape]:
    yield TensorShape(f"{name}.weight", (shape.width,))
    if shape.has_biases:
        yield TensorShape(f"{name}.bias", (shape.width,))


class GgufWeights:
    """The framework's maker of weights."""

    format = ""

    def size(self, shape: ModelShape) -> int:
        return file_bytes(shape)

    def pieces(self, shape: ModelShape, seed: int, bring: Bring) -> Iterator[ReadableBuffer]:
        return pieces(shape, seed, bring)


def file_bytes(shape: ModelShape) -> int:
    """Size of the file, in bytes."""
    tensors = sum(padded(tensor_bytes(tensor, shape.weights)) for tensor in tensors_of(shape))
    return header_bytes(shape) + tensors


@lru_cache(maxsize=64)
def header_bytes(shape: ModelShape) -> int:
    """Size of everything before the first tensor, whatever types the tensors have, in bytes; reads no tokenizer."""
    if shape.tokenizer is None:
        return len(header(shape, 0))
    count, size = tokenizers.size(shape)
    return padded(len(_head(shape, 0, [b""] * count)) + size)


def tensor_bytes(tensor: TensorShape, weights: FloatType) -> int:
    """Size of a tensor in the unquantized file, without padding, in bytes."""
    return tensor.elements * _WIDTH[tensor.type_in(weights)]


def padded(size: int) -> int:
    """A size, rounded up to where the next tensor begins."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def pieces(shape: ModelShape, seed: int, bring: Bring | None = None) -> Iterator[ReadableBuffer]:
    """The content of the file, piece by piece; a piece is valid until the next one is asked for.

    `bring` fetches what a real tokenizer is read from; shapes with a made-up one need none.
    """
    yield header(shape, seed, bring)
    for index, tensor in enumerate(tensors_of(shape)):
        if tensor.is_random:
            yield from _matrix(tensor, tensor.type_in(shape.weights), seed, index)
        else:  # norms do nothing, biases neither
            yield struct.pack("<f", 0.0 if tensor.name.endswith(".bias") else 1.0) * tensor.elements
        size = tensor_bytes(tensor, shape.weights)
        yield bytes(padded(size) - size)


def _matrix(tensor: TensorShape, weights: FloatType, seed: int, index: int) -> Iterator[ReadableBuffer]:
    import numpy as np

    # The smallest weight is a power of two, such that a row of such weights about keeps the size of what it multiplies.
    exponent = -3 - -(-(tensor.dims[0] - 1).bit_length() // 2)
    mask, fixed = {
        "f16": (0x8FFF, (15 + exponent) << 10),
        "f32": (0x81FFFFFF, (127 + exponent) << 23),
    }[weights]
    dtype = np.dtype("<u2" if weights == "f16" else "<u4")
    generator = np.random.Philox(key=index << 64 | seed, counter=0)
    left = tensor.elements * dtype.itemsize
    while left > 0:
        words = min(_PIECE_WORDS, -(-left // 8))
        bits = np.asarray(generator.random_raw(words)).astype("<u8", copy=False).view(dtype)
        np.bitwise_and(bits, dtype.type(mask), out=bits)
        np.add(bits, dtype.type(fixed), out=bits)
        piece = bits.tobytes()[:left]
        left -= len(piece)
        yield piece


# -- header -----------------------------------------------------------------------------------------------------------


def header(shape: ModelShape, seed: int, bring: Bring | None = None) -> bytes:
    """GGUF version 3: metadata, tokenizer, and where each tensor lies."""
    if shape.tokenizer is None:
        words = list(_made_up(shape))
    else:
        assert bring is not None, "a real tokenizer is read from a file"
        words = tokenizers.entries(shape, bring)
    content = _head(shape, seed, words)
    return content.ljust(padded(len(content)), b"\0")


def header_of(shape: ModelShape) -> GgufHeader:
    """What the header of a shape's file will say, for whoever asks before there is one; positions in it are not true."""
    values = {key: Value(0, 0, 0, content) for key, content in _metadata(shape, 0)}
    if shape.tokenizer is not None:
        words = list(tokenizers.facts(shape))
    else:
        made = vocabulary(shape)
        words = [("tokenizer.ggml.model", made.kind), ("tokenizer.ggml.tokens", len(made.tokens))]
        if made.kind == _PAIRS:
            words += [("tokenizer.ggml.pre", _MADE_UP_PRE), ("tokenizer.ggml.merges", len(made.merges))]
    for key, fact in words:
        is_text = isinstance(fact, str)
        values[key] = Value(0, 0, STRING, fact) if is_text else Value(0, 0, ARRAY, inner=STRING, count=int(fact))
    kinds = {tensor.name: _TENSOR_TYPE[tensor.type_in(shape.weights)] for tensor in tensors_of(shape)}
    tensors = tuple(Tensor(tensor.name, tensor.dims, kinds[tensor.name], 0) for tensor in tensors_of(shape))
    return GgufHeader(3, values, tensors, 0, file_bytes(shape), ALIGNMENT)


def _head(shape: ModelShape, seed: int, words: list[bytes]) -> bytes:
    """The header without what fills it up; `words` are the entries of the tokenizer."""
    values = [*(entry(key, value) for key, value in _metadata(shape, seed)), *words]
    infos, offset = [], 0
    for tensor in tensors_of(shape):
        dims = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
        kind = _TENSOR_TYPE[tensor.type_in(shape.weights)]
        infos.append(text(tensor.name) + dims + struct.pack("<IQ", kind, offset))
        offset += padded(tensor_bytes(tensor, shape.weights))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors_of(shape)), len(values))
    return head + b"".join(values) + b"".join(infos)


def _metadata(shape: ModelShape, seed: int) -> Iterator[tuple[str, Plain]]:
    arch = shape.arch
    yield "general.architecture", arch
    yield "general.name", f"synthetic {shape.name}"
    yield "general.quantization_version", 2
    yield "general.file_type", _FILE_TYPE[shape.weights]
    yield "meltrepro.synthetic.shape", shape.name
    yield "meltrepro.synthetic.seed", seed
    yield "meltrepro.synthetic.generator", GENERATOR
    yield f"{arch}.context_length", shape.context
    yield f"{arch}.embedding_length", shape.width
    yield f"{arch}.block_count", shape.layers
    yield f"{arch}.feed_forward_length", shape.feed_forward
    yield f"{arch}.rope.dimension_count", shape.rotary
    yield f"{arch}.attention.head_count", shape.heads
    yield f"{arch}.attention.head_count_kv", shape.kv_heads
    yield f"{arch}.attention.key_length", shape.head_width
    yield f"{arch}.attention.value_length", shape.head_width
    norm = "layer_norm_epsilon" if arch == "stablelm" else "layer_norm_rms_epsilon"
    yield f"{arch}.attention.{norm}", shape.epsilon
    if shape.base is not None:
        yield f"{arch}.rope.freq_base", shape.base
    if shape.window is not None:
        yield f"{arch}.attention.sliding_window", shape.window
    if shape.factors and arch == "phi3":
        yield f"{arch}.rope.scaling.original_context_length", _PHI_BEFORE
    if shape.experts:
        yield f"{arch}.expert_count", shape.experts
        yield f"{arch}.expert_used_count", shape.experts_used
        yield f"{arch}.expert_feed_forward_length", shape.feed_forward


def _made_up(shape: ModelShape) -> Iterator[bytes]:
    words = vocabulary(shape)
    yield entry("tokenizer.ggml.model", words.kind)
    if words.kind == _PAIRS:
        yield entry("tokenizer.ggml.pre", _MADE_UP_PRE)
    yield array("tokenizer.ggml.tokens", STRING, [text(token) for token in words.tokens])
    if words.scores:
        yield array("tokenizer.ggml.scores", FLOAT32, [struct.pack("<f", score) for score in words.scores])
    yield array("tokenizer.ggml.token_type", INT32, [struct.pack("<i", kind) for kind in words.types])
    if words.merges:
        yield array("tokenizer.ggml.merges", STRING, [text(pair) for pair in words.merges])
    yield entry("tokenizer.ggml.bos_token_id", words.bos)
    yield entry("tokenizer.ggml.eos_token_id", words.eos)
    if words.unknown is not None:
        yield entry("tokenizer.ggml.unknown_token_id", words.unknown)
    if words.padding is not None:
        yield entry("tokenizer.ggml.padding_token_id", words.padding)
    yield entry("tokenizer.ggml.add_bos_token", words.adds_bos)
    yield entry("tokenizer.ggml.add_eos_token", False)
    yield entry("tokenizer.ggml.add_space_prefix", words.adds_space)
