"""Small Hugging Face checkpoints, written here: random weights of a fixed seed, and a real tokenizer out of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HIDDEN, INNER, HEADS, KEY_HEADS, LAYERS = 64, 128, 4, 2, 2
Tensors = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def bfloat16(values: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    """The bytes of numbers in bfloat16, rounded to nearest, ties to even."""
    bits = values.astype("<f4").view("<u4")
    return bytes(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").data)


def write_safetensors(path: Path, tensors: Tensors, kind: str = "BF16") -> None:
    """A file in safetensors format with all tensors of one type: BF16, F16 or F32."""
    plain = {"F16": "<f2", "F32": "<f4"}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    contents, offset = [], 0
    for name, values in sorted(tensors.items()):
        content = bfloat16(values) if kind == "BF16" else bytes(values.astype(plain[kind]).data)
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [offset, offset + len(content)]}
        contents.append(content)
        offset += len(content)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(contents))


def write_shards(folder: Path, tensors: Tensors, kind: str = "BF16", shards: int = 2) -> None:
    """The weights in several files with an index, as big checkpoints have them."""
    names = sorted(tensors)
    where: dict[str, str] = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i::shards]
        write_safetensors(folder / file, {name: tensors[name] for name in part}, kind)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def llama_tensors(vocabulary: int, seed: int = 1, *, tied: bool = False) -> Tensors:
    """Random weights of a very small model of LLaMA's kind."""
    random = np.random.default_rng(seed)
    width = HIDDEN // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, HIDDEN)
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{layer}.self_attn.k_proj.weight": (KEY_HEADS * width, HIDDEN),
            f"{layer}.self_attn.v_proj.weight": (KEY_HEADS * width, HIDDEN),
            f"{layer}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{layer}.mlp.gate_proj.weight": (INNER, HIDDEN),
            f"{layer}.mlp.up_proj.weight": (INNER, HIDDEN),
            f"{layer}.mlp.down_proj.weight": (HIDDEN, INNER),
            f"{layer}.input_layernorm.weight": (HIDDEN,),
            f"{layer}.post_attention_layernorm.weight": (HIDDEN,),
        }
    return {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def llama_config(vocabulary: int, **changes: object) -> dict[str, object]:
    """The configuration that belongs to `llama_tensors`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "max_position_embeddings": 512,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_HEADS,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": vocabulary,
        **changes,
    }


def write_tokenizer(folder: Path, gguf_file: Path) -> int:
    """The byte-level tokenizer of a GGUF file as Hugging Face writes one; returns how many tokens it has."""
    import gguf

    fields = gguf.GGUFReader(gguf_file).fields
    tokens: Sequence[str] = fields["tokenizer.ggml.tokens"].contents()
    merges: Sequence[str] = fields["tokenizer.ggml.merges"].contents()
    kinds: Sequence[int] = fields["tokenizer.ggml.token_type"].contents()
    special = [i for i, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]
    ends: Mapping[str, bool] = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    added = [{"id": i, "content": tokens[i], "special": True, **ends} for i in special]
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, bytes_],
        },
        "decoder": bytes_,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(document))
    (folder / "vocab.json").write_text(json.dumps(document["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "added_tokens_decoder": {str(entry["id"]): {k: v for k, v in entry.items() if k != "id"} for entry in added},
        "bos_token": tokens[1],
        "eos_token": tokens[2],
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(tokens)


def write_sentencepiece(folder: Path, words: Sequence[str] = ("the", "and", "model", "water")) -> int:
    """A very small `tokenizer.model`: control tokens, 256 bytes, letters, and a few words; returns how many tokens.

    The format is sentencepiece's ModelProto: pieces (field 1), trainer (2), normalizer (3).
    """
    pieces: list[tuple[str, float, int]] = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]
    pieces += [(f"<0x{i:02X}>", 0, 6) for i in range(256)]
    known = {"\u2581", *"abcdefghijklmnopqrstuvwxyz"}
    merged = {f"\u2581{word}"[: i + 2] for word in words for i in range(len(word))} - known
    merged |= {word[: i + 2] for word in words for i in range(len(word) - 1)}
    texts = [*sorted(merged, key=lambda text: (len(text), text)), *sorted(known)]
    pieces += [(text, float(-i), 1) for i, text in enumerate(texts)]
    content = b"".join(_field(1, _piece(*piece)) for piece in pieces)
    trainer = _number(3, 2) + _number(4, len(pieces)) + _number(35, 1)  # BPE, size, bytes for what has no piece
    content += _field(2, trainer) + _field(3, _field(1, b"identity") + _number(3, 1) + _number(4, 0) + _number(5, 1))
    (folder / "tokenizer.model").write_bytes(content)
    return len(pieces)


def _piece(text: str, score: float, kind: int) -> bytes:
    return _field(1, text.encode()) + b"\x15" + np.float32(score).tobytes() + _number(3, kind)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def write_llama(folder: Path, gguf_file: Path | None = None, *, tied: bool = False) -> Path:
    """A whole small checkpoint of LLaMA's kind: two shards in bfloat16, an index, configuration and tokenizer.

    The tokenizer is that of a GGUF file, or else a sentencepiece model of some 300 tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_sentencepiece(folder) if gguf_file is None else write_tokenizer(folder, gguf_file)
    write_shards(folder, llama_tensors(vocabulary, tied=tied))
    (folder / "config.json").write_text(json.dumps(llama_config(vocabulary, tie_word_embeddings=tied)))
    return folder


def write_gemma(folder: Path) -> Path:
    """The same as a Gemma: its own norms, output matrix shared with the embedding."""
    write_llama(folder, tied=True)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["GemmaForCausalLM"], "model_type": "gemma", "head_dim": HIDDEN // HEADS}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_stablelm(folder: Path, gguf_file: Path) -> Path:
    """The same as a StableLM, with the biases of its norms."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder, gguf_file)
    tensors = llama_tensors(vocabulary)
    tensors |= {
        name.removesuffix("weight") + "bias": values[::-1].copy() for name, values in tensors.items() if "norm" in name
    }
    write_shards(folder, tensors)
    changes = {"partial_rotary_factor": 0.25, "layer_norm_eps": 1e-05, "use_qkv_bias": False, "model_type": "stablelm"}
    config = llama_config(vocabulary, architectures=["StableLmForCausalLM"], **changes)
    (folder / "config.json").write_text(json.dumps(config))
    return folder
