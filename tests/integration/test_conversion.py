"""Checkpoints of Hugging Face through llama.cpp's own converters: real bundles, both engines, the real runner."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from meltrepro import settings
from meltrepro.build.model import Artifact, Recipe
from meltrepro.build.pipeline import Builder, run_tool
from meltrepro.build.toolchain import USUAL, VARIED, Conditions
from meltrepro.build.tools import EngineName, Tools
from meltrepro.errors import BuildError
from meltrepro.frameworks.llamacpp import convert as llamacpp_convert
from meltrepro.manifest.lock import Lock
from meltrepro.plan.model import BundleNode, Costs, Plan
from meltrepro.steps import silent
from meltrepro.store.archive import pack_tree
from tests.integration.conftest import meltrepro
from tests.support.checkpoints import bfloat16, llama_tensors, write_gemma, write_llama, write_stablelm
from tests.support.frameworks import bundle
from tests.support.manifests import GOOD, load

pytestmark = pytest.mark.machine

OLD, NEW = "2024-02-27", "2026-10-01"


def tools(engine: EngineName, conditions: Conditions = USUAL) -> Tools:
    return Tools(settings.load(), silent, Lock(lock=1, manifest="0" * 64), engine, conditions=conditions)


def node(release: str) -> BundleNode:
    return bundle(llamacpp_convert.VARIANT, release, "convert", name="llama.cpp")


@pytest.fixture(scope="module")
def converters(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Artifact, Recipe]]:
    """The converter of each release and its recipe, built without Docker where the store has none."""
    folder = tmp_path_factory.mktemp("converters")
    manifest = load(folder, GOOD).manifest
    made = {}
    for release in (OLD, NEW):
        builder = Builder(tools("process"))
        built = builder.build(Plan(manifest, (), (), (node(release),), (), Costs(None, None, {})))
        made[release] = built.artifacts[node(release).id], built.recipes[node(release).id]
    return made


@pytest.fixture(scope="module")
def checkpoints(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """One of each kind; `tokenizer.json` and StableLM's are SmolLM2's."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "llama": write_llama(folder / "llama"),
        "llama, tokenizer.json": write_llama(folder / "json", smollm2),
        "stablelm": write_stablelm(folder / "stablelm", smollm2),
        "gemma": write_gemma(folder / "gemma"),
    }


def convert(made: Tools, converter: Artifact, checkpoint: Path, folder: Path, kind: str = "f16") -> Path:
    """Convert as a build does; the files are seen one by one, as they are in the store."""
    folder.mkdir()
    files = {f"/source/{path.name}": path for path in checkpoint.iterdir()}
    command = llamacpp_convert.command(kind)
    return run_tool(made.engine(), converter, command, files, folder, folder / "log", "converting it")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_both_engines_make_the_same_converter_and_the_same_model(
    converters: Mapping[str, tuple[Artifact, Recipe]], engine: None, tmp_path: Path
) -> None:
    converter, recipe = converters[OLD]
    made = tools("docker")
    for name, builder in (("docker", made), ("elsewhere", tools("process", VARIED))):
        out = tmp_path / name
        out.mkdir()
        builder.engine().build(recipe, out, tmp_path / "log", silent, fresh=True)
        pack_tree(out, tmp_path / "tar", prefix="bundle")
        assert digest(tmp_path / "tar") == converter.digest, name

    checkpoint = write_llama(tmp_path / "checkpoint")
    results = [
        convert(tools("process"), converter, checkpoint, tmp_path / "first"),
        convert(tools("process"), converter, checkpoint, tmp_path / "second"),
        convert(made, converter, checkpoint, tmp_path / "third"),
    ]
    assert len({digest(result) for result in results}) == 1


@pytest.mark.parametrize("release", [OLD, NEW])
@pytest.mark.parametrize("kind", ["llama", "llama, tokenizer.json", "stablelm", "gemma"])
def test_every_architecture_keeps_its_weights(
    converters: Mapping[str, tuple[Artifact, Recipe]],
    checkpoints: Mapping[str, Path],
    tmp_path: Path,
    release: str,
    kind: str,
) -> None:
    result = convert(tools("process"), converters[release][0], checkpoints[kind], tmp_path / "made")
    reader = gguf.GGUFReader(result)
    assert reader.fields["general.architecture"].contents() == kind.partition(",")[0]
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    expected = llama_tensors(len(tokens), tied=kind == "gemma")
    values = tensors["blk.1.ffn_down.weight"].data
    np.testing.assert_array_equal(values, _bfloat16(expected["model.layers.1.mlp.down_proj.weight"]).astype("<f2"))
    norm = _bfloat16(expected["model.norm.weight"])
    if kind == "gemma":  # its norms are stored less one; the release of 2024 adds that in bfloat16
        norm = _bfloat16(norm + 1) if release == OLD else norm + 1
    np.testing.assert_array_equal(tensors["output_norm.weight"].data, norm)


def _bfloat16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The nearest numbers that bfloat16 has."""
    return (np.frombuffer(bfloat16(values), "<u2").astype("<u4") << 16).view("<f4").reshape(values.shape)


def test_what_the_converter_says_last_is_in_the_error(
    converters: Mapping[str, tuple[Artifact, Recipe]], tmp_path: Path
) -> None:
    checkpoint = write_llama(tmp_path / "checkpoint")
    (checkpoint / "tokenizer.model").write_bytes(b"no tokenizer")
    with pytest.raises(BuildError, match=r"converting it ended with status 1:(.|\n)*sentencepiece"):
        convert(tools("process"), converters[NEW][0], checkpoint, tmp_path / "made")


def test_a_folder_becomes_a_measured_model(
    converters: Mapping[str, tuple[Artifact, Recipe]], runner_bundles: Mapping[str, Path], tmp_path: Path
) -> None:
    write_llama(tmp_path / "weights")
    (tmp_path / "spec.yaml").write_text(SPEC)
    home = tmp_path / "home"
    done = meltrepro("run", tmp_path / "spec.yaml", "--engine", "process", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = [json.loads(path.read_bytes()) for path in home.rglob("outcome.json")]
    assert {outcome["cell"] for outcome in outcomes} == {f"tiny/q8_0/{name}/host/w" for name in ("old", "new")}
    assert all(outcome["state"] == "ok" for outcome in outcomes), outcomes
    lock = (tmp_path / "spec.lock.yaml").read_text()
    for name in ("folder:weights", "file:weights/config.json", "old/convert/x86_64", "libc6", "pypi:transformers"):
        assert name in lock
    again = meltrepro("build", tmp_path / "spec.yaml", "--locked", "--json", "--engine", "process", home=home)
    assert again.returncode == 0, again.stderr
    assert all(row["reused"] for row in json.loads(again.stdout))

    config = tmp_path / "weights" / "config.json"
    config.write_text(config.read_text().replace("1e-05", "1e-06"))
    changed = meltrepro("build", tmp_path / "spec.yaml", "--locked", home=home)
    assert changed.returncode != 0
    assert "config.json" in changed.stderr and "lock --upgrade" in changed.stderr


SPEC = """
meltrepro: 1
name: conversion
models:
  tiny:
    source: {folder: weights}
    chat_template: llama-2
    quantizations: [q8_0]
frameworks:
  old: {kind: llama.cpp, release: "2024-02-27"}
  new: {kind: llama.cpp, release: "2026-10-01"}
targets: {host: {kind: host, threads: 1}}
workloads:
  w: {conversations: [["the model and water"]], context: 256, max_tokens: 8, ignore_eos: true}
protocol: {profile: smoke, repetitions: 1}
tracking: {enabled: false}
"""
