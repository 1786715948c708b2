"""Tiny random checkpoints of today's architectures, made by `transformers`: converted, quantized and run, they answer as it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.build.pipeline import run_tool
from meltrepro.frameworks.llamacpp import convert as llamacpp_convert
from meltrepro.record.trace import Turn
from tests.integration.bundles import Bundle
from tests.integration.conftest import meltrepro
from tests.integration.converting import NEW, OLD, Converters, convert, tools
from tests.integration.runner.contract import Runner
from tests.support import known_architectures, pages, random_models
from tests.support.checkpoints import write_tokenizer

pytestmark = pytest.mark.integration
WHOLE = ("qwen3", "gemma-3", "olmoe")
SPEC = """
meltrepro: 1
name: checkpoints
frameworks:
  new: {kind: llama.cpp, release: "2026-10-01"}
targets: {host: {kind: host, threads: 1}}
workloads:
  w: {conversations: [["the old house"]], context: 256, max_tokens: 8, ignore_eos: true}
protocol: {profile: smoke, repetitions: 1}
tracking: {enabled: false}
"""
TEXT, COUNT = "the old house by the water was large and white", 24


@pytest.fixture(scope="module")
def made(converters: Converters, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints, each with the tokenizer that its vocabulary is of."""
    tokenizer, scratch = tmp_path_factory.mktemp("tokenizer"), tmp_path_factory.mktemp("made")
    write_tokenizer(tokenizer, smollm2)
    program = Path(random_models.__file__)
    command = (*llamacpp_convert.INTERPRETER, f"/source/{program.name}", TEXT, str(COUNT))
    files = {f"/source/{path.name}": path for path in [program, *tokenizer.iterdir()]}
    log = scratch / "log"
    made = run_tool(tools("process").engine(), converters[NEW][0], command, files, scratch, log, "it", "folder")
    for folder in made.iterdir():
        for path in tokenizer.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    return made


@pytest.mark.parametrize(("release", "name"), [*((NEW, name) for name in random_models.CONFIGURATIONS), (OLD, "qwen2")])
def test_the_greedy_tokens_are_those_of_transformers(
    converters: Converters, runner_bundles: Mapping[str, Path], made: Path, tmp_path: Path, release: str, name: str
) -> None:
    answer: dict[str, Any] = json.loads((made / name / "answer.json").read_bytes())
    model = convert(tools("process"), converters[release][0], made / name, tmp_path / "made", "f32")
    turn = run(runner_bundles, release, model)
    assert turn.n_prompt == len(answer["prompt"])
    assert len({*answer["tokens"]}) > COUNT // 3, "a model that repeats itself agrees by chance"
    assert [*turn.token_ids] == answer["tokens"], f"the least margin is {answer['margin']}"


def run(bundles: Mapping[str, Path], release: str, model: Path) -> Turn:
    found = map(Bundle, bundles.values())
    bundle = next(each for each in found if (each.facts["release"], each.machine) == (release, "x86_64"))
    runner = Runner(bundle, model, model.parent)
    return runner(max_tokens=COUNT, ignore_eos=True, context=128, conversations=[[TEXT]]).turn


@pytest.mark.machine
def test_from_a_checkpoint_to_a_record(made: Path, tmp_path: Path) -> None:
    entry = {"chat_template": "chatml", "quantizations": ["q8_0"]}
    models = {name: {"source": {"folder": str(made / name)}, **entry} for name in WHOLE}
    manifest = yaml.safe_load(SPEC) | {"models": models}
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(manifest))
    done = meltrepro("run", spec, "--engine", "process", home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = [json.loads(path.read_bytes()) for path in (tmp_path / "home").rglob("outcome.json")]
    assert {outcome["cell"] for outcome in outcomes} == {f"{name}/q8_0/new/host/w" for name in WHOLE}
    assert all(outcome["state"] == "ok" for outcome in outcomes), outcomes


def test_the_page_lists_what_the_releases_know() -> None:
    assert pages.made(*known_architectures.PLACE) == known_architectures.table(), (
        "write it anew with: python -m tests.support.known_architectures"
    )
