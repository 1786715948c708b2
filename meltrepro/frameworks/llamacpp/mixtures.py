"""How large llama.cpp's quantizer makes a model of a known shape: its mixtures of types, as rules over tensors.

The rules are those of the pinned releases; what they say is compared with files that the real quantizer made, and with MELT's
table of sizes.
"""

from __future__ import annotations

from collections.abc import Mapping

from meltrepro.frameworks.llamacpp.synthetic import TensorShape, file_bytes, header_bytes, padded, tensors_of
from meltrepro.manifest.shapes import ModelShape

_BLOCKS: Mapping[str, tuple[int, int]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "q6_K": (256, 210),
    "q5_K": (256, 176),
    "q4_K": (256, 144),
    "q3_K": (256, 110),
    "q2_K": (256, 84),
}
"""Type -> weights in a block, and bytes that it takes."""
_FALLBACK = {"q2_K": "q4_0", "q3_K": "q4_0", "q4_K": "q5_0", "q5_K": "q5_1", "q6_K": "q8_0"}
"""What a matrix gets whose rows are no multiples of a type's block; a block of it is an eighth."""
_KNOWN_FALLBACK = frozenset({"2026-10-01"})
_BUMPED_EXPERTS, _BUMPED_LAYERS = 8, 80
"""Numbers by which the quantizer knows models, of which it spends more on some matrices: no rule here says so."""
_FLOATS = frozenset({"f32", "f16"})
_QUANTIZES_FLOATS = frozenset({"2024-02-27"})
"""Releases that make the output matrix q6_K even in files of type f16 and f32."""
_SHARING = 4
"""Query heads per key-value head from which the old mixtures spend more on values."""


def model_bytes(shape: ModelShape, quantization: str, release: str) -> int | None:
    """Size of the model file that a release makes of a shape's unquantized file, in bytes; `None` where no rule says."""
    if quantization == "as-is":
        return file_bytes(shape)
    if quantization not in _BLOCKS or shape.experts == _BUMPED_EXPERTS or shape.layers == _BUMPED_LAYERS:
        return None
    size = header_bytes(shape)
    for tensor in tensors_of(shape):
        kind = _kind(shape, tensor, quantization, release) if tensor.is_matrix else "f32"
        if tensor.dims[0] % _BLOCKS[kind][0]:
            kind = _FALLBACK.get(kind, kind) if release in _KNOWN_FALLBACK else kind
        weights, taken = _BLOCKS[kind]
        if tensor.dims[0] % weights:
            return None
        size += padded(tensor.elements // weights * taken)
    return size


def _kind(shape: ModelShape, tensor: TensorShape, quantization: str, release: str) -> str:
    """The type that a matrix gets."""
    output = "token_embd.weight" if shape.shares_output else "output.weight"
    if quantization in _FLOATS and not (release in _QUANTIZES_FLOATS and tensor.name == output):
        return quantization
    if tensor.name == output:
        odd = tensor.dims[0] % _BLOCKS[quantization][0] != 0
        return "q8_0" if quantization == "q8_0" or odd else "q6_K"
    if not tensor.name.startswith("blk."):
        return quantization
    _, layer, part, _ = tensor.name.split(".")
    part = "attn_v" if part == "attn_qkv" else part.removesuffix("_exps")
    return _mixture(shape, quantization, int(layer), part) or quantization


def _mixture(shape: ModelShape, quantization: str, layer: int, part: str) -> str | None:
    """The other type that a K quantization's mixture gives to a part of a layer, if it does."""
    match quantization, part:
        case "q2_K", "attn_v":
            return "q4_K" if shape.heads // shape.kv_heads >= _SHARING else "q3_K"
        case "q2_K", "ffn_down" | "attn_output":
            return "q3_K"
        case "q3_K", "attn_v":
            return "q5_K" if layer < 2 else "q4_K"
        case "q3_K", "ffn_down":
            return "q5_K" if layer < shape.layers // 16 else "q4_K"
        case "q3_K", "attn_output":
            return "q4_K"
        case "q4_K" | "q5_K", "attn_v" | "ffn_down" if _matters_more(layer, shape.layers):
            return "q6_K"
    return None


def _matters_more(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between them."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
