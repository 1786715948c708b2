"""ONNX Runtime beside llama.cpp, for real: the same codes give the same tokens, operators are told, and what is damaged is refused."""

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
  smollm2-135m: {quantizations: [f16, q4_0]}
frameworks:
  llama.cpp: {release: "2026-10-01"}
  onnxruntime: {release: "1.29.0", options: {spinning: false}}
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
    bundle = next(path for name, path in built.items() if name.startswith("onnxruntime/run/"))
    model = next(path for name, path in built.items() if name.endswith("q4_0/onnxruntime"))
    return Runner(Bundle(bundle), model, tmp_path)


def test_the_same_weights_give_the_same_tokens(trace_of: Callable[[str, str], Trace]) -> None:
    """Floats, with which no engine rounds what it multiplies; codes are held to their values by the unit tests."""
    ours, theirs = (trace_of(f"f16/{name}", "r000").turns for name in ("onnxruntime", "llama.cpp"))
    assert [turn.n_prompt for turn in ours] == [turn.n_prompt for turn in theirs], "the same text, the same tokens"
    assert [turn.token_ids for turn in ours] == [turn.token_ids for turn in theirs]


def test_the_same_codes_read_prompts_alike(trace_of: Callable[[str, str], Trace]) -> None:
    ours, theirs = (trace_of(f"q4_0/{name}", "r000").turns for name in ("onnxruntime", "llama.cpp"))
    assert [turn.n_prompt for turn in ours] == [turn.n_prompt for turn in theirs]
    assert ours[0].token_ids[:4] == theirs[0].token_ids[:4]


def test_operators_are_told_by_module(trace_of: Callable[[str, str], Trace]) -> None:
    trace = trace_of("q4_0/onnxruntime", "p000")
    phases: tuple[tuple[OperatorPhase, int], ...] = (("prefill", 2), ("generation", 30))
    for phase, calls in phases:
        found = breakdown(trace, phase)
        assert found.calls == calls
        calls_of = {(share.name, share.module): share.calls for share in found.shares}
        for module in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            assert calls_of["MatMulNBits", module] == 30 * found.calls
        assert calls_of["GroupQueryAttention", "attention"] == 30 * found.calls
        assert calls_of["MatMulNBits", "output"] == calls_of["GatherBlockQuantized", "token_embd"] == found.calls
        assert sum(share.ns for share in found.shares) <= found.ns


def test_batches_and_levels_of_optimization_change_no_token(runner: Runner) -> None:
    """A prompt in pieces, and a graph as it is written, are computed alike."""
    changes: list[dict[str, Any]] = [{}, {"batch": 5}, {"graph_optimization": "off"}, {"spinning": False, "threads": 2}]
    found = []
    for each in changes:
        run = runner.run({**runner.request(max_tokens=12, conversations=[[STORY, FIRST]]), **each})
        found.append([turn.token_ids for turn in run.trace.turns])
    assert all(each == found[0] for each in found)


def test_what_is_used_is_told(runner: Runner) -> None:
    run = runner.run({**runner.request(max_tokens=2), "graph_optimization": "basic", "spinning": False})
    said = next(event for event in run.events if event["e"] == "effective")
    assert (said["version"], said["graph_optimization"], said["spinning"]) == ("1.29.0", "basic", False)
    assert (said["cache_types"], said["tokenizer"]) == ("f32/f32", "llama.cpp 2026-10-01")


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("graph_optimization", "some", "expected off, basic, extended or all"),
        ("spinning", 3, "expected true or false"),
        ("mmap", True, "unknown field"),
    ],
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


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin", "vocabulary.gguf", "model.json"])
@pytest.mark.parametrize("damage", [cut, text, Path.unlink])
def test_a_damaged_model_is_refused(runner: Runner, name: str, damage: Callable[[Path], None]) -> None:
    copy = shutil.copytree(runner.model, runner.folder / "model")
    (copy / name).chmod(0o644)
    damage(copy / name)
    run = runner(model=str(copy))
    assert run.status == 3, run.events[-1]
    assert run.error["message"]
