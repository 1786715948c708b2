"""Models of engines that come as wheels: codes that are taken over keep their values, files keep their bytes, and what cannot be converted is said."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import gguf as library
import numpy as np
import pytest

from meltrepro.errors import ModelError
from meltrepro.frameworks.base import AS_IS, RUN, ModelStep, Release, Skip, Variant, framework
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.module import FRAMEWORK as LLAMA
from meltrepro.frameworks.prebuilt.codes import Codes, GgufNumbers
from meltrepro.frameworks.prebuilt.folder import FACTS, VOCABULARY
from meltrepro.frameworks.prebuilt.llama import shape_of
from meltrepro.frameworks.prebuilt.module import WheelFramework
from meltrepro.frameworks.prebuilt.rotations import rotations
from meltrepro.manifest.sources import FileSource, FolderSource
from meltrepro.testing.frameworks import DEVICES
from tests.support.codes import values
from tests.support.ggufs import STRING, U32
from tests.support.llamas import CONTEXT, TOKENS, llama

ENGINES = ("onnxruntime", "openvino")
"""Those that take llama.cpp's codes over."""
MATRICES = ("blk.0.attn_q.weight", "blk.1.ffn_down.weight")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> WheelFramework:
    found = framework(request.param)
    assert isinstance(found, WheelFramework)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.gguf"


def convert(engine: WheelFramework, source: Path, folder: Path, scheme: str = "as-is") -> Path:
    """By the last of a scheme's steps."""
    run = engine.engine.schemes[scheme].steps[-1].run
    assert run is not None and run(source, folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def weights_of(engine: WheelFramework, folder: Path) -> Path:
    return max((folder / name for name in engine.engine.files), key=lambda path: path.stat().st_size)


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


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "F16", "F32"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_converted_to_the_same_bytes(engine: WheelFramework, source: Path, kind: str, tied: bool) -> None:
    source.write_bytes(llama(kind, tied=tied))
    folders = [convert(engine, source, source.parent / name) for name in ("one", "two")]
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {*engine.engine.files, VOCABULARY, FACTS}
        engine.check_model(folder)
    assert digests(folders[0]) == digests(folders[1])
    facts = json.loads((folders[0] / FACTS).read_text())
    assert facts | {"vocabulary": TOKENS, "context": CONTEXT, "layers": 2, "kv_heads": 2, "head": 64} == facts
    assert engine.parameter_count(folders[0]) == engine.parameter_count(source)


def test_an_embedding_that_is_the_output_too_is_written_once(engine: WheelFramework, source: Path) -> None:
    sizes = []
    for tied in (True, False):
        source.write_bytes(llama("Q8_0", tied=tied))
        folder = convert(engine, source, source.parent / str(tied))
        sizes.append(weights_of(engine, folder).stat().st_size)
    assert sizes[1] - sizes[0] >= TOKENS * 256


def test_rotations_are_slower_by_the_factors_of_a_model(source: Path) -> None:
    cosines = []
    for factors in (None, 1.0, 2.0):
        source.write_bytes(llama(factors=factors))
        header = gguf.check(source)
        cosines.append(rotations(shape_of(header), GgufNumbers(source, header))[0])
    assert np.array_equal(cosines[0], cosines[1]) and cosines[0].shape == (CONTEXT, 64 // 2)
    assert np.array_equal(cosines[1][: CONTEXT // 2], cosines[2][::2])


def test_rotations_are_in_the_file(engine: WheelFramework, source: Path) -> None:
    source.write_bytes(llama(factors=2.0))
    header = gguf.check(source)
    content = weights_of(engine, convert(engine, source, source.parent / "model")).read_bytes()
    for numbers in rotations(shape_of(header), GgufNumbers(source, header)):
        assert numbers.tobytes() in content


def test_the_vocabulary_is_the_sources(engine: WheelFramework, source: Path) -> None:
    source.write_bytes(llama("Q4_0"))
    folder = convert(engine, source, source.parent / "model")
    theirs, ours = (library.GGUFReader(each) for each in (source, folder / VOCABULARY))
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
def test_what_cannot_be_converted_is_known_by_its_header(
    engine: WheelFramework, source: Path, content: bytes, why: str
) -> None:
    source.write_bytes(content)
    refusal = engine.look(engine.options(), source, release(engine)).refusal
    assert refusal is not None and why in refusal
    with pytest.raises(ModelError, match=why):
        convert(engine, source, source.parent / "model")


def test_codes_that_cannot_be_kept_are_refused_where_they_should_be(engine: WheelFramework, source: Path) -> None:
    source.write_bytes(llama("Q4_1"))
    seen = engine.look(engine.options(), source, release(engine))
    assert seen.refusal is None, "they may be quantized anew"
    assert "Q4_1, whose codes" in seen.unmade[AS_IS]
    with pytest.raises(ModelError, match="Q4_1, whose codes"):
        convert(engine, source, source.parent / "model")


def test_heads_that_do_not_fit_are_refused(engine: WheelFramework, source: Path) -> None:
    source.write_bytes(llama(extra={"llama.attention.head_count": (U32, 3)}))
    assert "3 heads" in (engine.look(engine.options(), source, release(engine)).refusal or "")
    with pytest.raises(ModelError, match="3 heads"):
        convert(engine, source, source.parent / "model")


def test_a_folder_that_lacks_a_file_is_no_model(engine: WheelFramework, source: Path) -> None:
    source.write_bytes(llama("Q4_0"))
    for missing in (*engine.engine.files, VOCABULARY, FACTS):
        folder = convert(engine, source, source.parent / f"without-{missing}")
        (folder / missing).unlink()
        with pytest.raises(ModelError, match=missing):
            engine.check_model(folder)


def release(engine: WheelFramework) -> Release:
    (found,) = engine.releases().values()
    return found


def chain(engine: WheelFramework, quantization: str, *, checkpoint: bool = False) -> list[ModelStep]:
    variant = engine.variant(engine.options(), release(engine), DEVICES[0])
    assert isinstance(variant, Variant)
    place = FolderSource(folder="model") if checkpoint else FileSource(file="model.gguf")
    steps = engine.model_steps(place, quantization, release(engine), variant)
    assert not isinstance(steps, Skip)
    return [*steps]


@pytest.mark.parametrize("quantization", ["q4_0", "q8_0"])
def test_codes_are_made_by_the_very_step_that_llama_cpp_takes(engine: WheelFramework, quantization: str) -> None:
    newest, variant = LLAMA.releases()["2026-10-01"], LLAMA.tool_variant(RUN)
    theirs = LLAMA.model_steps(FileSource(file="model.gguf"), quantization, newest, variant)
    assert chain(engine, quantization)[:-1] == theirs


def test_a_checkpoint_is_converted_and_quantized_before(engine: WheelFramework) -> None:
    own = chain(engine, "as-is")
    assert len(own) == 1
    assert [step.name for step in chain(engine, "q4_0", checkpoint=True)] == ["convert", "quantize", own[0].name]


def test_a_phone_with_linux_has_a_build_and_an_iphone_has_none(engine: WheelFramework) -> None:
    board = DEVICES[1]
    phone = engine.variant(engine.options(), release(engine), replace(board, kind="android"))
    assert isinstance(phone, Variant) and phone.name == "armv8"
    skip = engine.variant(engine.options(), release(engine), replace(board, kind="ios", arch="arm64-apple-ios"))
    assert isinstance(skip, Skip) and "no build" in skip.reason


def test_levels_that_nobody_knows_are_refused(engine: WheelFramework) -> None:
    problems = [*engine.check_options(engine.options(isas=["armv9"]), release(engine).name, ["host"])]
    assert [(problem.path, problem.value) for problem in problems] == [(("isas", 0), "armv9")]
    assert engine.pinned(engine.options()) == {}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_bundle_gets_libraries_and_licences_of_its_machine(engine: WheelFramework, machine: str) -> None:
    for wheel in engine.engine.wheels:
        files = wheel.contents(machine)
        assert {name.partition("/")[0] for name in files} == {"lib", "licenses"}
        assert wheel.source(machine).filename == wheel.filenames[machine]
        libc, found = wheel.filenames[machine].removesuffix(".whl").rsplit("-", 1)[1].split("_", 1)
        assert libc.startswith("manylinux") and found.endswith(machine), "no other is glibc's"
