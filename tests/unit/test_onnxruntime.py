"""ONNX Runtime's models: codes that are taken over keep their values, files keep their bytes, and what cannot be converted is said."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import gguf as library
import numpy as np
import pytest

from meltrepro.errors import ModelError
from meltrepro.frameworks.base import RUN, ModelStep, Skip, Variant
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.module import FRAMEWORK as LLAMA
from meltrepro.frameworks.onnxruntime.convert import GRAPH, WEIGHTS, convert, quantized
from meltrepro.frameworks.onnxruntime.module import FRAMEWORK
from meltrepro.frameworks.onnxruntime.options import OnnxOptions
from meltrepro.frameworks.prebuilt.codes import Codes, GgufNumbers
from meltrepro.frameworks.prebuilt.folder import FACTS, VOCABULARY
from meltrepro.manifest.sources import FileSource, FolderSource
from meltrepro.testing.frameworks import DEVICES
from tests.support.ggufs import STRING, U32
from tests.support.llamas import CONTEXT, TOKENS, llama

RELEASE = FRAMEWORK.releases()["1.29.0"]
FILES = (GRAPH, WEIGHTS, VOCABULARY, FACTS)
MATRICES = ("blk.0.attn_q.weight", "blk.1.ffn_down.weight")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.gguf"


def values(codes: Codes) -> np.ndarray:
    """The numbers that codes stand for, as ONNX Runtime's operators define it."""
    found = codes.codes
    if codes.bits == 4:
        found = np.stack([found & 15, found >> 4], axis=-1).reshape(*found.shape[:2], -1)
    numbers = (found.astype(np.float32) - (1 << codes.bits - 1)) * codes.scales[..., None]
    return numbers.reshape(codes.rows, codes.columns)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q6_K"])
def test_codes_that_are_taken_over_stand_for_the_same_numbers(source: Path, kind: str) -> None:
    source.write_bytes(llama(kind))
    theirs = {each.name: each for each in library.GGUFReader(source).tensors}
    ours = GgufNumbers(source, gguf.check(source))
    for name in MATRICES:
        codes = ours.read(name)
        assert isinstance(codes, Codes)
        wanted = library.quants.dequantize(theirs[name].data, theirs[name].tensor_type)
        assert np.array_equal(values(codes), wanted)


@pytest.mark.parametrize(("bits", "most"), [(4, 0.13), (8, 0.008)])
def test_codes_of_its_own_are_near_the_numbers(bits: int, most: float) -> None:
    numbers = np.random.default_rng(1).standard_normal((8, 128)).astype(np.float32)
    numbers[0] = 0
    found = values(quantized(numbers, bits))
    assert np.abs(found - numbers).max() <= most * np.abs(numbers).max()
    assert np.array_equal(found[0], numbers[0])


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", None), ("Q8_0", None), ("F16", None), ("F16", 4), ("F32", 8)])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_converted_to_the_same_bytes(source: Path, kind: str, bits: int | None, tied: bool) -> None:
    source.write_bytes(llama(kind, tied=tied))
    folders = [source.parent / name for name in ("one", "two")]
    for folder in folders:
        convert(source, folder, bits)
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
        FRAMEWORK.check_model(folder)
    assert digests(folders[0]) == digests(folders[1])
    facts = json.loads((folders[0] / "model.json").read_text())
    assert facts | {"vocabulary": TOKENS, "context": CONTEXT, "layers": 2, "kv_heads": 2, "head": 64} == facts
    assert FRAMEWORK.parameter_count(folders[0]) == FRAMEWORK.parameter_count(source)


def test_an_embedding_that_is_the_output_too_is_written_once(source: Path) -> None:
    sizes = []
    for tied in (True, False):
        source.write_bytes(llama("Q8_0", tied=tied))
        folder = source.parent / str(tied)
        convert(source, folder)
        sizes.append((folder / WEIGHTS).stat().st_size)
    assert sizes[1] - sizes[0] >= TOKENS * 256


def test_rotations_are_slower_by_the_factors_of_a_model(source: Path) -> None:
    weights = []
    for factors in (None, 1.0, 2.0):
        source.write_bytes(llama(factors=factors))
        folder = source.parent / str(factors)
        convert(source, folder)
        weights.append((folder / WEIGHTS).read_bytes())
    assert weights[0] == weights[1] != weights[2]
    half = 64 // 2 * 4
    cosines = [np.frombuffer(each[: CONTEXT * half], np.float32).reshape(CONTEXT, -1) for each in weights[1:]]
    assert np.array_equal(cosines[0][: CONTEXT // 2], cosines[1][::2])


def test_the_vocabulary_is_the_sources(source: Path) -> None:
    source.write_bytes(llama("Q4_0"))
    convert(source, source.parent / "model")
    theirs, ours = (library.GGUFReader(each) for each in (source, source.parent / "model" / "vocabulary.gguf"))
    assert not ours.tensors
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            assert ours.fields[key].contents() == field.contents(), key


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (llama(architecture="gemma"), "architecture gemma"),
        (llama(extra={"llama.expert_count": (U32, 8)}), "llama.expert_count is 8"),
        (llama(extra={"llama.rope.scaling.type": (STRING, "yarn")}), "llama.rope.scaling.type is yarn"),
        (llama(without="blk.1.ffn_up.weight"), "no tensor blk.1.ffn_up.weight"),
    ],
    ids=["architecture", "experts", "scaling", "tensor"],
)
def test_what_cannot_be_converted_is_known_by_its_header(source: Path, content: bytes, why: str) -> None:
    source.write_bytes(content)
    refusal = FRAMEWORK.look(source, RELEASE).refusal
    assert refusal is not None and why in refusal
    with pytest.raises(ModelError, match=why):
        convert(source, source.parent / "model")


def test_codes_that_cannot_be_kept_are_refused_where_they_should_be(source: Path) -> None:
    source.write_bytes(llama("Q4_1"))
    assert FRAMEWORK.look(source, RELEASE).refusal is None, "they may be quantized anew"
    with pytest.raises(ModelError, match="Q4_1, whose codes"):
        convert(source, source.parent / "model")


def test_heads_that_do_not_fit_are_refused(source: Path) -> None:
    source.write_bytes(llama(extra={"llama.attention.head_count": (U32, 3)}))
    with pytest.raises(ModelError, match="3 heads"):
        convert(source, source.parent / "model")


@pytest.mark.parametrize("missing", FILES)
def test_a_folder_that_lacks_a_file_is_no_model(source: Path, missing: str) -> None:
    source.write_bytes(llama("Q4_0"))
    convert(source, source.parent / "model")
    (source.parent / "model" / missing).unlink()
    with pytest.raises(ModelError, match=missing):
        FRAMEWORK.check_model(source.parent / "model")


def chain(quantization: str, *, checkpoint: bool = False) -> list[ModelStep]:
    variant = FRAMEWORK.variant(OnnxOptions(), RELEASE, DEVICES[0])
    assert isinstance(variant, Variant)
    place = FolderSource(folder="model") if checkpoint else FileSource(file="model.gguf")
    steps = FRAMEWORK.model_steps(place, quantization, RELEASE, variant)
    assert not isinstance(steps, Skip)
    return [*steps]


@pytest.mark.parametrize("quantization", ["q4_0", "q8_0"])
def test_codes_are_made_by_the_very_step_that_llama_cpp_takes(quantization: str) -> None:
    release, variant = LLAMA.releases()["2026-10-01"], LLAMA.tool_variant(RUN)
    theirs = LLAMA.model_steps(FileSource(file="model.gguf"), quantization, release, variant)
    assert chain(quantization)[:-1] == theirs


def test_schemes_that_differ_have_steps_of_other_names() -> None:
    assert {chain(name)[-1].name for name in ("int4", "int8", "q4_0")} == {"onnx-int4-1", "onnx-int8-1", "onnx-1"}
    assert [step.name for step in chain("int4", checkpoint=True)] == ["convert", "quantize", "onnx-int4-1"]
    assert [step.name for step in chain("as-is")] == ["onnx-1"]


def test_a_phone_with_linux_has_a_build_and_an_iphone_has_none() -> None:
    board = DEVICES[1]
    phone = FRAMEWORK.variant(OnnxOptions(), RELEASE, replace(board, kind="android"))
    assert isinstance(phone, Variant) and phone.name == "armv8"
    skip = FRAMEWORK.variant(OnnxOptions(), RELEASE, replace(board, kind="ios", arch="arm64-apple-ios"))
    assert isinstance(skip, Skip) and "no build" in skip.reason


def test_options_are_in_the_request_and_pin_nothing() -> None:
    options = OnnxOptions(spinning=False, graph_optimization="basic")
    variant = FRAMEWORK.variant(options, RELEASE, DEVICES[0])
    assert isinstance(variant, Variant)
    assert FRAMEWORK.request(options, variant) == {"graph_optimization": "basic", "spinning": False}
    assert FRAMEWORK.pinned(options) == {}
    problems = [*FRAMEWORK.check_options(OnnxOptions(isas=["armv9"]), "1.29.0", ["host"])]
    assert [(problem.path, problem.value) for problem in problems] == [(("isas", 0), "armv9")]
