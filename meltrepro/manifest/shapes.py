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
KV_ELEMENT_BYTES = 2
"""Keys and values are kept as f16."""


@dataclass(frozen=True)
class ModelShape:
    """Architecture and sizes of a model, without any weights."""

    name: ShapeName
    arch: Arch
    width: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    context: int
    """Longest context that the real model was trained for, in tokens."""
    vocabulary: int
    weights: FloatType = "f16"
    """Type of the matrices of the unquantized file, which is that of the published checkpoint or as wide as it."""
    markers: tuple[str, ...] = ()
    """Tokens of the chat template besides those for begin and end."""

    @property
    def head_width(self) -> int:
        return 256 if self.arch == "gemma" else self.width // self.heads

    @property
    def rotary(self) -> int:
        """Dimensions of a head that are rotated."""
        return self.head_width // 4 if self.arch == "stablelm" else self.head_width

    @property
    def epsilon(self) -> float:
        """Of the norms."""
        return 1e-6 if self.arch == "gemma" else 1e-5

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
        return 2 * KV_ELEMENT_BYTES * self.layers * self.kv_heads * self.head_width * context


_CHATML = ("<|im_start|>", "<|im_end|>", "[PAD]")
_TURNS = ("<start_of_turn>", "<end_of_turn>")


SHAPES: Mapping[ShapeName, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape("tinyllama-1.1b", "llama", 2048, 22, 5632, 32, 4, 2048, 32003, "f32", _CHATML),  # Chat-v0.5
        ModelShape("stablelm-zephyr-3b", "stablelm", 2560, 32, 6912, 32, 32, 4096, 50304),
        ModelShape("gemma-2b", "gemma", 2048, 18, 16384, 8, 1, 8192, 256000, markers=_TURNS),
        ModelShape("gemma-7b", "gemma", 3072, 28, 24576, 16, 16, 8192, 256000, markers=_TURNS),
        ModelShape("mistral-7b", "llama", 4096, 32, 14336, 32, 8, 32768, 32000),  # Instruct-v0.1
        ModelShape("llama-2-7b", "llama", 4096, 32, 11008, 32, 32, 4096, 32000),
        ModelShape("llama-2-13b", "llama", 5120, 40, 13824, 40, 40, 4096, 32000),
        # Rows of 256 and more, so that K quantizations need no other type.
        ModelShape("tiny-llama", "llama", 256, 4, 512, 4, 2, 2048, 2048, markers=_CHATML),
        ModelShape("tiny-gemma", "gemma", 256, 4, 512, 2, 1, 8192, 4096, markers=_TURNS),
        ModelShape("tiny-stablelm", "stablelm", 256, 4, 512, 4, 4, 4096, 4096),
    )
}
