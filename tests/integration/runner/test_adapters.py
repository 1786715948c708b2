"""LoRA adapters as real runners take them: what they add is what a model has in whose weights it was added here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from meltrepro.frameworks.llamacpp.options import OLD
from meltrepro.record.trial import RequestAdapter, RequestTokens
from tests.integration.runner.contract import STORY, MakeRunner, Run, Runner, changed
from tests.support import ggufs
from tests.support.llamas import INNER, WIDTH, llama
from tests.support.lora import Lora, lora

pytestmark = pytest.mark.integration

SIZES = {"llama.embedding_length": (ggufs.U32, WIDTH), "llama.feed_forward_length": (ggufs.U32, INNER)}
CHANGED = ("blk.0.attn_q.weight", "blk.1.attn_v.weight", "blk.1.ffn_down.weight", "blk.0.ffn_up.weight")
ASKED: dict[str, Any] = {
    "conversations": [[RequestTokens(tokens=12)]],
    "context": 64,
    "max_tokens": 40,
    "ignore_eos": True,
    "batch": 32,
}


@pytest.fixture
def runner(make_runner: MakeRunner) -> Runner:
    return make_runner("2026-10-01", "x86_64")


@pytest.fixture
def tiny(runner: Runner) -> Runner:
    """The runner with a model of two layers whose weights are float32."""
    path = runner.folder / "tiny.gguf"
    path.write_bytes(llama(extra=SIZES))
    return replace(runner, model=path)


def added(runner: Runner, made: Lora, scale: float = 1.0, **asked: Any) -> Run:
    path = runner.folder / "adapter.gguf"
    path.write_bytes(made.file())
    return runner(**asked, lora=RequestAdapter(model=str(path), scale=scale))


def test_an_adapter_gives_what_changed_weights_give(tiny: Runner) -> None:
    made = lora(tiny.model, CHANGED)
    plain = tiny(**ASKED).turn
    with_adapter = added(tiny, made, 0.5, **ASKED).turn
    merged = tiny.folder / "merged.gguf"
    merged.write_bytes(llama(extra=SIZES, plus=made.added(0.5)))
    expected = replace(tiny, model=merged)(**ASKED).turn
    assert with_adapter.token_ids == expected.token_ids
    assert with_adapter.margins == pytest.approx(expected.margins, abs=1e-3)
    assert with_adapter.token_ids != plain.token_ids
    assert added(tiny, made, 2.0, **ASKED).turn.token_ids != with_adapter.token_ids, "the scale counts"


@pytest.mark.parametrize(("size", "scale"), [(0.0, 1.0), (0.2, 0.0)])
def test_one_that_adds_nothing_changes_nothing(tiny: Runner, size: float, scale: float) -> None:
    assert (
        added(tiny, lora(tiny.model, CHANGED, size=size), scale, **ASKED).turn.token_ids == tiny(**ASKED).turn.token_ids
    )


def test_a_real_model_takes_one(runner: Runner) -> None:
    """With weights of eight bits, of which some are repacked."""
    asked: dict[str, Any] = {"conversations": [[STORY]], "max_tokens": 24, "ignore_eos": True}
    weights = [f"blk.{layer}.{name}.weight" for layer in (3, 17) for name in ("attn_q", "ffn_down")]
    plain = runner(**asked).turn.token_ids
    assert added(runner, lora(runner.model, weights, size=0.0), **asked).turn.token_ids == plain
    run = added(runner, lora(runner.model, weights), 0.75, **asked)
    assert run.turn.token_ids != plain
    told = run.trace.effective
    assert (told["lora_scale"], told["lora_alpha"]) == (0.75, 8)
    assert str(told["lora"]).startswith("CPU") and str(told["lora"]).endswith(" MiB")
    assert "lora" not in runner(**asked).trace.effective


def test_several_sequences_have_it_too(tiny: Runner) -> None:
    made = lora(tiny.model, CHANGED)
    asked = {**ASKED, "max_tokens": 12}
    one = added(tiny, made, **asked).turn.token_ids
    assert added(tiny, made, **asked, sequences=3).turn.token_ids[:4] == one[:4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content[:-200], "is damaged or cut short"),
        (lambda _: llama(), "cannot be added to model"),
        (lambda _: b"GGUF", "is damaged or cut short"),
        (lambda _: b"<html>", "is not a GGUF file"),
    ],
    ids=["cut short", "a model", "no header", "a page"],
)
def test_what_is_none_is_refused(tiny: Runner, change: Callable[[bytes], bytes], said: str) -> None:
    path = tiny.folder / "adapter.gguf"
    path.write_bytes(change(lora(tiny.model, CHANGED).file()))
    run = tiny(**ASKED, lora=RequestAdapter(model=str(path), scale=1))
    assert run.status == 3 and said in run.error["message"]
    assert str(path) in run.error["message"]


@pytest.mark.parametrize("wrong", ["architecture", "shape", "name", "half"])
def test_one_for_another_model_is_refused(tiny: Runner, wrong: str) -> None:
    numbers = bytes(4 * 4 * 512)
    fits = {"blk.0.attn_q.weight": ((256, 4), numbers[:4096], (4, 256), numbers[:4096])}
    content = {
        "architecture": ggufs.adapter(fits, architecture="qwen2"),
        "shape": ggufs.adapter({"blk.0.attn_q.weight": ((512, 4), numbers, (4, 256), numbers[:4096])}),
        "name": ggufs.adapter({"blk.7.attn_q.weight": fits["blk.0.attn_q.weight"]}),
        "half": ggufs.adapter(fits).replace(b".lora_b", b".lora_x"),
    }[wrong]
    path = tiny.folder / "adapter.gguf"
    path.write_bytes(content)
    run = tiny(**ASKED, lora=RequestAdapter(model=str(path), scale=1))
    assert run.status == 3 and "cannot be added to model" in run.error["message"]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"model": "/nowhere", "scale": 1}, "/nowhere"),
        ({"scale": 1}, "lora.model"),
        ({"model": "/m"}, "lora.scale"),
        ({"model": "/m", "scale": "1"}, "lora.scale"),
        ({"model": "/m", "scale": 1, "rank": 4}, "lora.rank"),
    ],
)
def test_a_wrong_request_is_refused(runner: Runner, asked: dict[str, object], field: str) -> None:
    run = runner.run(changed(lora=asked)(runner.request()))
    assert run.status in (2, 3) and field in run.error["message"]


def test_the_old_release_reads_none(make_runner: MakeRunner) -> None:
    runner = make_runner(OLD, "x86_64")
    run = runner(lora=RequestAdapter(model=str(runner.model), scale=1))
    assert run.status == 2 and run.error["message"].startswith("request: lora: this release reads no adapters")
