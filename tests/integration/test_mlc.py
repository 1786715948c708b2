"""MLC beside llama.cpp, for real: the same weights give the same tokens, operators are told, and what is damaged is refused."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from meltrepro.measure.operators import breakdown
from meltrepro.record.events import read_trace
from meltrepro.record.trace import OperatorPhase, Trace
from tests.integration.bundles import Bundle
from tests.integration.conftest import ROOT, meltrepro
from tests.integration.runner.contract import FIRST, STORY, Runner

pytestmark = pytest.mark.integration

SPEC = """\
meltrepro: 1
name: two-engines
include: [common/models.yaml]
models:
  smollm2-135m: {quantizations: [f16, q4_0, q3f16_1]}
frameworks:
  llama.cpp: {release: "2026-10-01"}
  mlc: {release: "0.27.0.post1", options: {spinning: false}}
targets:
  host: {kind: host, threads: 1}
workloads:
  chat:
    conversations: [["What is the capital of France?", "Tell me three facts about it."]]
    context: 512
    max_tokens: 16
    ignore_eos: true
    sampling: {greedy: true}
protocol: {profile: smoke, repetitions: 1, warmups: 0}
measure: {operators: true, limits: {cpu_pressure: 1}}
"""


@pytest.fixture(scope="module")
def spec(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("specs")
    shutil.copytree(ROOT / "specs" / "common", folder / "common")
    (folder / "engines.yaml").write_text(textwrap.dedent(SPEC))
    return folder / "engines.yaml"


@pytest.fixture(scope="module")
def built(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Every artifact by id."""
    done = meltrepro("build", spec, "--json", home=tmp_path_factory.mktemp("home"))
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["id"]: Path(row["path"]) for row in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def trace_of(
    built: Mapping[str, Path], spec: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Trace]:
    """A trial of a campaign of both, by model and name."""
    home = tmp_path_factory.mktemp("home")
    done = meltrepro("run", spec, "--no-track", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    (campaign,) = (home / "records").iterdir()

    def trace(model: str, trial: str) -> Trace:
        return read_trace(campaign / "cells" / "smollm2-135m" / model / "host" / "chat" / trial / "events.jsonl")

    return trace


@pytest.fixture
def runner(built: Mapping[str, Path], tmp_path: Path) -> Runner:
    bundle = next(path for name, path in built.items() if name.startswith("mlc/run/"))
    model = next(path for name, path in built.items() if "/q4_0/mlc/" in name)
    return Runner(Bundle(bundle), model, tmp_path)


def test_the_same_weights_give_the_same_tokens(trace_of: Callable[[str, str], Trace]) -> None:
    """Floats of 16 bits, which llama.cpp does not round further; codes are held to their values by the unit tests."""
    ours, theirs = (trace_of(f"f16/{name}", "r000").turns for name in ("mlc", "llama.cpp"))
    assert [turn.n_prompt for turn in ours] == [turn.n_prompt for turn in theirs], "the same text, the same tokens"
    assert [turn.token_ids for turn in ours] == [turn.token_ids for turn in theirs]


def test_the_same_codes_read_prompts_alike(trace_of: Callable[[str, str], Trace]) -> None:
    ours, theirs = (trace_of(f"q4_0/{name}", "r000").turns for name in ("mlc", "llama.cpp"))
    assert [turn.n_prompt for turn in ours] == [turn.n_prompt for turn in theirs]
    assert ours[0].token_ids[:4] == theirs[0].token_ids[:4]


def test_operators_are_told_by_module(trace_of: Callable[[str, str], Trace]) -> None:
    trace = trace_of("q4_0/mlc", "p000")
    phases: tuple[tuple[OperatorPhase, int, str], ...] = (("prefill", 2, "matrix"), ("generation", 30, "vector"))
    for phase, calls, kind in phases:
        found = breakdown(trace, phase)
        assert found.calls == calls
        calls_of = {(share.name, share.module): share.calls for share in found.shares}
        for module in ("attn_qkv", "attn_output", "ffn_gate_up", "ffn_down"):
            assert calls_of[f"{kind}_product_codes4x32", module] == 30 * found.calls
        assert calls_of["attend", "attention"] == 30 * found.calls
        assert calls_of["vector_product_codes8x32", "output"] == calls_of["rows", "token_embd"] == found.calls
        assert sum(share.ns for share in found.shares) <= found.ns


def test_a_model_is_made_for_the_variant_that_loads_it(built: Mapping[str, Path]) -> None:
    (bundle,) = (name for name in built if name.startswith("mlc/run/"))
    models = [name for name in built if "/mlc/" in name and name.startswith("smollm2")]
    assert {name.rpartition("/")[2] for name in models} == {bundle.rpartition("/")[2]}
    assert len(models) == 3


def test_batches_and_threads_change_no_token(runner: Runner) -> None:
    """A prompt in pieces is computed alike, one that ends with a single token too."""
    changes: list[dict[str, Any]] = [{}, {"batch": 5}, {"batch": 1}, {"spinning": False}, {"threads": 2}]
    found = []
    for each in changes:
        run = runner.run({**runner.request(max_tokens=12, conversations=[[STORY, FIRST]]), **each})
        found.append([turn.token_ids for turn in run.trace.turns])
    assert all(each == found[0] for each in found)


def test_what_is_used_is_told(runner: Runner) -> None:
    run = runner.run({**runner.request(max_tokens=2), "spinning": False})
    said = next(event for event in run.events if event["e"] == "effective")
    assert (said["version"], said["threads"], said["spinning"]) == ("0.27.0.post1", 1, False)
    assert (said["cache_types"], said["computed_in"], said["tokenizer"]) == ("f32/f32", "f32", "llama.cpp 2026-10-01")


@pytest.mark.parametrize(
    ("field", "value", "why"), [("spinning", 3, "expected true or false"), ("mmap", True, "unknown field")]
)
def test_fields_that_are_wrong_are_refused(runner: Runner, field: str, value: object, why: str) -> None:
    run = runner.run({**runner.request(), field: value})
    assert (run.status, run.error["code"]) == (2, 2)
    assert why in run.error["message"]


def test_a_context_that_is_too_long_is_refused(runner: Runner) -> None:
    run = runner(context=9000)
    assert run.status == 4 and "8192" in run.error["message"]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def text(path: Path) -> None:
    path.write_text("{}")


@pytest.mark.parametrize(
    "name", ["tensor-cache.json", "params_shard_1.bin", "model.so", "vocabulary.gguf", "model.json"]
)
@pytest.mark.parametrize("damage", [cut, text, Path.unlink])
def test_a_damaged_model_is_refused(runner: Runner, name: str, damage: Callable[[Path], None]) -> None:
    copy = shutil.copytree(runner.model, runner.folder / "model")
    (copy / name).chmod(0o644)
    damage(copy / name)
    run = runner(model=str(copy))
    assert run.status == 3, run.events[-1]
    assert run.error["message"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"byteOffset": 0', '"byteOffset": 99999999'),
        ('"dtype": "uint32"', '"dtype": "float64"'),
        ('"dataPath": "params', '"dataPath": "../params'),
        ('"shape": [576]', '"shape": [144, 4]'),
    ],
)
def test_an_index_that_says_otherwise_is_refused(runner: Runner, old: str, new: str) -> None:
    copy = shutil.copytree(runner.model, runner.folder / "model")
    index = copy / "tensor-cache.json"
    content = index.read_text()
    assert old in content
    index.chmod(0o644)
    index.write_text(content.replace(old, new, 1))
    assert runner(model=str(copy)).status in (3, 5)
