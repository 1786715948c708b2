"""Checkpoints of Hugging Face through llama.cpp's own converters: real bundles, both engines, the real runner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from meltrepro.build.toolchain import VARIED
from meltrepro.errors import BuildError
from meltrepro.steps import silent
from meltrepro.store.archive import pack_tree
from tests.integration.conftest import meltrepro
from tests.integration.converting import NEW, OLD, Converters, convert, digest, tools
from tests.support.checkpoints import bfloat16, llama_tensors, write_gemma, write_llama, write_stablelm

pytestmark = pytest.mark.machine


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


def test_both_engines_make_the_same_converter_and_the_same_model(
    converters: Converters, engine: None, tmp_path: Path
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
    converters: Converters,
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


def test_what_the_converter_says_last_is_in_the_error(converters: Converters, tmp_path: Path) -> None:
    checkpoint = write_llama(tmp_path / "checkpoint")
    (checkpoint / "tokenizer.model").write_bytes(b"no tokenizer")
    with pytest.raises(BuildError, match=r"converting it ended with status 1:(.|\n)*sentencepiece"):
        convert(tools("process"), converters[NEW][0], checkpoint, tmp_path / "made")


def test_a_folder_becomes_a_measured_model(
    converters: Converters, runner_bundles: Mapping[str, Path], tmp_path: Path
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
