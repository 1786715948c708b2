"""The runner contract (docs/runner.md), kept by the real runners of every release on a real model."""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from meltrepro.frameworks.gguf_files import untie
from meltrepro.frameworks.llamacpp import RELEASES
from meltrepro.measure.events import read_trace
from meltrepro.measure.operators import breakdown
from meltrepro.measure.traces import OperatorPhase, Trace, Turn
from meltrepro.spec.meters import SyncMark
from meltrepro.spec.record import Request, RequestSampling
from tests.integration.bundles import Bundle

pytestmark = pytest.mark.integration

END_OF_TURN, BOS = 2, 1  # SmolLM2: <|im_end|>, <|im_start|>
N_VOCAB = 49152
FIRST = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
SECOND = "<|im_end|>\n<|im_start|>user\nTell me three facts about it.<|im_end|>\n<|im_start|>assistant\n"
STORY = "<|im_start|>user\nTell me a long story about a lighthouse.<|im_end|>\n<|im_start|>assistant\n"
GREEDY = RequestSampling(
    greedy=True, temperature=0.8, top_k=40, top_p=0.95, repeat_penalty=1.0, repeat_last_n=64, seed=1
)
DRAWN = GREEDY.model_copy(update={"greedy": False})


@dataclass(frozen=True)
class Run:
    """What a runner left behind."""

    status: int
    events: list[dict[str, Any]]
    stderr: str
    path: Path

    @property
    def trace(self) -> Trace:
        assert self.status == 0, self.stderr
        return read_trace(self.path)

    @property
    def turn(self) -> Turn:
        """Its only turn."""
        (turn,) = self.trace.turns
        return turn

    @property
    def error(self) -> dict[str, Any]:
        """Its error, which must be the last event and agree with exit status and stderr."""
        last = self.events[-1]
        assert last["e"] == "error", self.stderr
        assert last["code"] == self.status
        assert "done" not in [event["e"] for event in self.events]
        assert f"melt-runner: {last['message']}" in self.stderr
        return last


@dataclass(frozen=True)
class Runner:
    """A bundle's runner and the model in the form that its release can load."""

    bundle: Bundle
    model: Path
    folder: Path

    def request(self, **changes: Any) -> dict[str, Any]:
        request = Request(
            model=str(self.model),
            context=512,
            # Threads of the old release spin while they wait: on a busy machine, two are many times slower than one.
            threads=1,
            batch=128,
            max_tokens=24,
            ignore_eos=False,
            sampling=GREEDY,
            conversations=[[FIRST]],
        )
        return request.model_copy(update=changes).model_dump(mode="json", exclude_none=True)

    def start(self, document: object, events: Path | None = None) -> tuple[subprocess.Popen[bytes], Path]:
        request = self.folder / "request.json"
        request.write_text(document if isinstance(document, str) else json.dumps(document))
        events = events or self.folder / "events.jsonl"
        if events.is_file():
            events.unlink()
        command = [*self.bundle.command("melt-runner"), str(request), str(events)]
        # A file, not a pipe: nobody reads while the runner runs.
        with self.stderr.open("w") as stderr:
            return subprocess.Popen(command, stderr=stderr), events

    @property
    def stderr(self) -> Path:
        return self.folder / "stderr"

    def run(self, document: object, events: Path | None = None) -> Run:
        process, path = self.start(document, events)
        process.wait()
        stderr = self.stderr.read_text(errors="replace")
        lines = path.read_text().splitlines() if path.is_file() else []
        return Run(process.returncode, [json.loads(line) for line in lines], stderr, path)

    def __call__(self, **changes: Any) -> Run:
        return self.run(self.request(**changes))


MakeRunner = Callable[[str, str], Runner]


@pytest.fixture(scope="session")
def models(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Release -> the model as that release can load it."""
    untied = tmp_path_factory.mktemp("models") / "untied.gguf"

    def model(release: str) -> Path:
        if release != "2024-02-27":
            return smollm2
        if not untied.exists():
            assert untie(smollm2, untied)
        return untied

    return model


@pytest.fixture
def make_runner(runner_bundles: Mapping[str, Path], models: Callable[[str], Path], tmp_path: Path) -> MakeRunner:
    def make(release: str, machine: str) -> Runner:
        for folder in runner_bundles.values():
            bundle = Bundle(folder)
            if (bundle.facts["release"], bundle.machine) == (release, machine) and bundle.runnable:
                return Runner(bundle, models(release), tmp_path)
        pytest.skip(f"no bundle of {release} that {machine} programs can be run from")

    return make


@pytest.fixture(params=sorted(RELEASES))
def runner(request: pytest.FixtureRequest, make_runner: MakeRunner) -> Runner:
    return make_runner(request.param, "x86_64")


# -- a complete run ---------------------------------------------------------------------------------------------------

FIELDS = {
    "hello": {"v", "runner", "framework", "commit", "isa", "wall", "pid", "system"},
    "load_begin": set(),
    "load_end": {"model_bytes", "n_params", "n_vocab", "n_ctx_train"},
    "mem": {"phase", "rss_anon", "rss_file", "hwm", "swap"},
    "context": {"n_ctx", "n_batch", "threads", "kv_bytes"},
    "warmup_begin": {"n"},
    "warmup_end": set(),
    "conversation_begin": {"c"},
    "conversation_end": {"c"},
    "turn_begin": {"c", "i"},
    "prefill_begin": {"n"},
    "prefill_end": set(),
    "token": {"i", "id"},
    "turn_end": {"c", "i", "n_prompt", "n_gen", "n_past", "stop", "text"},
    "pulse_begin": {"i"},
    "pulse_end": {"i"},
    "decoding": {"phase", "count", "ns"},
    "op": {"phase", "name", "module", "count", "ns"},
    "node": {"phase", "name", "module", "begin", "ns"},
    "error": {"code", "message"},
    "done": set(),
}
COMPLETE = (
    "hello load_begin load_end mem context warmup_begin warmup_end "
    "(conversation_begin (turn_begin (prefill_begin prefill_end (token )+)?turn_end mem )+conversation_end )+"
    "mem done "
)


def assert_contract(run: Run, runner: Runner) -> None:
    """A complete run's events: kinds in order, fields, times, and facts that are known."""
    kinds = "".join(event["e"] + " " for event in run.events)
    assert re.fullmatch(COMPLETE, kinds), kinds
    for event in run.events:
        assert set(event) == {"e", "t"} | FIELDS[event["e"]], event
    times = [event["t"] for event in run.events]
    assert times == sorted(times)
    trace = run.trace
    assert (trace.hello.runner, trace.hello.framework) == ("melt-runner", "llama.cpp")
    assert (trace.hello.commit, trace.hello.isa) == (runner.bundle.facts["commit"], runner.bundle.facts["isa"])
    assert abs(trace.hello.wall_ns - time.time_ns()) < 600e9
    assert trace.load.model_bytes == runner.model.stat().st_size
    assert (trace.load.n_vocab, trace.load.n_ctx_train) == (N_VOCAB, 8192)
    assert 134e6 < trace.load.n_params < 163e6
    # 30 layers, 3 heads of 64 values for keys and values each, two bytes a value.
    assert trace.context.kv_bytes == trace.context.n_ctx * 30 * 3 * 64 * 2 * 2
    for memory in trace.memory:
        assert memory.hwm is not None and memory.rss_anon is not None
        assert memory.hwm >= memory.rss_anon > 1 << 20


def test_every_event_of_a_complete_run(runner: Runner) -> None:
    run = runner(conversations=[[FIRST, SECOND], [FIRST]])
    assert_contract(run, runner)
    first, second, again = run.trace.turns
    assert first.text == "The capital of France is Paris."
    assert first.n_prompt == 16 and first.stop == "eog" and first.token_ids[-1] == END_OF_TURN
    # The second conversation begins from nothing: same prompt, same answer.
    assert (again.token_ids, again.n_past) == (first.token_ids, first.n_past)
    assert second.n_past == first.n_past + second.n_prompt + second.n_gen - 1


def test_warm_up_is_marked_and_can_be_left_out(runner: Runner) -> None:
    (begin,) = [event for event in runner(warmup_tokens=9).events if event["e"] == "warmup_begin"]
    assert begin["n"] == 9
    without = runner(warmup_tokens=0)
    assert without.status == 0 and without.trace.warmup is None


@pytest.mark.parametrize("option", [{"threads": 2}, {"batch": 5}, {"warmup_tokens": 0}])
def test_greedy_tokens_depend_on_the_prompt_alone(runner: Runner, option: dict[str, int]) -> None:
    assert runner(**option).turn.token_ids == runner().turn.token_ids


def test_greedy_text_is_what_upstreams_own_program_says(runner: Runner) -> None:
    answer = runner(conversations=[[STORY]], max_tokens=40, batch=512).turn
    command = [*runner.bundle.command("main"), "-m", str(runner.model), "-p", STORY, "-n", "40", "-c", "512"]
    command += ["-t", "1", "-b", "512", "--temp", "0", "--repeat-penalty", "1.0"]
    if runner.bundle.facts["release"] < "2025":
        command += ["--log-disable"]
    else:
        command += ["-no-cnv", "--no-display-prompt", "--no-warmup"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=runner.folder).stdout
    # The older program prints the prompt too, with the markers as nothing.
    said = said.rpartition("assistant\n")[2].removesuffix("[end of text]").strip()
    assert answer.n_gen == 40
    assert said == answer.text.strip()


# -- how a turn ends --------------------------------------------------------------------------------------------------


def test_stop_by_length(runner: Runner) -> None:
    turn = runner(conversations=[[STORY]], max_tokens=7).turn
    assert (turn.stop, turn.n_gen) == ("length", 7)
    assert turn.n_past == turn.n_prompt + 6


def test_ignore_eos_gives_exactly_max_tokens(runner: Runner) -> None:
    turn = runner(ignore_eos=True, max_tokens=60).turn
    assert (turn.stop, turn.n_gen) == ("length", 60)
    assert len(turn.text) > 60, "the cap counts tokens; MELT's iPhones counted characters"
    assert END_OF_TURN not in turn.token_ids and 0 not in turn.token_ids


def test_stop_by_context_ends_the_conversation(runner: Runner) -> None:
    run = runner(conversations=[[STORY, SECOND], [FIRST]], context=48, max_tokens=1000, ignore_eos=True)
    cut, other = run.trace.turns
    assert (cut.stop, cut.n_past) == ("context", 48)
    # Every position is used, and one more token is sampled after the last.
    assert cut.n_gen == 48 - cut.n_prompt + 1
    assert other.n_past == 48


def test_prompt_that_does_not_fit_gets_no_answer(runner: Runner) -> None:
    run = runner(conversations=[[STORY * 4, SECOND], [FIRST]], context=40, max_tokens=4)
    refused, other = run.trace.turns
    assert (refused.stop, refused.n_gen, refused.n_past, refused.text) == ("context", 0, 0, "")
    assert refused.n_prompt > 40 and refused.prefill is None
    assert (other.stop, other.n_gen) == ("length", 4)


def test_prompt_that_just_fits_gets_one_token(runner: Runner) -> None:
    turn = runner(context=16, max_tokens=5).turn
    assert (turn.n_prompt, turn.n_gen, turn.stop, turn.n_past) == (16, 1, "context", 16)


def test_an_answer_that_was_cut_off_stays_in_the_conversation(runner: Runner) -> None:
    both = runner(conversations=[[STORY, SECOND]], max_tokens=7).trace
    cut, next_turn = both.turns
    assert next_turn.n_past == cut.n_past + 1 + next_turn.n_prompt + next_turn.n_gen - 1
    # The same conversation told at once: what the model has seen is the same.
    told = runner(conversations=[[STORY + cut.text + SECOND]], max_tokens=7).turn
    assert told.n_prompt == cut.n_prompt + cut.n_gen + next_turn.n_prompt
    assert told.token_ids == next_turn.token_ids


def test_answer_with_broken_characters_is_still_valid_json(runner: Runner) -> None:
    wild = DRAWN.model_copy(update={"temperature": 10.0, "top_k": 0, "top_p": 1.0})
    turn = runner(sampling=wild, max_tokens=300, ignore_eos=True).turn
    assert turn.n_gen == 300
    assert "\N{REPLACEMENT CHARACTER}" in turn.text


# -- sampling ---------------------------------------------------------------------------------------------------------


def test_drawn_tokens_follow_the_seed(runner: Runner) -> None:
    def tokens(seed: int, conversations: int = 1) -> list[tuple[int, ...]]:
        sampling = DRAWN.model_copy(update={"seed": seed})
        run = runner(sampling=sampling, conversations=[[STORY]] * conversations)
        return [turn.token_ids for turn in run.trace.turns]

    first, second = tokens(7, conversations=2)
    assert [first] == tokens(7)
    assert first != second
    # Each conversation has the seed of the first plus its number.
    assert [second] == tokens(8)


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-6}])
def test_sampling_without_choice_is_greedy(runner: Runner, narrow: dict[str, float]) -> None:
    assert runner(sampling=DRAWN.model_copy(update=narrow)).turn.token_ids == runner().turn.token_ids


def test_repeat_penalty_keeps_recent_tokens_away(runner: Runner) -> None:
    harsh = DRAWN.model_copy(update={"repeat_penalty": 1000.0, "repeat_last_n": 512, "top_k": 1})
    turn = runner(sampling=harsh, conversations=[[STORY]], max_tokens=60, ignore_eos=True).turn
    assert max(Counter(turn.token_ids).values()) == 1


# -- profile ----------------------------------------------------------------------------------------------------------


def test_operator_profile(runner: Runner) -> None:
    trace = runner(profile="operators", ignore_eos=True, max_tokens=9, conversations=[[STORY], [FIRST]]).trace
    measured: tuple[tuple[OperatorPhase, int, int], ...] = (
        ("prefill", 2, sum(turn.prefill.end_ns - turn.prefill.begin_ns for turn in trace.turns if turn.prefill)),
        ("generation", 16, sum(turn.end_ns - turn.prefill.end_ns for turn in trace.turns if turn.prefill)),
    )
    for phase, calls, spent in measured:
        found = breakdown(trace, phase)
        assert found.calls == calls
        assert 0.9 * spent < found.ns <= spent
        calls_of = {(share.name, share.module): share.calls for share in found.shares}
        # Thirty layers, once a layer, for each time that the model was walked: 2 prompts, 8 + 8 tokens.
        for module in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            assert calls_of["MUL_MAT", module] == 30 * calls
        assert calls_of["RMS_NORM", "norm"] == 61 * calls
        assert {calls for (name, module), calls in calls_of.items() if module in ("output", "token_embd")} == {calls}
        nodes = [node for node in trace.nodes if node.phase == phase]
        assert len(nodes) == sum(share.calls for share in found.shares) // calls
        assert all(before.span.end_ns <= after.span.begin_ns for before, after in pairwise(nodes))
    assert not runner().trace.operators


def test_pauses_lie_between_turns_and_between_conversations(runner: Runner) -> None:
    trace = runner(
        conversations=[[FIRST, SECOND], [FIRST]], max_tokens=2, turn_pause_ms=150, conversation_pause_ms=300
    ).trace
    (first, second), (other,) = (conversation.turns for conversation in trace.conversations)
    assert second.begin_ns - first.end_ns >= 150e6
    assert other.begin_ns - second.end_ns >= 300e6
    assert trace.done_ns - other.end_ns < 150e6


# -- sync mark --------------------------------------------------------------------------------------------------------


def test_a_sync_mark_before_and_after(runner: Runner) -> None:
    """The pulses take the planned times, with every thread busy, and rests are between them."""
    before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    mark = SyncMark(pulses_ms=[300, 100], rest_ms=50)
    trace = runner(sync_mark=mark, warmup_tokens=0, max_tokens=1, threads=1).trace
    used_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s
    lengths_ms = [(pulse.end_ns - pulse.begin_ns) / 1e6 for pulse in trace.pulses]
    assert len(lengths_ms) == 4
    for planned, length_ms in zip((300, 100, 300, 100), lengths_ms, strict=True):
        assert planned <= length_ms < planned + 200
    assert all(after.begin_ns - before.end_ns >= 50e6 for before, after in pairwise(trace.pulses))
    assert trace.context.t_ns < trace.pulses[0].begin_ns
    assert trace.pulses[1].end_ns < trace.conversations[0].begin_ns
    assert trace.conversations[-1].end_ns < trace.pulses[2].begin_ns
    assert used_s > 0.4


# -- what goes wrong --------------------------------------------------------------------------------------------------


def changed(**changes: Any) -> Callable[[dict[str, Any]], object]:
    """A request with some fields replaced; `sampling__seed` is the field `seed` of `sampling`, `...` removes one."""

    def change(request: dict[str, Any]) -> object:
        for name, value in changes.items():
            *path, last = name.split("__")
            node = request[path[0]] if path else request
            if value is ...:
                del node[last]
            else:
                node[last] = value
        return request

    return change


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
    assert [event["e"] for event in run.events] == ["hello", "error"]


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


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def gguf(
    *, version: int = 3, n_tensors: int = 1, n_values: int = 1, values: bytes | None = None, rest: bytes = b""
) -> bytes:
    """The start of a GGUF file, by default with one harmless value and one tensor to come."""
    harmless = struct.pack("<Q1sIB", 1, b"k", 0, 0)
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_values) + (harmless if values is None else values) + rest


def tensor(name: bytes = b"t", extents: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    shape = struct.pack(f"<I{len(extents)}Q", len(extents), *extents)
    return struct.pack("<Q", len(name)) + name + shape + struct.pack("<IQ", kind, offset)


BAD_MODELS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not a GGUF file"),
    "text": (b"hello, I am a model" * 10, "is not a GGUF file"),
    "header alone": (b"GGUF", "cut short"),
    "version 1": (gguf(version=1), "version 1; versions 2 and 3 are supported"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 0), "version 50331648"),
    "no tensors": (gguf(n_tensors=0), "holds 0 tensors"),
    "no values": (gguf(n_values=0), "0 metadata values"),
    "too many tensors": (gguf(n_tensors=2**60), "cut short"),
    "too many values": (gguf(n_values=2**60), "cut short"),
    "endless key": (gguf(values=struct.pack("<Q", 2**63) + b"key"), "cut short"),
    "unknown value type": (
        gguf(values=struct.pack("<Q", 1) + b"k" + struct.pack("<I", 77)),
        "unknown type 77",
    ),
    "nested array": (gguf(values=struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 1)), "array of unknown type 9"),
    "endless array": (gguf(values=struct.pack("<Q1sIIQ", 1, b"k", 9, 12, 2**61)), "cut short"),
    "alignment 0": (
        gguf(values=struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 0)),
        "general.alignment of 0",
    ),
    "no dimensions": (gguf(rest=tensor(extents=())), "0 dimensions"),
    "five dimensions": (gguf(rest=tensor(extents=(1,) * 5)), "5 dimensions"),
    "unknown tensor type": (gguf(rest=tensor(kind=4)), "type 4, which this release does not know"),
    "tensor type of the future": (gguf(rest=tensor(kind=9999)), "type 9999"),
    "rows of half a block": (gguf(rest=tensor(kind=2, extents=(16,)) + bytes(64)), "rows of 16 values"),
    "data outside": (gguf(rest=tensor(extents=(1024,)) + bytes(200)), "cut short"),
    "overflowing extents": (gguf(rest=tensor(extents=(2**62, 2**62, 2**62, 2**62)) + bytes(200)), "cut short"),
    "data far outside": (gguf(rest=tensor(offset=2**63) + bytes(200)), "cut short"),
    "no architecture": (gguf(rest=tensor() + bytes(256)), "cannot be loaded; stderr says why"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_model(runner: Runner, name: str) -> None:
    content, message = BAD_MODELS[name]
    run = runner(model=str(write(runner.folder / "bad.gguf", content)))
    assert run.status == 3
    # What the file check lets through, the old release may answer with a crash; it must end the same way.
    died = name == "no architecture" and "the framework died of signal" in run.error["message"]
    assert died or message in run.error["message"]


def test_model_that_is_not_there(runner: Runner) -> None:
    for path, problem in ((runner.folder / "none.gguf", "No such file"), (runner.folder, "cannot be")):
        run = runner(model=str(path))
        assert run.status == 3
        assert problem in run.error["message"] and str(path) in run.error["message"]


@pytest.mark.parametrize("kept", [5, 24, 100, 4096, 1 << 20, 0.5, -1])
def test_truncated_model(runner: Runner, kept: float) -> None:
    whole = runner.model.read_bytes()
    size = int(len(whole) * kept) if isinstance(kept, float) else kept
    run = runner(model=str(write(runner.folder / "cut.gguf", whole[:size])))
    assert run.status == 3
    assert "cut short" in run.error["message"]


def test_flipped_bits_in_the_header_never_crash_the_runner(runner: Runner) -> None:
    """The header's first 8 KiB hold every kind of value; whatever it says, the runner ends by its own will."""
    dice = random.Random(f"{runner.bundle.facts['release']}")
    whole = bytearray(runner.model.read_bytes())
    path = runner.folder / "flipped.gguf"
    seen = Counter[int]()
    for _ in range(25):
        at, bit = dice.randrange(8, 8192), 1 << dice.randrange(8)
        whole[at] ^= bit
        path.write_bytes(whole)
        run = runner(model=str(path), max_tokens=1, warmup_tokens=0)
        whole[at] ^= bit
        assert run.status in (0, 3, 4, 5), (at, bit, run.stderr[-500:])
        assert run.events[-1]["e"] == ("done" if run.status == 0 else "error")
        seen[run.status] += 1
    assert seen[0]


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


# -- another machine --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", sorted(RELEASES))
def test_contract_on_aarch64(make_runner: MakeRunner, release: str) -> None:
    runner = make_runner(release, "aarch64")
    run = runner(conversations=[[FIRST], [FIRST]], max_tokens=12)
    assert_contract(run, runner)
    assert [turn.text for turn in run.trace.turns] == ["The capital of France is Paris."] * 2
    bad = runner.run(changed(threads=0)(runner.request()))
    assert bad.status == 2
    assert "threads: expected" in bad.error["message"]
