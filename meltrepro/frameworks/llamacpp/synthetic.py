"""GGUF files of a known shape with made-up weights, written here and the same everywhere.

A weight is raw bits of a counter-based generator (Philox 4x64 of NumPy, whose raw output is fixed by its definition):
sign, mantissa and the two lowest bits of the exponent are random, the rest of the exponent is fixed for each matrix by
the length of its rows. So every weight is a normal number over four octaves, activations keep their size from layer to
layer, and no step is a matter of rounding or of a mathematical library. Matrices are streamed in pieces of 2 MiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from meltrepro.frameworks.llamacpp.vocabulary import vocabulary
from meltrepro.manifest.shapes import FloatType, ModelShape
from meltrepro.store.source import GENERATOR

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ALIGNMENT = 32
"""Of tensors in a GGUF file, in bytes."""
_PIECE_WORDS = 1 << 18
"""64-bit words that are made at once."""
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
"""Types of values in a GGUF header."""
_F32 = 0
_TENSOR_TYPE = {"f32": _F32, "f16": 1}
_FILE_TYPE = {"f32": 0, "f16": 1}
_WIDTH = {"f32": 4, "f16": 2}


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
    def is_matrix(self) -> bool:
        """Whether it is kept in the model's type and quantized; norms and biases are f32 in every file."""
        return len(self.dims) == 2


@lru_cache(maxsize=32)
def tensors_of(shape: ModelShape) -> tuple[TensorShape, ...]:
    """Every tensor of a shape, by the names of llama.cpp and in the order of its files."""
    return tuple(_tensors(shape))


def _tensors(shape: ModelShape) -> Iterator[TensorShape]:
    width, queries, keys = shape.width, shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    yield TensorShape("token_embd.weight", (width, shape.vocabulary))
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        yield from _norm(shape, f"{block}attn_norm")
        yield TensorShape(f"{block}attn_q.weight", (width, queries))
        yield TensorShape(f"{block}attn_k.weight", (width, keys))
        yield TensorShape(f"{block}attn_v.weight", (width, keys))
        yield TensorShape(f"{block}attn_output.weight", (queries, width))
        yield from _norm(shape, f"{block}ffn_norm")
        yield TensorShape(f"{block}ffn_gate.weight", (width, shape.feed_forward))
        yield TensorShape(f"{block}ffn_up.weight", (width, shape.feed_forward))
        yield TensorShape(f"{block}ffn_down.weight", (shape.feed_forward, width))
    yield from _norm(shape, "output_norm")
    if not shape.shares_output:
        yield TensorShape("output.weight", (width, shape.vocabulary))


def _norm(shape: ModelShape, name: str) -> Iterator[TensorShape]:
    yield TensorShape(f"{name}.weight", (shape.width,))
    if shape.has_biases:
        yield TensorShape(f"{name}.bias", (shape.width,))


class GgufWeights:
    """The framework's maker of weights."""

    format = ""

    def size(self, shape: ModelShape) -> int:
        return file_bytes(shape)

    def pieces(self, shape: ModelShape, seed: int) -> Iterator[ReadableBuffer]:
        return pieces(shape, seed)


def file_bytes(shape: ModelShape) -> int:
    """Size of the file, in bytes."""
    tensors = sum(padded(tensor_bytes(tensor, shape.weights)) for tensor in tensors_of(shape))
    return header_bytes(shape) + tensors


@lru_cache(maxsize=32)
def header_bytes(shape: ModelShape) -> int:
    """Size of everything before the first tensor, whatever types the tensors have, in bytes."""
    return len(header(shape, 0))


def tensor_bytes(tensor: TensorShape, weights: FloatType) -> int:
    """Size of a tensor in the unquantized file, without padding, in bytes."""
    return tensor.elements * (_WIDTH[weights] if tensor.is_matrix else _WIDTH["f32"])


def padded(size: int) -> int:
    """A size, rounded up to where the next tensor begins."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def pieces(shape: ModelShape, seed: int) -> Iterator[ReadableBuffer]:
    """The content of the file, piece by piece; a piece is valid until the next one is asked for."""
    yield header(shape, seed)
    for index, tensor in enumerate(tensors_of(shape)):
        if tensor.is_matrix:
            yield from _matrix(tensor, shape.weights, seed, index)
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


def header(shape: ModelShape, seed: int) -> bytes:
    """GGUF version 3: metadata, tokenizer, and where each tensor lies; written here so that no library's ways of
    writing can change a digest."""
    values = list(_metadata(shape, seed))
    infos, offset = [], 0
    for tensor in tensors_of(shape):
        kind = _TENSOR_TYPE[shape.weights] if tensor.is_matrix else _F32
        dims = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
        infos.append(_text(tensor.name) + dims + struct.pack("<IQ", kind, offset))
        offset += padded(tensor_bytes(tensor, shape.weights))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors_of(shape)), len(values))
    content = head + b"".join(values) + b"".join(infos)
    return content.ljust(padded(len(content)), b"\0")


def _metadata(shape: ModelShape, seed: int) -> Iterator[bytes]:
    arch = shape.arch
    yield _entry("general.architecture", arch)
    yield _entry("general.name", f"synthetic {shape.name}")
    yield _entry("general.quantization_version", 2)
    yield _entry("general.file_type", _FILE_TYPE[shape.weights])
    yield _entry("meltrepro.synthetic.shape", shape.name)
    yield _entry("meltrepro.synthetic.seed", seed)
    yield _entry("meltrepro.synthetic.generator", GENERATOR)
    yield _entry(f"{arch}.context_length", shape.context)
    yield _entry(f"{arch}.embedding_length", shape.width)
    yield _entry(f"{arch}.block_count", shape.layers)
    yield _entry(f"{arch}.feed_forward_length", shape.feed_forward)
    yield _entry(f"{arch}.rope.dimension_count", shape.rotary)
    yield _entry(f"{arch}.attention.head_count", shape.heads)
    yield _entry(f"{arch}.attention.head_count_kv", shape.kv_heads)
    yield _entry(f"{arch}.attention.key_length", shape.head_width)
    yield _entry(f"{arch}.attention.value_length", shape.head_width)
    norm = "layer_norm_epsilon" if arch == "stablelm" else "layer_norm_rms_epsilon"
    yield _entry(f"{arch}.attention.{norm}", shape.epsilon)
    yield from _tokenizer(shape)


def _tokenizer(shape: ModelShape) -> Iterator[bytes]:
    words = vocabulary(shape)
    yield _entry("tokenizer.ggml.model", words.kind)
    if words.kind == "gpt2":
        yield _entry("tokenizer.ggml.pre", "gpt-2")
    yield _list("tokenizer.ggml.tokens", _STRING, [_text(token) for token in words.tokens])
    if words.scores:
        yield _list("tokenizer.ggml.scores", _FLOAT32, [struct.pack("<f", score) for score in words.scores])
    yield _list("tokenizer.ggml.token_type", _INT32, [struct.pack("<i", kind) for kind in words.types])
    if words.merges:
        yield _list("tokenizer.ggml.merges", _STRING, [_text(pair) for pair in words.merges])
    yield _entry("tokenizer.ggml.bos_token_id", words.bos)
    yield _entry("tokenizer.ggml.eos_token_id", words.eos)
    if words.unknown is not None:
        yield _entry("tokenizer.ggml.unknown_token_id", words.unknown)
    if words.padding is not None:
        yield _entry("tokenizer.ggml.padding_token_id", words.padding)
    yield _entry("tokenizer.ggml.add_bos_token", words.adds_bos)
    yield _entry("tokenizer.ggml.add_eos_token", False)
    yield _entry("tokenizer.ggml.add_space_prefix", words.adds_space)


def _entry(key: str, value: str | bool | int | float) -> bytes:
    match value:
        case str():
            kind, content = _STRING, _text(value)
        case bool():
            kind, content = _BOOL, struct.pack("<?", value)
        case int():
            kind, content = _UINT32, struct.pack("<I", value)
        case float():
            kind, content = _FLOAT32, struct.pack("<f", value)
    return _text(key) + struct.pack("<I", kind) + content


def _list(key: str, kind: int, items: Sequence[bytes]) -> bytes:
    return _text(key) + struct.pack("<IIQ", _ARRAY, kind, len(items)) + b"".join(items)


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content
