"""Shapes from a model's `config.json`, as the hub has it: for synthetic weights of a model that no name stands for.

Only numbers and switches are read. What no shape can have, such as biases that an architecture has only here, is refused, for
weights of another size would be measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from meltrepro.manifest.shapes import CHATML, SHAPES, TURNS, Arch, ModelShape, TokenizerName

MOST_BYTES = 1 << 20
_REFUSED = ("attention_bias", "mlp_bias", "use_qkv_bias", "use_parallel_residual", "qk_layernorm", "mlp_only_layers")
"""Switches of parts that no shape has."""
_SMALL = 3e-6
"""Between the two epsilons that shapes know."""
_LEAST_TOKENS, _MOST_TOKENS = 1024, 400_000
"""Of a made-up tokenizer."""
_MOST = 1 << 20
_MOST_LAYERS = 1000
_BLOCK = 32
"""Numbers that share a scale in every quantization."""


@dataclass(frozen=True)
class _Kind:
    """What an architecture of the hub becomes."""

    arch: Arch
    tokenizer: TokenizerName | None = None
    """That of models with as many tokens as the family's."""
    rows: int = 0
    """Those that the family has, as a configuration says it."""
    tied: bool = False
    """Whether the embedding is the output matrix too, where a configuration does not say."""


_KINDS: Mapping[str, _Kind] = {
    "LlamaForCausalLM": _Kind("llama", "llama-3.2", 128256),
    "MistralForCausalLM": _Kind("llama"),
    "GemmaForCausalLM": _Kind("gemma", tied=True),
    "StableLmForCausalLM": _Kind("stablelm"),
    "Qwen3ForCausalLM": _Kind("qwen3", "qwen3", 151936),
    "Qwen3MoeForCausalLM": _Kind("qwen3moe", "qwen3", 151936),
    "Gemma3ForCausalLM": _Kind("gemma3", "gemma-3", 262144, tied=True),
    "Gemma3ForConditionalGeneration": _Kind("gemma3", "gemma-3", 262208, tied=True),
    "Phi3ForCausalLM": _Kind("phi3", "phi-4-mini", 200064),
    "SmolLM3ForCausalLM": _Kind("smollm3", "smollm3", 128256, tied=True),
    "OlmoeForCausalLM": _Kind("olmoe", "olmoe", 50304),
}


def read_config(content: bytes) -> ModelShape:
    """The shape that a `config.json` describes; raises `ValueError` with a line that says what was expected."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"expected a config.json, got {len(content)} bytes")
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a config.json, got no JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise ValueError("expected a config.json, which is a mapping")
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None
    if name is None or name not in _KINDS:
        got = f"got {name[:64]!r}" if name else "it names none"
        raise ValueError(f"expected one of the architectures {', '.join(_KINDS)}; {got}")
    inner = config.get("text_config")
    return _shape(_KINDS[name], {**config, **inner} if isinstance(inner, dict) else config)


def _shape(kind: _Kind, config: Mapping[str, Any]) -> ModelShape:
    for key in _REFUSED:
        if config.get(key):
            raise ValueError(f"expected no {key}: weights of that kind are not made")
    width, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
    head = _count(config, "head_dim", width // heads)
    experts = _count(config, "num_experts", 0) if kind.arch in ("qwen3moe", "olmoe") else 0
    inner = "moe_intermediate_size" if kind.arch == "qwen3moe" else "intermediate_size"
    rows = _count(config, "vocab_size", kind.rows)
    is_own = rows == kind.rows
    turning = _number(config, "partial_rotary_factor", 0.25 if kind.arch == "stablelm" else 1.0)
    rope = next((each for key in ("rope_parameters", "rope_scaling") if isinstance(each := config.get(key), dict)), {})
    base = _number(config, "rope_theta", _number(rope, "rope_theta", 10000.0))
    shape = ModelShape(
        "config",
        kind.arch,
        width,
        _count(config, "num_hidden_layers"),
        _count(config, inner),
        heads,
        _count(config, "num_key_value_heads", heads),
        _count(config, "max_position_embeddings", SHAPES["gemma-3-4b"].context if kind.arch == "gemma3" else None),
        min(rows, SHAPES["gemma-3-1b"].vocabulary) if is_own and kind.arch == "gemma3" else rows,
        markers=() if is_own else TURNS if kind.arch.startswith("gemma") else CHATML,
        tokenizer=kind.tokenizer if is_own else None,
        head=head,
        tied=bool(config.get("tie_word_embeddings", kind.tied)),
        small_epsilon=_number(config, "rms_norm_eps", 1e-5) < _SMALL,
        base=base if base != 10000.0 else None,
        factors=rope.get("rope_type", rope.get("type")) in ("llama3", "longrope", "su"),
        window=_count(config, "sliding_window", 512) if kind.arch == "gemma3" else None,
        rotated=int(head * turning) // 2 * 2 if turning < 1 else None,
        experts=experts,
        experts_used=_count(config, "num_experts_per_tok") if experts else 0,
    )
    return checked(replace(shape, name=_name(shape)))


def checked(shape: ModelShape) -> ModelShape:
    """The same, where it can be a model's and is called by what it says; raises `ValueError` for any other, as files may hold."""
    _require_sound(shape)
    if shape.name != _name(shape):
        raise ValueError("expected the name of a shape to follow from its sizes")
    return shape


def _name(shape: ModelShape) -> str:
    """Other sizes have another name, so that names stand for bytes."""
    sizes = {key: value for key, value in asdict(shape).items() if key not in ("name", "origin")}
    return f"config-{hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:12]}"


def _require_sound(shape: ModelShape) -> None:
    sizes = (shape.width, shape.feed_forward, shape.heads, shape.kv_heads, shape.context, shape.vocabulary)
    if not all(0 < each <= _MOST for each in (*sizes, shape.head_width)) or shape.rotary % 2:
        raise ValueError(f"expected sizes from 1 to {_MOST}, and heads that turn in pairs")
    if not 0 < shape.layers <= _MOST_LAYERS or not 0 <= shape.experts <= _MOST_LAYERS:
        raise ValueError(f"expected at most {_MOST_LAYERS} layers, and as many experts")
    if shape.heads % shape.kv_heads:
        raise ValueError(f"expected num_attention_heads to be a multiple of num_key_value_heads ({shape.kv_heads})")
    columns = (shape.width, shape.feed_forward, shape.heads * shape.head_width)
    if odd := [each for each in columns if each % _BLOCK]:
        raise ValueError(f"expected sizes that are multiples of {_BLOCK}, got {odd[0]}")
    if shape.experts and not 0 < shape.experts_used <= shape.experts:
        raise ValueError(f"expected num_experts_per_tok to be from 1 to {shape.experts}")
    known = [each.rows for each in _KINDS.values() if each.tokenizer == shape.tokenizer]
    if shape.tokenizer is not None and shape.vocabulary not in (*known, SHAPES["gemma-3-1b"].vocabulary):
        raise ValueError(f"expected as many tokens as {shape.tokenizer} has")
    if shape.tokenizer is None and not _LEAST_TOKENS <= shape.vocabulary <= _MOST_TOKENS:
        raise ValueError(f"expected vocab_size to be from {_LEAST_TOKENS} to {_MOST_TOKENS}, for a made-up tokenizer")


def _count(config: Mapping[str, Any], key: str, absent: int | None = None) -> int:
    value = config.get(key)
    if value is None and absent is not None:
        return absent
    if type(value) is not int or not 0 < value <= _MOST:
        raise ValueError(f"expected {key} to be a whole number from 1 to {_MOST}")
    return value


def _number(config: Mapping[str, Any], key: str, absent: float) -> float:
    value = config.get(key)
    if value is None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e10:
        raise ValueError(f"expected {key} to be a number above 0")
    return float(value)


STAND_IN = replace(SHAPES["tiny-llama"], name=_name(SHAPES["tiny-llama"]))
"""What stands for the shape of a configuration that is wrong, while the rest of a manifest is looked at."""
