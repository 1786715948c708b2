"""The shapes that synthetic weights can have: those of the models that MELT measured, and small ones for tests.

The numbers are those of each model's published configuration; what their files look like is each framework's own affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

ShapeName = Literal[
    "tinyllama-1.1b",
    "stablelm-zephyr-3b",
    "gemma-2b",
    "gemma-7b",
    "mistral-7b",
    "llama-2-7b",
    "llama-2-13b",
    "tiny-llama",
    "tiny-gemma",
    "tiny-stablelm",
]
Arch = Literal["llama", "gemma", "stablelm"]
FloatType = Literal["f16", "f32"]
_KV_ELEMENT_BYTES = 2
"""Keys and values are kept as f16."""


@dataclass(frozen=True)
class ModelShape:
    """Architecture and sizes of a model, without any weights."""

    name: ShapeName
    title: str
    """Name of the real model that has this shape; of none for the small ones."""
    arch: Arch
    weights: FloatType
    """Type of the matrices of the unquantized file, which is that of the published checkpoint or as wide as it."""
    vocabulary: int
    context: int
    """Longest context that the real model was trained for, in tokens."""
    width: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_width: int
    rotary: int
    """Dimensions of a head that are rotated."""
    epsilon: float
    markers: tuple[str, ...] = ()
    """Tokens of the chat template besides those for begin and end."""

    @property
    def shares_output(self) -> bool:
        """Whether the embedding is the output matrix too."""
        return self.arch == "gemma"

    @property
    def has_biases(self) -> bool:
        """Whether norms have biases."""
        return self.arch == "stablelm"

    @cached_property
    def parameters(self) -> int:
        """Number of weights."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        norm = self.width * (2 if self.has_biases else 1)
        layer = 2 * norm + self.width * (2 * queries + 2 * keys + 3 * self.feed_forward)
        return self.width * self.vocabulary * (1 if self.shares_output else 2) + self.layers * layer + norm

    def kv_bytes(self, context: int) -> int:
        """Size of the KV cache for a context of so many tokens, in bytes."""
        return 2 * _KV_ELEMENT_BYTES * self.layers * self.kv_heads * self.head_width * context


_CHATML = ("<|im_start|>", "<|im_end|>", "[PAD]")
_TURNS = ("<start_of_turn>", "<end_of_turn>")


def _llama(
    name: ShapeName,
    title: str,
    width: int,
    layers: int,
    feed_forward: int,
    heads: int,
    kv_heads: int,
    context: int,
    *,
    vocabulary: int = 32000,
    weights: FloatType = "f16",
    markers: tuple[str, ...] = (),
) -> ModelShape:
    head = width // heads
    return ModelShape(
        name,
        title,
        "llama",
        weights,
        vocabulary,
        context,
        width,
        layers,
        feed_forward,
        heads,
        kv_heads,
        head,
        head,
        1e-5,
        markers,
    )


def _gemma(
    name: ShapeName, title: str, width: int, layers: int, feed_forward: int, heads: int, kv_heads: int, vocabulary: int
) -> ModelShape:
    return ModelShape(
        name,
        title,
        "gemma",
        "f16",
        vocabulary,
        8192,
        width,
        layers,
        feed_forward,
        heads,
        kv_heads,
        256,
        256,
        1e-6,
        _TURNS,
    )


def _stablelm(
    name: ShapeName, title: str, width: int, layers: int, feed_forward: int, heads: int, vocabulary: int
) -> ModelShape:
    head = width // heads
    return ModelShape(
        name,
        title,
        "stablelm",
        "f16",
        vocabulary,
        4096,
        width,
        layers,
        feed_forward,
        heads,
        heads,
        head,
        head // 4,
        1e-5,
    )


SHAPES: Mapping[ShapeName, ModelShape] = {
    shape.name: shape
    for shape in (
        _llama(
            "tinyllama-1.1b",
            "TinyLlama-1.1B-Chat-v0.5",
            2048,
            22,
            5632,
            32,
            4,
            2048,
            vocabulary=32003,
            weights="f32",
            markers=_CHATML,
        ),
        _stablelm("stablelm-zephyr-3b", "stablelm-zephyr-3b", 2560, 32, 6912, 32, 50304),
        _gemma("gemma-2b", "gemma-2b-it", 2048, 18, 16384, 8, 1, 256000),
        _gemma("gemma-7b", "gemma-7b-it", 3072, 28, 24576, 16, 16, 256000),
        _llama("mistral-7b", "Mistral-7B-Instruct-v0.1", 4096, 32, 14336, 32, 8, 32768),
        _llama("llama-2-7b", "Llama-2-7b-chat-hf", 4096, 32, 11008, 32, 32, 4096),
        _llama("llama-2-13b", "Llama-2-13b-chat-hf", 5120, 40, 13824, 40, 40, 4096),
        # Rows of 256 and more, so that K quantizations need no other type.
        _llama("tiny-llama", "", 256, 4, 512, 4, 2, 2048, vocabulary=2048, markers=_CHATML),
        _gemma("tiny-gemma", "", 256, 4, 512, 2, 1, 4096),
        _stablelm("tiny-stablelm", "", 256, 4, 512, 4, 4096),
    )
}
