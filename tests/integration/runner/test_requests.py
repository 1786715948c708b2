"""Requests that real runners refuse, files that they cannot write, and signals that end them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runner.contract import STORY, Run, Runner, changed

pytestmark = pytest.mark.integration

BAD_REQUESTS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda _: "", "it is empty"),
    (lambda _: "{", "is no JSON"),
    (lambda _: "[" * 5000, "is no JSON"),
    (lambda _: '{"model": "\\ud800"}', "is no JSON"),
    (lambda _: [], "expected an object, got []"),
    (lambda _: None, "expected an object, got null"),
    (changed(v=2), "v: expected a whole number from 1 to 1, got 2"),
    (changed(model=...), "model: missing"),
    (changed(model=""), "model: expected a text that is not empty"),
    (changed(model=5), "model: expected a text that is not empty, got 5"),
    (changed(context=...), "context: missing"),
    (changed(context=0), "context: expected a whole number from 1"),
    (changed(context=-1), "context: expected a whole number"),
    (changed(context=2**31), "context: expected a whole number"),
    (changed(context=2**64), "context: expected a whole number"),
    (changed(context=1.5), "context: expected a whole number from 1 to 2147483647, got 1.5"),
    (changed(context="512"), 'context: expected a whole number from 1 to 2147483647, got "512"'),
    (changed(context=True), "context: expected a whole number"),
    (changed(threads=0), "threads: expected a whole number from 1 to 512, got 0"),
    (changed(threads=100_000), "threads: expected"),
    (changed(batch=0), "batch: expected"),
    (changed(gpu_layers=-1), "gpu_layers: expected"),
    (changed(max_tokens=0), "max_tokens: expected"),
    (changed(ignore_eos=1), "ignore_eos: expected true or false, got 1"),
    (changed(mmap="no"), 'mmap: expected true or false, got "no"'),
    (changed(warmup_tokens=-1), "warmup_tokens: expected"),
    (changed(profile="all"), 'profile: expected "off" or "operators", got "all"'),
    (changed(profile=True), "profile: expected"),
    (changed(sync_mark=[]), "sync_mark: expected an object, got []"),
    (changed(sync_mark={"rest_ms": 1}), "sync_mark.pulses_ms: missing"),
    (changed(sync_mark={"pulses_ms": [], "rest_ms": 1}), "sync_mark.pulses_ms: expected a list that is not empty"),
    (changed(sync_mark={"pulses_ms": [1, 0], "rest_ms": 1}), "sync_mark.pulses_ms[1]: expected a whole number from 1"),
    (changed(sync_mark={"pulses_ms": [1], "rest_ms": 1, "x": 1}), "sync_mark.x: unknown field"),
    (changed(sampling=[]), "sampling: expected an object, got []"),
    (changed(sampling__greedy=...), "sampling.greedy: missing"),
    (changed(sampling__temperature=0), "sampling.temperature: expected a number above 0"),
    (
        changed(sampling__temperature="warm"),
        'sampling.temperature: expected a number above 0 and at most 1000, got "warm"',
    ),
    (changed(sampling__top_k=-1), "sampling.top_k: expected"),
    (changed(sampling__top_p=1.5), "sampling.top_p: expected a number above 0 and at most 1, got 1.5"),
    (changed(sampling__repeat_penalty=0), "sampling.repeat_penalty: expected"),
    (changed(sampling__repeat_last_n=-1), "sampling.repeat_last_n: expected"),
    (changed(sampling__seed=-1), "sampling.seed: expected"),
    (changed(sampling__min_p=0.1), "sampling.min_p: unknown field"),
    (changed(conversations=[]), "conversations: expected a list that is not empty, got []"),
    (changed(conversations=[[]]), "conversations[0]: expected a list that is not empty, got []"),
    (changed(conversations=["hello"]), 'conversations[0]: expected a list that is not empty, got "hello"'),
    (changed(conversations=[["a"], ["b", ""]]), "conversations[1][1]: expected a text that is not empty"),
    (changed(conversations=[["a", 7]]), "conversations[0][1]: expected a text that is not empty, got 7"),
    (changed(colour="red"), "colour: unknown field"),
]


@pytest.mark.parametrize(("change", "message"), BAD_REQUESTS, ids=[message[:48] for _, message in BAD_REQUESTS])
def test_bad_request(runner: Runner, change: Callable[[dict[str, Any]], object], message: str) -> None:
    run = runner.run(change(runner.request()))
    assert run.status == 2
    assert message in run.error["message"]
    assert [event["e"] for event in run.events] == ["hello", "process", "error"]


def test_request_that_is_not_there(runner: Runner) -> None:
    (runner.folder / "request.json").mkdir()
    command = [*runner.bundle.command("melt-runner"), str(runner.folder / "request.json"), str(runner.folder / "e")]
    for path, problem in ((command[-2], "Is a directory"), (command[-2] + "x", "No such file")):
        command[-2] = path
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert problem in result.stderr


@pytest.mark.parametrize("arguments", [[], ["one"], ["one", "two", "three"]])
def test_wrong_command_line(runner: Runner, arguments: list[str]) -> None:
    command = [*runner.bundle.command("melt-runner"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "usage: melt-runner request.json events.jsonl" in result.stderr


def test_context_that_cannot_be_had(runner: Runner) -> None:
    run = runner(context=2**31 - 1)
    assert run.status == 4
    assert run.error["code"] == 4


@pytest.mark.parametrize("path", ["/nowhere/events.jsonl", "/dev/full", "/"])
def test_events_that_cannot_be_written(runner: Runner, path: str) -> None:
    run = runner.run(runner.request(), Path(path))
    assert run.status == 6
    assert "melt-runner: events: cannot " in run.stderr


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_being_stopped(runner: Runner, sent: signal.Signals) -> None:
    request = runner.request(conversations=[[STORY]] * 200, ignore_eos=True, max_tokens=32)
    process, events = runner.start(request)
    try:
        deadline = time.monotonic() + 60
        while not (events.is_file() and "turn_end" in events.read_text()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(sent)
        assert process.wait(timeout=60) == 128 + sent
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    run = Run(process.returncode, lines, runner.stderr.read_text(errors="replace"), events)
    assert run.error["message"] == f"stopped by signal {int(sent)}"
