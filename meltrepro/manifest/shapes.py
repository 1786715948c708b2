"""The shapes that synthetic weights can have: those of the models that MELT measured, those of today, and small ones for tests.

The numbers are those of each model's published `config.json`; what their files look like is each framework's own affair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

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
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-30b-a3b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "gemma-3-1b",
    "gemma-3-4b",
    "phi-4-mini",
    "smollm3-3b",
    "olmoe-1b-7b",
    "tiny-qwen3",
    "tiny-qwen3-moe",
    "tiny-llama-3",
    "tiny-gemma-3",
    "tiny-phi-4",
    "tiny-smollm3",
    "tiny-olmoe",
]
Arch = Literal["llama", "gemma", "stablelm", "qwen3", "qwen3moe", "gemma3", "phi3", "smollm3", "olmoe"]
TokenizerName = Literal["qwen3", "llama-3.2", "gemma-3", "phi-4-mini", "smollm3", "olmoe"]
FloatType = Literal["f16", "f32"]
KV_ELEMENT_BYTES = 2
"""Keys and values are kept as f16."""


@dataclass(frozen=True)
class Tokenizer:
    """What a real tokenizer and its chat template are read from when weights are written."""

    vocabulary: str
    """sha256 of the file that has the tokens."""
    template: str = ""
    """sha256 of the file of the template; empty where there is none."""

    @property
    def digest(self) -> str:
        """Of both."""
        return hashlib.sha256(f"{self.vocabulary}{self.template}".encode()).hexdigest()


TOKENIZERS: Mapping[TokenizerName, Tokenizer] = {
    "qwen3": Tokenizer(
        "44c2f46b715f585c6ab513970e8a006bfa5badd6108560054921cf598d154d8c",
        "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5",
    ),
    "llama-3.2": Tokenizer(
        "97272e430d53bc7688f52d5e0ad8ea8f163ede9f1bbd1694feaa504797d5d96e",
        "5816fce10444e03c2e9ee1ef8a4a1ea61ae7e69e438613f3b17b69d0426223a4",
    ),
    "gemma-3": Tokenizer(
        "58b1ba0b57f3b4d7c468ba4ffd91ad85190346a3d7ad7e71d1cabaae8a14bb65",
        "ecd6ae513fe103f0eb62e8ab5bfa8d0fe45c1074fa398b089c93a7e70c15cfd6",
    ),
    "phi-4-mini": Tokenizer(
        "97272e430d53bc7688f52d5e0ad8ea8f163ede9f1bbd1694feaa504797d5d96e",
        "78d976a442bcde2f0be15aafbb8e3050e1104f86732266f68403251b89982a90",
    ),
    "smollm3": Tokenizer(
        "97272e430d53bc7688f52d5e0ad8ea8f163ede9f1bbd1694feaa504797d5d96e",
        "19eacf64569032f07644ea92c8e2a87af06ee7008147557302c31e474912ca97",
    ),
    "olmoe": Tokenizer("ae593a7f9b8bb174ed4f5019e41530463e4dac7aa06e42dee8aa650d2bdac53d"),
}
"""Each framework knows where the files are, and which tokens of theirs have other names in a family."""


@dataclass(frozen=True)
class ModelShape:
    """Architecture and sizes of a model, without any weights."""

    name: str
    arch: Arch
    width: int
    layers: int
    feed_forward: int
    """Inner width of a layer, or of each of its experts."""
    heads: int
    kv_heads: int
    context: int
    """Longest context that the real model was trained for, in tokens."""
    vocabulary: int
    weights: FloatType = "f16"
    """Type of the matrices of the unquantized file, which is that of the published checkpoint or as wide as it."""
    markers: tuple[str, ...] = ()
    """Tokens of a made-up tokenizer's chat template besides those for begin and end."""
    tokenizer: TokenizerName | None = None
    """The real one that it has; a made-up one where there is none."""
    head: int | None = None
    """Numbers of a head, where they are not the width by heads."""
    tied: bool = False
    """Whether the embedding is the output matrix too, where the architecture does not decide it."""
    small_epsilon: bool = False
    base: float | None = None
    """Of the rotations' frequencies, where it is not the usual 10,000."""
    factors: bool = False
    """Whether each frequency has a factor besides; they are 1 here, which is as much work."""
    window: int | None = None
    """Tokens that most layers look back on, where all others see everything."""
    rotated: int | None = None
    """Dimensions of a head that are rotated, where not all are."""
    experts: int = 0
    """Of a layer; 0 where it is one piece."""
    experts_used: int = 0
    """Of them, for each token."""
    origin: str = ""
    """Repository on the hub whose `config.json` has the numbers."""

    @property
    def head_width(self) -> int:
        return self.head or (256 if self.arch == "gemma" else self.width // self.heads)

    @property
    def rotary(self) -> int:
        """Dimensions of a head that are rotated."""
        return self.rotated or (self.head_width // 4 if self.arch == "stablelm" else self.head_width)

    @property
    def epsilon(self) -> float:
        """Of the norms."""
        return 1e-6 if self.arch == "gemma" or self.small_epsilon else 1e-5

    @property
    def has_template(self) -> bool:
        """Whether a chat template stands in its file: made-up tokenizers have none, and not every real one."""
        return self.tokenizer is not None and bool(TOKENIZERS[self.tokenizer].template)

    @property
    def shares_output(self) -> bool:
        """Whether the embedding is the output matrix too."""
        return self.arch == "gemma" or self.tied

    @property
    def has_biases(self) -> bool:
        """Whether norms have biases."""
        return self.arch == "stablelm"

    @property
    def head_norms(self) -> tuple[int, ...]:
        """Sizes of the norms of queries and keys; none where they have no norms of their own."""
        match self.arch:
            case "qwen3" | "qwen3moe" | "gemma3":
                return self.head_width, self.head_width
            case "olmoe":
                return self.heads * self.head_width, self.kv_heads * self.head_width
        return ()

    @cached_property
    def parameters(self) -> int:
        """Number of weights."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        norm = self.width * (2 if self.has_biases else 1)
        norms = norm * (4 if self.arch == "gemma3" else 2) + sum(self.head_norms)
        inner = 3 * self.feed_forward * (self.experts or 1) + self.experts
        layer = norms + self.width * (2 * queries + 2 * keys + inner)
        return self.width * self.vocabulary * (1 if self.shares_output else 2) + self.layers * layer + norm

    def kv_bytes(self, context: int) -> int:
        """Size of the KV cache for a context of so many tokens, in bytes."""
        return 2 * KV_ELEMENT_BYTES * self.layers * self.kv_heads * self.head_width * context


CHATML = ("<|im_start|>", "<|im_end|>", "[PAD]")
TURNS = ("<start_of_turn>", "<end_of_turn>")


# The tiny ones of today's architectures; the others are as they are but for what is written.
_QWEN3 = ModelShape(
    "tiny-qwen3",
    "qwen3",
    256,
    4,
    512,
    4,
    2,
    40960,
    151936,
    tokenizer="qwen3",
    head=128,
    tied=True,
    base=1e6,
    small_epsilon=True,
)
_QWEN3_MOE = replace(
    _QWEN3, name="tiny-qwen3-moe", arch="qwen3moe", feed_forward=256, tied=False, experts=16, experts_used=4
)
_LLAMA_3 = ModelShape(
    "tiny-llama-3", "llama", 256, 4, 512, 4, 2, 131072, 128256, tokenizer="llama-3.2", tied=True, base=5e5, factors=True
)
_GEMMA_3 = ModelShape(
    "tiny-gemma-3",
    "gemma3",
    256,
    6,
    512,
    2,
    1,
    32768,
    262144,
    tokenizer="gemma-3",
    head=256,
    tied=True,
    base=1e6,
    small_epsilon=True,
    window=512,
)
_PHI_4 = ModelShape(
    "tiny-phi-4", "phi3", 256, 4, 512, 4, 2, 131072, 200064, tokenizer="phi-4-mini", tied=True, rotated=48, factors=True
)
_SMOLLM3 = ModelShape(
    "tiny-smollm3",
    "smollm3",
    256,
    4,
    512,
    4,
    2,
    65536,
    128256,
    tokenizer="smollm3",
    tied=True,
    base=5e6,
    small_epsilon=True,
)
_OLMOE = ModelShape(
    "tiny-olmoe", "olmoe", 256, 4, 256, 4, 4, 4096, 50304, tokenizer="olmoe", experts=16, experts_used=4
)


def _as(tiny: ModelShape, name: ShapeName, origin: str, *sizes: int, **more: Any) -> ModelShape:
    """A shape of a family: width, layers, inner width, heads, and heads of keys."""
    width, layers, feed_forward, heads, kv_heads = sizes
    same = replace(tiny, name=name, origin=origin, width=width, layers=layers, feed_forward=feed_forward)
    return replace(same, heads=heads, kv_heads=kv_heads, **more)


SHAPES: Mapping[ShapeName, ModelShape] = {
    cast("ShapeName", shape.name): shape
    for shape in (
        ModelShape("tinyllama-1.1b", "llama", 2048, 22, 5632, 32, 4, 2048, 32003, "f32", CHATML),  # Chat-v0.5
        ModelShape("stablelm-zephyr-3b", "stablelm", 2560, 32, 6912, 32, 32, 4096, 50304),
        ModelShape("gemma-2b", "gemma", 2048, 18, 16384, 8, 1, 8192, 256000, markers=TURNS),
        ModelShape("gemma-7b", "gemma", 3072, 28, 24576, 16, 16, 8192, 256000, markers=TURNS),
        ModelShape("mistral-7b", "llama", 4096, 32, 14336, 32, 8, 32768, 32000),  # Instruct-v0.1
        ModelShape("llama-2-7b", "llama", 4096, 32, 11008, 32, 32, 4096, 32000),
        ModelShape("llama-2-13b", "llama", 5120, 40, 13824, 40, 40, 4096, 32000),
        # Rows of 256 and more, so that K quantizations need no other type.
        ModelShape("tiny-llama", "llama", 256, 4, 512, 4, 2, 2048, 2048, markers=CHATML),
        ModelShape("tiny-gemma", "gemma", 256, 4, 512, 2, 1, 8192, 4096, markers=TURNS),
        ModelShape("tiny-stablelm", "stablelm", 256, 4, 512, 4, 4, 4096, 4096),
        _as(_QWEN3, "qwen3-0.6b", "Qwen/Qwen3-0.6B", 1024, 28, 3072, 16, 8),
        _as(_QWEN3, "qwen3-1.7b", "Qwen/Qwen3-1.7B", 2048, 28, 6144, 16, 8),
        _as(_QWEN3, "qwen3-4b", "Qwen/Qwen3-4B", 2560, 36, 9728, 32, 8),
        _as(_QWEN3_MOE, "qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", 2048, 48, 768, 32, 4, experts=128, experts_used=8),
        _as(_LLAMA_3, "llama-3.2-1b", "meta-llama/Llama-3.2-1B-Instruct", 2048, 16, 8192, 32, 8),
        _as(_LLAMA_3, "llama-3.2-3b", "meta-llama/Llama-3.2-3B-Instruct", 3072, 28, 8192, 24, 8),
        _as(_GEMMA_3, "gemma-3-1b", "google/gemma-3-1b-it", 1152, 26, 6912, 4, 1),
        _as(_GEMMA_3, "gemma-3-4b", "google/gemma-3-4b-it", 2560, 34, 10240, 8, 4, context=131072, window=1024),
        _as(_PHI_4, "phi-4-mini", "microsoft/Phi-4-mini-instruct", 3072, 32, 8192, 24, 8, rotated=96),
        _as(_SMOLLM3, "smollm3-3b", "HuggingFaceTB/SmolLM3-3B", 2048, 36, 11008, 16, 4),
        _as(
            _OLMOE,
            "olmoe-1b-7b",
            "allenai/OLMoE-1B-7B-0924-Instruct",
            *(2048, 16, 1024, 16, 16),
            experts=64,
            experts_used=8,
        ),
        *(_QWEN3, _QWEN3_MOE, _LLAMA_3, _GEMMA_3, _PHI_4, _SMOLLM3, _OLMOE),
    )
}
"""Of a model with pictures, such as Gemma 3 4B, the part for text; its rows are those of the tokens, as the converter leaves them."""
