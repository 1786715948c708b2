"""Engines from wheels beside llama.cpp, for real: the same codes give the same tokens, operators are told, and what is damaged is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from meltrepro.measure.operators import breakdown
from meltrepro.record.trace import OperatorPhase
from tests.integration import prebuilt
from tests.integration.prebuilt import Campaign, Engines
from tests.integration.runner.contract import Runner

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Names:
    """What an engine calls its operators, their modules and its files."""

    prefill: str
    generation: str
    """Products with codes."""
    output: str
    attention: str
    embedding: str
    files: tuple[str, ...]
    modules: tuple[str, ...] = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


_ORT, _OPENVINO = "MatMulNBits", "FullyConnectedCompressed"
ENGINES = {
    "onnxruntime": Names(
        _ORT, _ORT, _ORT, "GroupQueryAttention", "GatherBlockQuantized", ("model.onnx", "weights.bin")
    ),
    "openvino": Names(
        _OPENVINO,
        _OPENVINO,
        _OPENVINO,
        "ScaledDotProductAttentionWithKVCache",
        "GatherCompressed",
        ("model.xml", "model.bin"),
    ),
    "mlc": Names(
        "matrix_product_codes4x32",
        "vector_product_codes4x32",
        "vector_product_codes8x32",
        "attend",
        "rows",
        ("tensor-cache.json", "params_shard_1.bin", "model.so"),
        ("attn_qkv", "attn_output", "ffn_gate_up", "ffn_down"),
    ),
}
FILES = [(kind, name) for kind, names in ENGINES.items() for name in (*names.files, "vocabulary.gguf", "model.json")]


@pytest.fixture(scope="module")
def engines(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return prebuilt.build(tmp_path_factory.mktemp("specs"))


@pytest.fixture(scope="module")
def campaign(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return prebuilt.run(engines, tmp_path_factory.mktemp("home"))


@pytest.fixture
def runner(engines: Engines, kind: str, tmp_path: Path) -> Runner:
    return engines.runner(kind, tmp_path)


@pytest.mark.parametrize("kind", ENGINES)
def test_the_same_weights_give_the_same_tokens(campaign: Campaign, kind: str) -> None:
    """Floats, with which no engine rounds what it multiplies; codes are held to their values by the unit tests."""
    ours, theirs = (campaign.trace("f16", name).turns for name in (kind, "llama.cpp"))
    assert [turn.n_prompt for turn in ours] == [turn.n_prompt for turn in theirs], "the same text, the same tokens"
    assert [turn.token_ids for turn in ours] == [turn.token_ids for turn in theirs]


@pytest.mark.parametrize("kind", ENGINES)
def test_the_same_codes_read_prompts_alike(campaign: Campaign, kind: str) -> None:
    ours, theirs = (campaign.trace("q4_0", name).turns for name in (kind, "llama.cpp"))
    assert [turn.n_prompt for turn in ours] == [turn.n_prompt for turn in theirs]
    assert ours[0].token_ids[:4] == theirs[0].token_ids[:4]


@pytest.mark.parametrize("kind", ENGINES)
def test_operators_are_told_by_module(campaign: Campaign, kind: str) -> None:
    trace, names = campaign.trace("q4_0", kind, "p000"), ENGINES[kind]
    phases: tuple[tuple[OperatorPhase, int], ...] = (("prefill", 2), ("generation", 30))
    for phase, calls in phases:
        found = breakdown(trace, phase)
        assert found.calls == calls
        calls_of = {(share.name, share.module): share.calls for share in found.shares}
        for module in names.modules:
            assert calls_of[getattr(names, phase), module] == 30 * found.calls
        assert calls_of[names.attention, "attention"] == 30 * found.calls
        assert calls_of[names.output, "output"] == calls_of[names.embedding, "token_embd"] == found.calls
        assert sum(share.ns for share in found.shares) <= found.ns


@pytest.mark.parametrize("kind", ENGINES)
def test_a_field_that_nobody_takes_is_refused(runner: Runner) -> None:
    run = runner.run({**runner.request(), "mmap": True})
    assert (run.status, run.error["code"]) == (2, 2)
    assert "unknown field" in run.error["message"]


@pytest.mark.parametrize("kind", ENGINES)
def test_a_context_that_is_too_long_is_refused(runner: Runner) -> None:
    run = runner(context=9000)
    assert run.status == 4 and "8192" in run.error["message"]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def text(path: Path) -> None:
    path.write_text("{}")


@pytest.mark.parametrize(("kind", "name"), FILES)
@pytest.mark.parametrize("damage", [cut, text, Path.unlink])
def test_a_damaged_model_is_refused(runner: Runner, name: str, damage: Callable[[Path], None]) -> None:
    copy = shutil.copytree(runner.model, runner.folder / "model")
    (copy / name).chmod(0o644)
    damage(copy / name)
    run = runner(model=str(copy))
    assert run.status == 3, run.events[-1]
    assert run.error["message"]
