"""Small whole models of the Llama family as GGUF files, with made-up numbers, for what looks at every tensor."""

from __future__ import annotations

from collections.abc import Mapping

import gguf as library
import numpy as np
import numpy.typing as npt

from tests.support.ggufs import ARRAY, I32, REAL, STRING, U32, Value, gguf

WIDTH, HEADS, KV_HEADS, INNER, TOKENS, CONTEXT = 256, 4, 2, 512, 300, 64
_MATRICES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH, WIDTH // 2),
    "attn_v": (WIDTH, WIDTH // 2),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (WIDTH, INNER),
    "ffn_up": (WIDTH, INNER),
    "ffn_down": (INNER, WIDTH),
}
"""Columns and rows."""


def llama(
    kind: str = "F32",
    *,
    layers: int = 2,
    tied: bool = True,
    architecture: str = "llama",
    extra: Mapping[str, Value] | None = None,
    kinds: Mapping[str, str] | None = None,
    without: str = "",
    factors: float | None = None,
    plus: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> bytes:
    """A file whose matrices are all of one type, but for those that `kinds` names; `factors` are of the rotations' lengths.

    `plus` is added to matrices, by their names and as rows of columns.
    """
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (WIDTH, TOKENS)}
    for i in range(layers):
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in _MATRICES.items()}
        shapes |= {f"blk.{i}.{name}.weight": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    shapes["output_norm.weight"] = (WIDTH,)
    if not tied:
        shapes["output.weight"] = (WIDTH, TOKENS)
    tensors = []
    for name, shape in shapes.items():
        wanted = library.GGMLQuantizationType[(kinds or {}).get(name, kind) if len(shape) == 2 else "F32"]
        tensors.append((name, shape, int(wanted), written(random, shape, wanted, (plus or {}).get(name, 0.0))))
    if factors is not None:
        lengths = np.full(WIDTH // HEADS // 2, factors, np.float32)
        tensors.append(("rope_freqs.weight", lengths.shape, 0, lengths.tobytes()))
    values: dict[str, Value] = {
        f"{architecture}.block_count": (U32, layers),
        f"{architecture}.context_length": (U32, CONTEXT),
        f"{architecture}.attention.head_count": (U32, HEADS),
        f"{architecture}.attention.head_count_kv": (U32, KV_HEADS),
        f"{architecture}.attention.layer_norm_rms_epsilon": (REAL, 1e-5),
        f"{architecture}.rope.freq_base": (REAL, 10000.0),
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.pre": (STRING, "smollm"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, [f"t{i}" for i in range(TOKENS)])),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [1] * TOKENS)),
        "tokenizer.ggml.merges": (ARRAY, (STRING, ["t 1"])),
        **(extra or {}),
    }
    return gguf(values, [each for each in tensors if each[0] != without], architecture=architecture)


def written(
    random: np.random.Generator,
    shape: tuple[int, ...],
    kind: library.GGMLQuantizationType,
    plus: npt.NDArray[np.float32] | float = 0.0,
) -> bytes:
    """Numbers as a file has them; those of 6 bits by hand, for the library only reads them."""
    rows = (random.standard_normal(shape[::-1]).astype(np.float32) * 0.1 + plus).astype(np.float32)
    if kind.name != "Q6_K":
        content: bytes = library.quants.quantize(rows, kind).tobytes()
        return content
    blocks = random.integers(0, 256, (rows.size // 256, 210), dtype=np.uint8)
    blocks[:, 208:] = np.full((len(blocks), 1), 0.001, np.float16).view(np.uint8)
    return blocks.tobytes()
