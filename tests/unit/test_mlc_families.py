"""Relatives of Llama as MLC has their weights: what each family has besides, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf as library
import numpy as np
import pytest

from meltrepro.errors import ModelError
from meltrepro.frameworks.base import framework
from meltrepro.frameworks.mlc import shards
from meltrepro.frameworks.mlc.convert import Grouped, convert
from meltrepro.frameworks.mlc.module import FRAMEWORK
from meltrepro.frameworks.mlc.options import MlcOptions
from meltrepro.frameworks.prebuilt.codes import Array
from tests.support import families
from tests.support.families import MODELS, Tiny

(RELEASE,) = FRAMEWORK.releases().values()


def converted(
    folder: Path, tiny: Tiny, own: Grouped | None = None
) -> tuple[dict[str, Any], dict[str, Array], dict[str, Array]]:
    """Facts, what was written and what was there."""
    source = folder / "source.gguf"
    source.write_bytes(families.model(tiny))
    assert FRAMEWORK.look(MlcOptions(), source, RELEASE).refusal is None
    convert(source, folder / "model", own)
    found = {}
    for shard in json.loads((folder / "model" / shards.INDEX).read_text())["records"]:
        content = (folder / "model" / shard["dataPath"]).read_bytes()
        for each in shard["records"]:
            numbers = np.frombuffer(content, each["dtype"], int(np.prod(each["shape"])), each["byteOffset"])
            found[each["name"]] = numbers.reshape(each["shape"])
    theirs = {each.name: np.asarray(each.data) for each in library.GGUFReader(source).tensors}
    return json.loads((folder / "model" / "model.json").read_text()), found, theirs


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("own", [None, Grouped(4, 32, "float16")], ids=["f32", "q4f16"])
def test_every_weight_of_a_family_is_written(tmp_path: Path, name: str, own: Grouped | None) -> None:
    tiny = MODELS[name]
    facts, ours, theirs = converted(tmp_path, tiny, own)
    assert facts["width"] == families.WIDTH and facts["head"] == tiny.head
    assert facts["rotated"] == (tiny.rotated or tiny.head) == 2 * ours["model.inv_freq"].size
    assert (facts["centred"], facts["qkv_bias"], facts["parallel"]) == (tiny.centred, tiny.biased, tiny.parallel)
    assert facts["qk_norm"] is (tiny.heads_normed is not None)
    assert facts["parameters"] == sum(each.size for name, each in theirs.items() if name != "rope_freqs.weight")
    kind = "float32" if own is None else own.number
    layer = "model.layers.1."
    assert np.array_equal(ours[f"{layer}input_layernorm.weight"], theirs["blk.1.attn_norm.weight"].astype(kind))
    if tiny.centred:
        assert np.array_equal(ours["model.norm.bias"], theirs["output_norm.bias"].astype(kind))
    if tiny.biased:
        biases = np.concatenate([theirs[f"blk.1.attn_{part}.bias"] for part in "qkv"])
        assert np.array_equal(ours[f"{layer}self_attn.qkv_proj.bias"], biases.astype(kind))
    assert (f"{layer}post_attention_layernorm.weight" in ours) is not tiny.parallel


def test_norms_of_heads_are_written_for_each_head(tmp_path: Path) -> None:
    for name in ("qwen3", "stablelm-beside"):
        (tmp_path / name).mkdir()
        tiny = MODELS[name]
        _, ours, theirs = converted(tmp_path / name, tiny)
        rows = ours["model.layers.0.self_attn.qk_norm"]
        queries, keys = (theirs[f"blk.0.attn_{part}_norm.weight"].reshape(-1, tiny.head) for part in "qk")
        assert rows.shape == (tiny.heads + tiny.kv_heads, tiny.head)
        assert all(np.array_equal(rows[i], queries[i % len(queries)]) for i in range(tiny.heads))
        assert all(np.array_equal(rows[tiny.heads + i], keys[i % len(keys)]) for i in range(tiny.kv_heads))


def test_only_what_turns_is_put_in_another_order(tmp_path: Path) -> None:
    """Llama's neighbours become halves, in the numbers of a head that are rotated; the others stay, and so do all of other families."""
    tiny = Tiny("llama", rotated=8)
    _, ours, theirs = converted(tmp_path, tiny)
    rows, wanted = ours["model.layers.0.self_attn.qkv_proj.weight"], theirs["blk.0.attn_q.weight"]
    assert np.array_equal(rows[:8], wanted[[0, 2, 4, 6, 1, 3, 5, 7]])
    assert np.array_equal(rows[8 : tiny.head], wanted[8 : tiny.head])
    (tmp_path / "qwen2").mkdir()
    _, ours, theirs = converted(tmp_path / "qwen2", MODELS["qwen2"])
    rows = ours["model.layers.0.self_attn.qkv_proj.weight"]
    assert np.array_equal(rows[: families.WIDTH], theirs["blk.0.attn_q.weight"])


def test_rotations_follow_base_and_factors(tmp_path: Path) -> None:
    tiny = MODELS["llama-3"]
    _, ours, theirs = converted(tmp_path, tiny)
    half = tiny.head // 2
    wanted = tiny.base ** (-np.arange(half) / half) / theirs["rope_freqs.weight"]
    assert np.allclose(ours["model.inv_freq"], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("tiny", "why"),
    [
        (replace(MODELS["qwen3"], heads_normed=None), "no tensor blk.0.attn_k_norm.weight"),
        (replace(MODELS["qwen2"], biased=False), "no tensor blk.0.attn_k.bias"),
        (replace(MODELS["llama-3"], biased=True), "attn_k.bias is not converted"),
        (replace(MODELS["gemma"], factors=True), "rope_freqs.weight is not converted"),
        (replace(MODELS["qwen2"], architecture="qwen2moe"), "architecture qwen2moe"),
    ],
    ids=["norms", "biases", "llama", "factors", "experts"],
)
def test_what_a_family_does_not_have_is_refused(tmp_path: Path, tiny: Tiny, why: str) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(families.model(tiny))
    refusal = FRAMEWORK.look(MlcOptions(), source, RELEASE).refusal
    assert refusal is not None and why in refusal
    with pytest.raises(ModelError, match=why):
        convert(source, tmp_path / "model")


def test_biases_of_some_layers_alone_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(families.model(replace(MODELS["stablelm"], unbiased_layer=1)))
    refusal = FRAMEWORK.look(MlcOptions(), source, RELEASE).refusal
    assert refusal is not None and "no tensor blk.1.attn_k.bias" in refusal


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_engines_that_know_llama_alone_refuse_its_relatives(tmp_path: Path, kind: str) -> None:
    engine, source = framework(kind), tmp_path / "source.gguf"
    (release,) = engine.releases().values()
    for name in set(MODELS) - {"llama-3"}:
        source.write_bytes(families.model(MODELS[name]))
        refusal = engine.look(engine.options(), source, release).refusal
        assert refusal is not None and MODELS[name].architecture in refusal
