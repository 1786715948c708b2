"""Models of the Llama family in floats of 32 bits with numpy alone: what they say of a text without any engine of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf as library
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

Floats = NDArray[np.float32]


class FloatLlama:
    """A GGUF file of the architecture `llama`, whose rotations turn neighbours, with the tokens of SmolLM2."""

    def __init__(self, path: Path) -> None:
        reader = library.GGUFReader(path)
        self._fields = reader.fields
        self._tensors: dict[str, Floats] = {
            tensor.name: np.asarray(library.dequantize(tensor.data, tensor.tensor_type), np.float32)
            for tensor in reader.tensors
        }
        self._layers = int(self._value("llama.block_count"))
        self._heads = int(self._value("llama.attention.head_count"))
        self._groups = self._heads // int(self._value("llama.attention.head_count_kv"))
        self._epsilon = float(self._value("llama.attention.layer_norm_rms_epsilon"))
        self._base = float(self._value("llama.rope.freq_base"))
        self._tokenizer = self._read_tokenizer()

    def tokens(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def log_probabilities(self, tokens: Sequence[int], first: int) -> Floats:
        """Of each token from number `first` on, given all before it."""
        embedding = self._tensors["token_embd.weight"]
        state = embedding[list(tokens[:-1])]
        for layer in range(self._layers):
            state = state + self._attention(layer, self._normed(f"blk.{layer}.attn_norm", state))
            inner = self._normed(f"blk.{layer}.ffn_norm", state)
            gate = self._product(f"blk.{layer}.ffn_gate", inner)
            state = state + self._product(
                f"blk.{layer}.ffn_down", gate / (1 + np.exp(-gate)) * self._product(f"blk.{layer}.ffn_up", inner)
            )
        last = self._normed("output_norm", state[first - 1 :])
        logits = last @ self._tensors.get("output.weight", embedding).T
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(logits)), list(tokens[first:])]
        return np.asarray(chosen - np.log(np.exp(logits).sum(axis=1)), np.float32)

    def _attention(self, layer: int, state: Floats) -> Floats:
        query, key, value = (self._by_head(layer, name, state) for name in ("attn_q", "attn_k", "attn_v"))
        query, key = self._turned(query), np.repeat(self._turned(key), self._groups, axis=1)
        value = np.repeat(value, self._groups, axis=1)
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(query.shape[-1])
        scores += np.triu(np.full(scores.shape[1:], -np.inf, np.float32), 1)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, value).reshape(len(state), -1)
        return self._product(f"blk.{layer}.attn_output", np.asarray(mixed, np.float32))

    def _by_head(self, layer: int, name: str, state: Floats) -> Floats:
        flat = self._product(f"blk.{layer}.{name}", state)
        return flat.reshape(len(state), -1, self._tensors[f"blk.{layer}.attn_q.weight"].shape[0] // self._heads)

    def _turned(self, vectors: Floats) -> Floats:
        """By their places, each pair of neighbours by an angle of its own."""
        length, _, width = vectors.shape
        angles = np.arange(length)[:, None] * self._base ** (-np.arange(0, width, 2) / width)
        cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
        even, odd = vectors[..., 0::2], vectors[..., 1::2]
        turned = np.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1)
        return np.asarray(turned.reshape(vectors.shape), np.float32)

    def _normed(self, name: str, state: Floats) -> Floats:
        size = np.sqrt((state * state).mean(axis=-1, keepdims=True) + np.float32(self._epsilon))
        return np.asarray(state / size * self._tensors[f"{name}.weight"], np.float32)

    def _product(self, name: str, state: Floats) -> Floats:
        return np.asarray(state @ self._tensors[f"{name}.weight"].T, np.float32)

    def _value(self, name: str) -> Any:
        return self._fields[name].contents()

    def _read_tokenizer(self) -> Tokenizer:
        vocabulary = {text: number for number, text in enumerate(self._value("tokenizer.ggml.tokens"))}
        merges = [tuple(pair.split(" ")) for pair in self._value("tokenizer.ggml.merges")]
        found = Tokenizer(BPE(vocabulary, merges))
        digits = pre_tokenizers.Digits(individual_digits=True)
        found.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        found.decoder = decoders.ByteLevel()
        return found
