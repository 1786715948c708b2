"""Synthetic weights in the shape that a `config.json` describes: what is read of it, and what is refused with a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.errors import ManifestError
from meltrepro.frameworks.llamacpp.mixtures import model_bytes
from meltrepro.frameworks.llamacpp.synthetic import file_bytes, pieces
from meltrepro.manifest.configs import read_config
from meltrepro.manifest.loader import load_manifest, parse_manifest
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.shapes import SHAPES, ShapeName
from meltrepro.manifest.sources import SyntheticSource
from meltrepro.store.source import key_of


def config(architecture: str, width: int, layers: int, inner: int, heads: int, kv: int, rows: int, **more: Any) -> Any:
    return {
        "architectures": [architecture],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": rows,
        **more,
    }


QWEN: Mapping[str, Any] = {
    "head_dim": 128,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "max_position_embeddings": 40960,
}
GEMMA_TEXT = config("", 2560, 34, 10240, 8, 4, 262208, head_dim=256, rms_norm_eps=1e-6, sliding_window=1024)
PUBLISHED: Mapping[ShapeName, Mapping[str, Any]] = {
    "qwen3-0.6b": config(
        "Qwen3ForCausalLM", 1024, 28, 3072, 16, 8, 151936, tie_word_embeddings=True, attention_bias=False, **QWEN
    ),
    "qwen3-30b-a3b": config(
        *("Qwen3MoeForCausalLM", 2048, 48, 6144, 32, 4, 151936),
        moe_intermediate_size=768,
        num_experts=128,
        num_experts_per_tok=8,
        tie_word_embeddings=False,
        **{**QWEN, "mlp_only_layers": [], "decoder_sparse_step": 1},
    ),
    "llama-3.2-1b": config(
        *("LlamaForCausalLM", 2048, 16, 8192, 32, 8, 128256),
        head_dim=64,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        max_position_embeddings=131072,
        tie_word_embeddings=True,
        rope_scaling={"rope_type": "llama3", "factor": 32.0},
    ),
    "gemma-3-4b": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {
            **{key: value for key, value in GEMMA_TEXT.items() if key != "architectures"},
            "rope_theta": 1000000.0,
        },
    },
    "phi-4-mini": config(
        *("Phi3ForCausalLM", 3072, 32, 8192, 24, 8, 200064),
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        max_position_embeddings=131072,
        partial_rotary_factor=0.75,
        tie_word_embeddings=True,
        rope_scaling={"type": "longrope"},
        sliding_window=262144,
    ),
    "smollm3-3b": config(
        *("SmolLM3ForCausalLM", 2048, 36, 11008, 16, 4, 128256),
        rms_norm_eps=1e-6,
        rope_theta=5000000.0,
        max_position_embeddings=65536,
    ),
    "olmoe-1b-7b": config(
        *("OlmoeForCausalLM", 2048, 16, 1024, 16, 16, 50304),
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        max_position_embeddings=4096,
        num_experts=64,
        num_experts_per_tok=8,
        tie_word_embeddings=False,
    ),
    "llama-2-7b": config("LlamaForCausalLM", 4096, 32, 11008, 32, 32, 32000, max_position_embeddings=4096),
    "stablelm-zephyr-3b": config("StableLmForCausalLM", 2560, 32, 6912, 32, 32, 50304, max_position_embeddings=4096),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_gives_the_shape_of_its_name(name: ShapeName) -> None:
    found, known = read_config(json.dumps(PUBLISHED[name]).encode()), SHAPES[name]
    for quantization in ("as-is", "q4_0", "q4_K"):
        made, wanted = (model_bytes(shape, quantization, "2026-10-01") for shape in (found, known))
        assert made is not None and wanted is not None and abs(made - wanted) < 4096  # their names, and marks of turns
    assert found.parameters == known.parameters and found.kv_bytes(1) == known.kv_bytes(1)
    assert (found.tokenizer, found.context, found.epsilon) == (known.tokenizer, known.context, known.epsilon)
    same = replace(found, name=known.name, origin=known.origin, markers=known.markers, head=known.head)
    assert replace(same, rotated=known.rotated) == known and found.rotary == known.rotary
    assert found.head_width == known.head_width


SMALL = config("LlamaForCausalLM", 256, 2, 512, 4, 2, 2048, max_position_embeddings=512)


def test_the_file_has_the_size_that_was_told() -> None:
    shape = read_config(json.dumps(SMALL).encode())
    assert sum(len(bytes(piece)) for piece in pieces(shape, 1)) == file_bytes(shape)


def test_other_numbers_have_another_name_and_other_words_have_not() -> None:
    one, same, other = (
        read_config(json.dumps({**SMALL, **more}).encode())
        for more in ({}, {"_name_or_path": "x", "torch_dtype": "bfloat16"}, {"num_hidden_layers": 3})
    )
    assert one == same and one.name != other.name and one.name.startswith("config-")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {**SMALL, "architectures": ["MambaForCausalLM"]},
            "expected one of the architectures .*; got 'MambaForCausalLM'",
        ),
        ({**SMALL, "architectures": None}, "it names none"),
        ({**SMALL, "attention_bias": True}, "expected no attention_bias"),
        ({**SMALL, "hidden_size": -1}, "expected hidden_size to be a whole number"),
        ({**SMALL, "hidden_size": True}, "expected hidden_size to be a whole number"),
        ({**SMALL, "hidden_size": 250}, "multiples of 32, got 250"),
        ({**SMALL, "num_hidden_layers": 10**5}, "at most 1000 layers"),
        ({**SMALL, "num_key_value_heads": 3}, "multiple of num_key_value_heads"),
        ({**SMALL, "vocab_size": 10**6}, "vocab_size to be from 1024 to 400000"),
        ({**SMALL, "rope_theta": "many"}, "expected rope_theta to be a number"),
        ([1], "which is a mapping"),
    ],
)
def test_what_no_shape_can_have_is_refused(content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(json.dumps(content).encode())


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 200_000, b" " * (2 << 20)])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected a config\.json"):
        read_config(content)


MANIFEST = """\
meltrepro: 1
name: x
models:
  m: {source: {synthetic: {config: CONFIG}, seed: 3}, chat_template: chatml, quantizations: [q4_0]}
frameworks: {llama.cpp: {release: "2026-10-01"}}
workloads: {chat: {conversations: [[Hi]]}}
"""


def test_a_record_needs_the_file_no_more(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "config.json").write_text(json.dumps(SMALL))
    (tmp_path / "parts" / "part.yaml").write_text(MANIFEST.replace("CONFIG", "config.json"))
    (tmp_path / "x.yaml").write_text("include: [parts/part.yaml]\n" + MANIFEST.split("models:")[0])
    manifest = load_manifest(tmp_path / "x.yaml").manifest
    model = manifest.models["m"]
    assert isinstance(model.source, SyntheticSource) and model.synthetic and model.trained_context == 512
    assert key_of(model.source) == f"synthetic:{model.source.shape.name}:3:1"
    written = yaml.safe_dump(manifest.model_dump(mode="json", exclude_none=True)).encode()
    (tmp_path / "parts" / "config.json").unlink()
    again = parse_manifest(written)
    assert again == manifest and manifest_digest(again) == manifest_digest(manifest)
    (tmp_path / "record.yaml").write_bytes(written)
    assert load_manifest(tmp_path / "record.yaml").manifest == manifest


def test_a_file_that_is_not_there_or_wrong_is_told_at_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(MANIFEST.replace("CONFIG", "config.json"))
    for content, message in ((None, "No such file"), ({**SMALL, "hidden_size": 0}, "expected hidden_size to be")):
        if content is not None:
            (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(ManifestError, match=message) as caught:
            load_manifest(tmp_path / "x.yaml")
        (problem,) = caught.value.problems
        assert (problem.line, problem.field) == (4, "models.m.source.synthetic.config")


def test_nobody_can_give_other_sizes_a_known_name(tmp_path: Path) -> None:
    """A record of a stranger would else decide which bytes a name stands for."""
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    (tmp_path / "x.yaml").write_text(MANIFEST.replace("CONFIG", "config.json"))
    document = load_manifest(tmp_path / "x.yaml").manifest.model_dump(mode="json", exclude_none=True)
    document["models"]["m"]["source"]["synthetic"]["shape"]["name"] = "tiny-llama"
    with pytest.raises(ManifestError, match="name of a shape to follow from its sizes"):
        parse_manifest(yaml.safe_dump(document).encode())
