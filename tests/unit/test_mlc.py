"""MLC's models: codes keep their values in its layout, files keep their bytes, and each CPU level has code of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf as library
import numpy as np
import pytest

from meltrepro.build.render import render_recipe
from meltrepro.errors import ModelError
from meltrepro.frameworks.base import ModelStep, Skip, Variant
from meltrepro.frameworks.mlc import compiler, shards
from meltrepro.frameworks.mlc.convert import Grouped, convert, grouped
from meltrepro.frameworks.mlc.module import FRAMEWORK
from meltrepro.frameworks.mlc.options import MlcOptions
from meltrepro.frameworks.prebuilt.codes import Array
from meltrepro.manifest.sources import FileSource, FolderSource
from meltrepro.testing.frameworks import DEVICES
from tests.support.ggufs import U32
from tests.support.llamas import CONTEXT, HEADS, KV_HEADS, llama

RELEASE = FRAMEWORK.releases()["0.27.0.post1"]
HOST, BOARD = DEVICES
NEW = replace(HOST, features=frozenset(compiler.TARGETS[0].variant.requires))
PARTS = {
    "self_attn.qkv_proj": ("attn_q", "attn_k", "attn_v"),
    "self_attn.o_proj": ("attn_output",),
    "mlp.gate_up_proj": ("ffn_gate", "ffn_up"),
    "mlp.down_proj": ("ffn_down",),
}
"""MLC's matrices of a layer, and what of llama.cpp's is in them."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.gguf"


def tensors(folder: Path) -> dict[str, Array]:
    """What the files of weights hold, as TVM reads them."""
    found = {}
    for shard in json.loads((folder / shards.INDEX).read_text())["records"]:
        content = (folder / shard["dataPath"]).read_bytes()
        for each in shard["records"]:
            count = int(np.prod(each["shape"]))
            numbers = np.frombuffer(content, each["dtype"], count, each["byteOffset"])
            found[each["name"]] = numbers.reshape(each["shape"])
    return found


def values(stored: Mapping[str, Array], form: Mapping[str, Any]) -> Array:
    """The numbers of a matrix, as MLC's models define them."""
    if not form["bits"]:
        return stored["weight"].astype(np.float32)
    bits, columns = form["bits"], form["columns"]
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    codes = (stored["q_weight"][..., None] >> shifts & np.uint32((1 << bits) - 1)).reshape(form["rows"], -1)
    scales = stored["q_scale"].astype(np.float32).repeat(form["group"], axis=1)[:, :columns]
    numbers: Array = (codes[:, :columns].astype(np.float32) - form["middle"]) * scales
    return numbers


def matrix(folder: Path, name: str) -> Array:
    form = json.loads((folder / "model.json").read_text())["matrices"][name]
    here = {key.removeprefix(f"{name}."): numbers for key, numbers in tensors(folder).items() if key.startswith(name)}
    return values(here, form)


def in_halves(rows: Array, heads: int) -> Array:
    """Rows in which llama.cpp has neighbours that turn together, as Hugging Face's models have them."""
    half = rows.shape[0] // heads // 2
    order = [head * 2 * half + 2 * i + part for head in range(heads) for part in (0, 1) for i in range(half)]
    return rows[order]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q6_K", "F16", "F32"])
def test_what_is_taken_over_stands_for_the_same_numbers(source: Path, kind: str) -> None:
    source.write_bytes(llama(kind))
    theirs = {
        each.name: library.quants.dequantize(each.data, each.tensor_type) for each in library.GGUFReader(source).tensors
    }
    convert(source, source.parent / "model")
    for ours, names in PARTS.items():
        rows = [theirs[f"blk.1.{name}.weight"] for name in names]
        if "attn_q" in names:
            rows[:2] = [in_halves(rows[0], HEADS), in_halves(rows[1], KV_HEADS)]
        wanted = np.concatenate(rows)
        assert np.array_equal(matrix(source.parent / "model", f"model.layers.1.{ours}"), wanted)
    assert np.array_equal(matrix(source.parent / "model", "model.embed_tokens"), theirs["token_embd.weight"])


@pytest.mark.parametrize(
    ("scheme", "most"),
    [(Grouped(4, 32, "float16"), 0.08), (Grouped(4, 32, "float32"), 0.08), (Grouped(3, 40, "float16"), 0.18)],
    ids=["q4f16", "q4f32", "q3f16"],
)
def test_codes_of_its_own_are_near_the_numbers(scheme: Grouped, most: float) -> None:
    numbers = np.random.default_rng(1).standard_normal((8, 96)).astype(np.float32)
    numbers[0] = 0
    stored = grouped(numbers, scheme)
    form = {"rows": 8, "columns": 96, "bits": scheme.bits, "group": scheme.group, "middle": (1 << scheme.bits - 1) - 1}
    found = values(stored, form)
    assert np.abs(found - numbers).max() <= most * np.abs(numbers).max()
    assert np.array_equal(found[0], numbers[0])
    words = -(-96 // scheme.group) * scheme.group // (32 // scheme.bits)
    assert (stored["q_weight"].dtype, stored["q_weight"].shape) == (np.uint32, (8, words))
    assert stored["q_scale"].dtype == scheme.number


@pytest.mark.parametrize(
    ("kind", "own"),
    [("Q4_0", None), ("Q8_0", None), ("F16", Grouped(0, 0, "float16")), ("F32", Grouped(3, 40, "float16"))],
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_converted_to_the_same_bytes(source: Path, kind: str, own: Grouped | None, tied: bool) -> None:
    source.write_bytes(llama(kind, tied=tied))
    folders = [source.parent / name for name in ("one", "two")]
    for folder in folders:
        convert(source, folder, own)
        FRAMEWORK.check_model(folder)
    assert digests(folders[0]) == digests(folders[1])
    facts = json.loads((folders[0] / "model.json").read_text())
    assert facts | {"context": CONTEXT, "layers": 2, "heads": HEADS, "inner": 512, "width": 256} == facts
    assert ("lm_head" in facts["matrices"]) is not tied
    assert FRAMEWORK.parameter_count(folders[0]) == FRAMEWORK.parameter_count(source)
    normal = tensors(folders[0])["model.norm.weight"]
    assert normal.dtype == ("float16" if own is not None else "float32") and normal.shape == (256,)


def test_large_weights_are_in_several_files(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_LARGEST", 1 << 16)
    source.write_bytes(llama("Q4_0"))
    convert(source, source.parent / "model")
    index = json.loads((source.parent / "model" / shards.INDEX).read_text())
    assert [each["dataPath"] for each in index["records"][:2]] == ["params_shard_0.bin", "params_shard_1.bin"]
    assert all(each["nbytes"] <= 1 << 16 or len(each["records"]) == 1 for each in index["records"])
    assert len(tensors(source.parent / "model")) == index["metadata"]["ParamSize"]


def test_rotations_are_slower_by_the_factors_of_a_model(source: Path) -> None:
    steps = []
    for factors in (None, 2.0):
        source.write_bytes(llama(factors=factors))
        folder = source.parent / str(factors)
        convert(source, folder)
        steps.append(tensors(folder)["model.inv_freq"])
    assert steps[0][0] == 1 and np.array_equal(steps[0], 2 * steps[1])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (llama(architecture="gemma2"), "architecture gemma2"),
        (llama(extra={"llama.expert_count": (U32, 8)}), "llama.expert_count is 8"),
        (llama("Q4_1"), "Q4_1, whose codes"),
        (llama("Q4_0", kinds={"blk.1.attn_v.weight": "Q8_0"}), "of different types"),
    ],
    ids=["architecture", "experts", "codes", "mixed"],
)
def test_what_cannot_be_converted_is_refused(source: Path, content: bytes, why: str) -> None:
    source.write_bytes(content)
    with pytest.raises(ModelError, match=why):
        convert(source, source.parent / "model")


@pytest.mark.parametrize("missing", ["tensor-cache.json", "params_shard_0.bin", "vocabulary.gguf", "model.json"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_folder_that_is_not_whole_is_no_model(source: Path, missing: str, cut: bool) -> None:
    source.write_bytes(llama("Q4_0"))
    folder = source.parent / "model"
    convert(source, folder)
    if cut and missing in ("tensor-cache.json", "params_shard_0.bin"):
        (folder / missing).write_bytes((folder / missing).read_bytes()[:-100])
    else:
        (folder / missing).unlink()
    with pytest.raises(ModelError, match=missing):
        FRAMEWORK.check_model(folder)


def chain(quantization: str, variant: Variant, *, checkpoint: bool = False) -> list[ModelStep]:
    place = FolderSource(folder="model") if checkpoint else FileSource(file="model.gguf")
    steps = FRAMEWORK.model_steps(place, quantization, RELEASE, variant)
    assert not isinstance(steps, Skip)
    return [*steps]


def test_weights_are_shared_and_code_is_not() -> None:
    old, new = (compiler.TARGETS[place].variant for place in (1, 0))
    assert [step.name for step in chain("q4f16_1", old, checkpoint=True)] == [
        *("convert", "quantize", "mlc-q4-float16-2", "compile")
    ]
    assert [step.name for step in chain("q4_0", old)] == ["quantize", "mlc-2", "compile"]
    assert [step.name for step in chain("as-is", old)] == ["mlc-2", "compile"]
    assert chain("q4_0", old)[:-1] == chain("q4_0", new)[:-1]
    weights, code = chain("q4_0", old)[-2:]
    assert weights.shared and not weights.per_variant and code.per_variant
    assert code.command != chain("q4_0", new)[-1].command and "x86-64-v3" in code.command


def test_schemes_that_differ_have_steps_of_other_names() -> None:
    variant = compiler.TARGETS[0].variant
    names = [chain(scheme, variant)[-2].name for scheme in FRAMEWORK.quantizations()]
    kept = {"f32", "f16", "q8_0", "q4_0", "as-is"}
    assert len({*names}) == len(names) - len(kept) + 1


def test_a_device_gets_the_best_level_that_it_can_run() -> None:
    found = [FRAMEWORK.variant(MlcOptions(), RELEASE, each) for each in (NEW, BOARD, HOST)]
    assert [each.name for each in found if isinstance(each, Variant)] == ["x86_64_v4", "armv8_a"]
    assert isinstance(found[2], Skip) and "avx2" in found[2].reason
    named = FRAMEWORK.variant(MlcOptions(), RELEASE, NEW, "x86_64_v3")
    assert isinstance(named, Variant) and named.name == "x86_64_v3"


def test_what_compiles_has_its_inputs_pinned() -> None:
    variant = FRAMEWORK.tool_variant(compiler.PURPOSE)
    recipe = FRAMEWORK.recipe(MlcOptions(), RELEASE, variant, compiler.PURPOSE)
    assert recipe.interpreter and recipe.name.endswith("/compile")
    assert {"apache-tvm.whl", "apache-tvm-ffi.whl", "numpy.whl", "ml-dtypes.whl", "typing-extensions.whl"} == {
        *recipe.inputs
    }


def test_options_are_in_the_request_and_pin_nothing() -> None:
    options = MlcOptions(spinning=False)
    variant = compiler.TARGETS[0].variant
    assert FRAMEWORK.request(options, variant) == {"spinning": False}
    assert FRAMEWORK.pinned(options) == {}


def test_opencl_is_a_variant_of_its_own_for_what_pocl_can_compute() -> None:
    options = MlcOptions(device="opencl", isas=["armv8_a", "x86_64_v3"])
    found = FRAMEWORK.variant(options, RELEASE, NEW)
    assert isinstance(found, Variant) and (found.name, found.level) == ("x86_64_v4-opencl", "x86_64_v4")
    assert not found.accelerator and found.requires == NEW.features
    refused = FRAMEWORK.variant(options, RELEASE, BOARD)
    assert isinstance(refused, Skip) and "for other aarch64" in refused.reason
    assert [each.name for each in FRAMEWORK.extra_variants(options, RELEASE)] == ["x86_64_v3-opencl"]
    assert "opencl" in chain("q4f32_1", found)[-1].command
    halves = FRAMEWORK.model_steps(FileSource(file="model.gguf"), "q4f16_1", RELEASE, found)
    assert isinstance(halves, Skip) and "16 bits" in halves.reason
    assert FRAMEWORK.request(options, found) == {"spinning": True, "opencl": True}


@pytest.mark.parametrize(
    ("device", "name", "accelerator", "request_of"),
    [
        ("cpu", "armv8_a-android29", "", {"spinning": True}),
        ("opencl", "armv8_a-android29-opencl", "OpenCL", {"spinning": True, "opencl": True}),
    ],
)
def test_a_phone_gets_what_the_ndk_links(device: str, name: str, accelerator: str, request_of: dict[str, bool]) -> None:
    options = MlcOptions.model_validate({"device": device, "isas": ["armv8_a"], "toolchain": {"ndk": "ndk.zip"}})
    phone = replace(BOARD, kind="android", virtual=False, facts={"sdk": "34"})
    found = FRAMEWORK.variant(options, RELEASE, phone)
    assert isinstance(found, Variant) and (found.name, found.accelerator) == (name, accelerator)
    assert (found.triple, found.libc) == ("aarch64-linux-android29", "bionic")
    assert FRAMEWORK.extra_variants(options, RELEASE) == [found]
    assert FRAMEWORK.request(options, found) == request_of
    command = chain("q4f16_1", found)[-1].command
    assert "aarch64-linux-android" in command and ("adreno" if device == "opencl" else "cpu") in command
    recipe = FRAMEWORK.recipe(options, RELEASE, found, "run")
    assert sorted(recipe.inputs) == ["apache-tvm-ffi.whl", "apache-tvm.whl", "llama.cpp.tar.gz", "ndk"]
    assert "-march=armv8-a" in render_recipe(recipe, {}, {}).files["build.sh"].decode()
    assert FRAMEWORK.pinned(options) and FRAMEWORK.withholds(options, "file:ndk.zip")

    old = FRAMEWORK.variant(options, RELEASE, replace(phone, facts={"sdk": "28"}))
    assert isinstance(old, Skip) and "API level 29" in old.reason
    virtual = FRAMEWORK.variant(options, RELEASE, replace(phone, virtual=True))
    assert isinstance(virtual, Skip) if device == "opencl" else virtual == compiler.TARGETS[-1].variant
    (problem,) = FRAMEWORK.check_options(options, RELEASE.name, ["host"])
    assert "no target is one" in problem.message


def test_the_driver_is_pinned_and_in_no_other_bundle() -> None:
    options, cpu = MlcOptions(device="opencl"), compiler.TARGETS[1].variant
    found = FRAMEWORK.variant(options, RELEASE, NEW, "x86_64_v3")
    assert isinstance(found, Variant)
    plain, ours = (FRAMEWORK.recipe(options, RELEASE, each, "run") for each in (cpu, found))
    added = {name: source for name, source in ours.inputs.items() if name not in plain.inputs}
    assert "opencl-libpocl2.deb" in added and all(each.digest for each in added.values())
    assert all(name.startswith("opencl-") for name in added) and "opencl" not in plain.folders
    assert plain.name != ours.name
