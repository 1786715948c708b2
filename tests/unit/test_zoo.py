"""The shapes of the study's models, and that the quantizer's mixtures give the sizes that MELT published."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from meltrepro.frameworks.llamacpp.mixtures import model_bytes
from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.frameworks.llamacpp.synthetic import TensorShape, tensors_of
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.shapes import SHAPES, ModelShape, ShapeName
from meltrepro.manifest.sources import FileSource, SyntheticSource
from meltrepro.plan.names import resolve

SPECS = Path(__file__).parents[2] / "specs"
GB, GIB = 10**9, 2**30

# `size_on_disk` of model_specs.csv in MELT's public repository (MELT-public, lines 2-34), of the rows whose file
# llama.cpp can make; unquantized ones are the checkpoint's own size, which a file of the same type has too.
# Gemma's quantized rows are GiB, whatever the column's title says: its q4_0 is 1.44, and 2.51e9 weights of 4.5 bits,
# 0.52e9 of them of 6.56 bits, are 1.44 GiB.
PUBLISHED = {
    ("mistral-7b", "as-is"): 14.48 * GB,
    ("mistral-7b", "q3_K"): 3.52 * GB,
    ("mistral-7b", "q4_K"): 4.37 * GB,
    ("mistral-7b", "q4_0"): 4.11 * GB,
    ("llama-2-7b", "as-is"): 13.5 * GB,
    ("llama-2-7b", "q3_K"): 3.30 * GB,
    ("llama-2-7b", "q4_K"): 4.08 * GB,
    ("llama-2-7b", "q4_0"): 3.83 * GB,
    ("llama-2-13b", "as-is"): 26.03 * GB,
    ("llama-2-13b", "q4_K"): 7.87 * GB,
    ("tinyllama-1.1b", "as-is"): 4.4 * GB,
    ("tinyllama-1.1b", "q3_K"): 0.55 * GB,
    ("tinyllama-1.1b", "q4_K"): 0.67 * GB,
    ("tinyllama-1.1b", "q4_0"): 0.64 * GB,
    ("stablelm-zephyr-3b", "as-is"): 5.59 * GB,
    ("stablelm-zephyr-3b", "q3_K"): 1.39 * GB,
    ("stablelm-zephyr-3b", "q4_K"): 1.71 * GB,
    ("stablelm-zephyr-3b", "q4_0"): 1.61 * GB,
    ("gemma-7b", "as-is"): 17.07 * GB,
    ("gemma-7b", "q3_K"): 4.06 * GIB,
    ("gemma-7b", "q4_K"): 4.96 * GIB,
    ("gemma-7b", "q4_0"): 4.66 * GIB,
    ("gemma-2b", "q3_K"): 1.28 * GIB,
    ("gemma-2b", "q4_K"): 1.51 * GIB,
    ("gemma-2b", "q4_0"): 1.44 * GIB,
}
# The one row that is left: the published 4.95 GB are the first of the two files that the checkpoint consists of; the
# second holds one matrix of 16384 x 2048.
FIRST_FILE_ONLY = 4.95 * GB
SECOND_FILE = 16384 * 2048 * 2

PARAMETERS = {  # published with each model
    "tinyllama-1.1b": 1.10e9,
    "stablelm-zephyr-3b": 2.80e9,
    "gemma-2b": 2.51e9,
    "gemma-7b": 8.54e9,
    "mistral-7b": 7.24e9,
    "llama-2-7b": 6.74e9,
    "llama-2-13b": 13.02e9,
}
KV_BYTES_PER_TOKEN = {  # layers x key-value heads x width of a head x keys and values x 2 bytes
    "tinyllama-1.1b": 22 * 4 * 64 * 4,
    "stablelm-zephyr-3b": 32 * 32 * 80 * 4,
    "gemma-2b": 18 * 1 * 256 * 4,
    "gemma-7b": 28 * 16 * 256 * 4,
    "mistral-7b": 32 * 8 * 128 * 4,
    "llama-2-7b": 32 * 32 * 128 * 4,
    "llama-2-13b": 40 * 40 * 128 * 4,
}

TODAY = {  # published with each model, to the last weight
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-30b-a3b": 30_532_122_624,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 3_880_263_168 - 64 * 2560,  # rows of tokens for pictures, which the converter leaves out
    "phi-4-mini": 3_836_021_760,
    "smollm3-3b": 3_075_098_624,
    "olmoe-1b-7b": 6_919_161_856,
}
CACHES = (("qwen3-0.6b", 4 * 28 * 8 * 128), ("llama-3.2-1b", 4 * 16 * 8 * 64), ("gemma-3-1b", 4 * 26 * 1 * 256))


def test_every_name_has_its_shape() -> None:
    assert set(get_args(ShapeName)) == set(SHAPES)
    assert all(name == shape.name for name, shape in SHAPES.items())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_cache(name: ShapeName) -> None:
    shape = SHAPES[name]
    assert shape.parameters == pytest.approx(PARAMETERS[name], rel=0.005)
    assert shape.kv_bytes(512) == 512 * KV_BYTES_PER_TOKEN[name]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_the_tensors_of_a_file_are_all_weights(shape: ModelShape) -> None:
    weights = (tensor for tensor in tensors_of(shape) if not tensor.name.startswith("rope_"))
    assert sum(tensor.elements for tensor in weights) == shape.parameters


@pytest.mark.parametrize("name", TODAY)
def test_shapes_of_today_have_as_many_weights_as_their_models(name: ShapeName) -> None:
    assert SHAPES[name].parameters == TODAY[name]
    assert SHAPES[name].origin and SHAPES[name].tokenizer


@pytest.mark.parametrize(("name", "published"), CACHES)
def test_a_cache_holds_what_heads_keep(name: ShapeName, published: int) -> None:
    """Bytes a token, of 16-bit keys and values: 4 x layers x heads of keys x numbers of a head."""
    assert SHAPES[name].kv_bytes(1) == published


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(("name", "quantization"), PUBLISHED)
def test_sizes_are_those_of_the_paper(name: ShapeName, quantization: str, release: str) -> None:
    predicted = model_bytes(SHAPES[name], quantization, release)
    assert predicted == pytest.approx(PUBLISHED[name, quantization], rel=0.01)


def test_the_unquantized_gemma_of_the_paper_is_the_first_of_two_files() -> None:
    predicted = model_bytes(SHAPES["gemma-2b"], "as-is", "2024-02-27")
    assert predicted == pytest.approx(FIRST_FILE_ONLY + SECOND_FILE, rel=0.002)


def test_the_zoo_is_complete_and_can_be_used_as_it_is(tmp_path: Path) -> None:
    shutil.copytree(SPECS / "paper", tmp_path, dirs_exist_ok=True)
    (tmp_path / "spec.yaml").write_text(
        "meltrepro: 1\nname: x\ninclude: [models.yaml]\nframeworks: {llama.cpp: {release: '2024-02-27'}}\n"
        "workloads: {chat: {conversations: [[Hi]]}}\n"
    )
    loaded = load_manifest(tmp_path / "spec.yaml")
    resolve(loaded)  # templates and quantizations exist
    sources = {name: model.source for name, model in loaded.manifest.models.items()}
    assert {s.synthetic for s in sources.values() if isinstance(s, SyntheticSource)} == set(PARAMETERS)
    assert len({source.digest for source in sources.values()}) == 7
    wanted = {(name, each) for name, model in loaded.manifest.models.items() for each in model.quantizations}
    assert {(name.replace("stablelm-zephyr", "zephyr"), each) for name, each in PUBLISHED} <= wanted


def test_real_weights_take_the_place_of_synthetic_ones(tmp_path: Path) -> None:
    shutil.copytree(SPECS / "paper", tmp_path, dirs_exist_ok=True)
    (tmp_path / "spec.yaml").write_text(
        "meltrepro: 1\nname: x\ninclude: [models.yaml]\nframeworks: {llama.cpp: {release: '2024-02-27'}}\n"
        "models: {gemma-2b: {source: {file: gemma.gguf}}}\nworkloads: {chat: {conversations: [[Hi]]}}\n"
    )
    model = load_manifest(tmp_path / "spec.yaml").manifest.models["gemma-2b"]
    assert model.source == FileSource(file="gemma.gguf") and not model.synthetic
    assert model.chat_template == "gemma" and model.quantizations == ["as-is", "q3_K", "q4_K", "q4_0"]


def test_more_bits_are_larger_files() -> None:
    order = ("q2_K", "q3_K", "q4_0", "q4_K", "q5_0", "q5_K", "q6_K", "q8_0", "f16", "f32")
    for shape in (
        each for each in SHAPES.values() if each.width % 256 == 0
    ):  # else blocks of 32 take the place of larger ones
        sizes = [model_bytes(shape, quantization, "2026-10-01") or 0 for quantization in order]
        assert all(small < large for small, large in pairwise(sizes)), shape.name


def test_the_old_release_quantizes_one_matrix_of_float_files() -> None:
    shape = SHAPES["tiny-llama"]
    old, new = (model_bytes(shape, "f16", release) for release in ("2024-02-27", "2026-10-01"))
    assert old is not None and new is not None and new == model_bytes(shape, "as-is", "2026-10-01")
    assert new - old == shape.width * shape.vocabulary * 2 - shape.width * shape.vocabulary // 256 * 210


def test_nothing_is_predicted_without_a_rule() -> None:
    assert model_bytes(SHAPES["tiny-llama"], "iq2_xs", "2026-10-01") is None
    narrow = ModelShape("tiny-llama", "llama", 320, 2, 512, 5, 5, 2048, 2048)
    assert model_bytes(narrow, "q4_K", "2024-02-27") is None
    assert model_bytes(replace(narrow, width=310), "q4_0", "2026-10-01") is None
    experts = replace(SHAPES["tiny-olmoe"], experts=8)
    assert model_bytes(experts, "q4_K", "2026-10-01") is None


def test_rows_that_no_block_fills_get_another_type() -> None:
    """A width of 1152 is 4.5 blocks of 256 and 36 of 32: q4_K becomes q5_0, the matrix of both ends q8_0."""
    shape = SHAPES["gemma-3-1b"]
    four, five = (model_bytes(shape, kind, "2026-10-01") for kind in ("q4_0", "q4_K"))
    assert four is not None and five is not None
    narrow = sum(t.elements for t in tensors_of(shape) if t.is_matrix and t.dims[0] == 1152 and "blk" in t.name)
    assert five - four >= narrow // 32 * 4
    assert four > shape.width * shape.vocabulary // 32 * 34


def test_gemma_has_one_matrix_for_both_ends_and_stablelm_has_biases() -> None:
    assert not any(tensor.name == "output.weight" for tensor in tensors_of(SHAPES["gemma-2b"]))
    assert TensorShape("output.weight", (2560, 50304)) in tensors_of(SHAPES["stablelm-zephyr-3b"])
    assert TensorShape("blk.31.ffn_norm.bias", (2560,)) in tensors_of(SHAPES["stablelm-zephyr-3b"])
