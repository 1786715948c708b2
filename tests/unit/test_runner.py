"""The part of the runner that every framework shares, compiled around the toy engine of the tests' plug-in."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from meltrepro import resources
from meltrepro.record.events import read_trace
from meltrepro.record.trace import Thought, Trace
from meltrepro.record.trial import Request, RequestSampling

pytestmark = pytest.mark.slow  # the runner is compiled first

RECIPE = Path(__file__).parents[1] / "plugins" / "toy_framework" / "meltrepro_toy" / "recipe"
GREEDY = RequestSampling(greedy=True, temperature=1, top_k=0, top_p=1, repeat_penalty=1, repeat_last_n=0, seed=1)
ENGINE_NEEDS = {"clock.h", "engine.h", "failure.h", "fields.h", "json.h", "signals.h"}
"""What an engine may include of the runner; all else is the runner's own affair."""


def sources(program: str) -> list[Path]:
    """What the shared project makes a program of."""
    text = (resources.runner() / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = re.search(rf"add_executable\({program} EXCLUDE_FROM_ALL([^)]*)\)", text)
    assert listed is not None
    return [resources.runner() / name for name in listed[1].split()]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.fail("this test needs a C++ compiler: meltrepro doctor --fix --tests")
    folder = tmp_path_factory.mktemp("programs")
    options = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-pthread", "-iquote", str(resources.runner())]
    options += ['-DTOY_COMMIT="c0ffee"', '-DTOY_ISA="any"']
    made = {
        "melt-runner": [*sources("melt-runner"), RECIPE / "engine.cpp"],
        "melt-sampler": sources("melt-sampler"),
    }
    for program, files in made.items():
        subprocess.run([compiler, *options, *map(str, files), "-o", str(folder / program)], check=True)
    return folder


class Toy:
    """A runner of the toy engine, in a folder of its own."""

    def __init__(self, program: Path, folder: Path, model: bytes) -> None:
        self._program, self._folder = program, folder
        (folder / "model").write_bytes(model)

    def request(self, prompt: str = "a", **changes: Any) -> dict[str, Any]:
        request = Request(
            model=str(self._folder / "model"),
            context=256,
            threads=1,
            batch=8,
            max_tokens=20,
            ignore_eos=False,
            sampling=GREEDY,
            conversations=[[prompt]],
        )
        return {**request.model_dump(mode="json", exclude_none=True, exclude={"gpu_layers", "mmap"}), **changes}

    def run(self, document: object, *, escape: bool = True) -> tuple[int, list[dict[str, Any]]]:
        text = document if isinstance(document, bytes) else json.dumps(document, ensure_ascii=escape).encode()
        (self._folder / "request.json").write_bytes(text)
        self.events.unlink(missing_ok=True)
        command = [str(self._program), str(self._folder / "request.json"), str(self.events)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        return done.returncode, [json.loads(line) for line in self.events.read_bytes().splitlines()]

    def trace(self, document: object, *, escape: bool = True) -> Trace:
        status, events = self.run(document, escape=escape)
        assert status == 0, events[-1]
        return read_trace(self.events)

    def refused(self, document: object) -> str:
        status, events = self.run(document)
        assert (status, events[-1]["e"]) == (2, "error")
        return str(events[-1]["message"])

    @property
    def events(self) -> Path:
        return self._folder / "events.jsonl"


@pytest.fixture
def toy(programs: Path, tmp_path: Path) -> Toy:
    return Toy(programs / "melt-runner", tmp_path, b"abcd\n")


def test_a_run_says_what_ran_and_what_came_out(toy: Toy) -> None:
    trace = toy.trace(toy.request("ab", smoothing=7))
    assert (trace.hello.framework, trace.hello.commit, trace.hello.isa) == ("toy", "c0ffee", "any")
    assert (trace.load.model_bytes, trace.load.n_params, trace.load.n_vocab) == (5, 65536, 256)
    (turn,) = trace.turns
    assert (turn.n_prompt, turn.text, turn.stop) == (2, "cd", "eog")
    assert bytes(turn.token_ids) == b"cd\n"
    assert [event["smoothing"] for event in toy.run(toy.request())[1] if event["e"] == "effective"] == [1]


def test_prompts_are_computed_in_batches_and_limits_count_tokens(toy: Toy) -> None:
    prompt = "abc" * 30
    assert (
        toy.trace(toy.request(prompt, batch=7)).turns[0].token_ids == toy.trace(toy.request(prompt)).turns[0].token_ids
    )
    (turn,) = toy.trace(toy.request("d\na", ignore_eos=True, max_tokens=9, context=100)).turns
    assert (turn.stop, turn.n_gen) == ("length", 9) and 10 not in turn.token_ids
    (turn,) = toy.trace(toy.request(prompt, context=89)).turns
    assert (turn.stop, turn.n_gen, turn.n_prompt) == ("context", 0, 90)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smoothing": 0}, "smoothing: expected a whole number from 1 to 1000, got 0"),
        ({"smoothing": 2.5}, "smoothing: expected a whole number from 1 to 1000, got 2.5"),
        ({"gpu_layers": 3}, "gpu_layers: unknown field"),
        ({"profile": "operators"}, "profile: this framework does not tell its operators"),
        ({"context": 2**64}, "context: expected a whole number from 1 to 2147483647, got 1.8446744073709552e+19"),
        ({"model": ["ä" * 60]}, 'model: expected a text that is not empty, got ["' + "ä" * 27 + "..."),
    ],
)
def test_an_engine_has_options_of_its_own_and_no_others(toy: Toy, changes: dict[str, Any], message: str) -> None:
    assert toy.refused(toy.request(**changes)) == f"request: {message}"


def test_a_model_that_cannot_be_loaded(programs: Path, tmp_path: Path) -> None:
    toy = Toy(programs / "melt-runner", tmp_path, b"")
    status, events = toy.run(toy.request())
    assert status == 3 and "is no text" in events[-1]["message"]


# -- thinking ---------------------------------------------------------------------------------------------------------

THINKING = {"begin": "<t>", "end": "</t>"}


@pytest.fixture
def thinker(programs: Path, tmp_path: Path) -> Toy:
    """Goes on as its text does, where each byte has one that follows it: <t> a b c / ends at no place by itself."""
    return Toy(programs / "melt-runner", tmp_path, b"Q<t>abcQ")


def events_of(events: list[dict[str, Any]], *kinds: str) -> list[tuple[Any, ...]]:
    return [tuple(v for k, v in event.items() if k not in ("t", "c")) for event in events if event["e"] in kinds]


def test_thinking_is_told_by_its_marks(programs: Path, tmp_path: Path) -> None:
    toy = Toy(programs / "melt-runner", tmp_path, b"Q[a]xyz\n")
    request = toy.request("Q", thinking={"begin": "[", "end": "]"})
    status, events = toy.run(request)
    assert status == 0
    told = [(event["e"], event["i"]) for event in events if "begin" in event["e"] and event["e"][0] in "ta"][1:]
    assert told == [("thinking_begin", 1), ("answer_begin", 3)]
    (turn,) = toy.trace(request).turns
    assert (turn.text, turn.answer, turn.answer_at) == ("[a]xyz", "xyz", 3)
    assert turn.thinking == (Thought(1, 3),)


def test_an_answer_without_thinking_begins_at_once(toy: Toy) -> None:
    (turn,) = toy.trace(toy.request("ab", thinking=THINKING)).turns
    assert (turn.thinking, turn.answer_at, turn.answer) == ((), 0, "cd")
    (turn,) = toy.trace(toy.request("ab")).turns
    assert (turn.thinking, turn.answer_at, turn.answer) == ((), None, None)


@pytest.mark.parametrize("most", [1, 5])
def test_thinking_that_a_prompt_opens_is_ended_by_its_budget(thinker: Toy, most: int) -> None:
    (turn,) = thinker.trace(thinker.request("Q<t>", thinking={**THINKING, "max_tokens": most})).turns
    assert turn.thinking == (Thought(0, most + 4, cut=True),)
    assert turn.text[most : most + 4] == "</t>" and turn.answer_at == most + 4
    assert turn.n_gen == 20
    # Tokens that the budget put there were not chosen.
    assert turn.margins[most : most + 4] == (None,) * 4 and None not in turn.margins[:most]


def test_thinking_may_take_all_tokens(thinker: Toy) -> None:
    (turn,) = thinker.trace(thinker.request("Q<t>", thinking=THINKING)).turns
    assert (turn.thinking, turn.answer_at, turn.answer) == ((Thought(0, 20),), None, "")


@pytest.mark.parametrize(
    ("thinking", "message"),
    [
        ({"begin": "<t>"}, "thinking.end: missing"),
        ({"begin": "", "end": "x"}, "thinking.begin: expected a text that is not empty"),
        ({**THINKING, "max_tokens": 0}, "thinking.max_tokens: expected a whole number from 1"),
        ({**THINKING, "most": 1}, "thinking.most: unknown field"),
    ],
)
def test_thinking_that_is_asked_for_wrongly(toy: Toy, thinking: dict[str, Any], message: str) -> None:
    assert message in toy.refused(toy.request(thinking=thinking))


def test_margins_of_greedy_tokens(toy: Toy) -> None:
    (turn,) = toy.trace(toy.request("ab")).turns
    # It counted each pair once, and all others not at all: log(2) - log(1), by four digits.
    assert turn.margins == (0.6931, 0.6931, 0.6931)
    drawn = GREEDY.model_copy(update={"greedy": False}).model_dump()
    assert toy.trace(toy.request("ab", sampling=drawn)).turns[0].margins == ()


# -- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("escape", [True, False])
def test_texts_arrive_as_they_are_meant(toy: Toy, escape: bool) -> None:
    for text in ('"\\/\b\f\n\r\t', "\0\x1f\x7f", "aé€😀\U0010ffff", "\ud7ff\ue000\uffff"):
        trace = toy.trace(toy.request(text, max_tokens=1), escape=escape)
        assert trace.turns[0].n_prompt == len(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        *(b"{", b"[1 2]", b"[1,]", b'{"a":1,}', b'{"a" 1}', b"{a:1}", b"{} {}", b"nul", b"True", b"'a'", b"//\n1"),
        *(b"01", b"1.", b".5", b"+1", b"-", b"1e", b"1e999", b"0x1", b"NaN", b"Infinity"),
        *(
            b'"abc',
            b'"\x01"',
            b'"\n"',
            b'"\\x"',
            b'"\\u12"',
            b'"\\u12g4"',
            b'"\\ud800"',
            b'"\\ud800\\u0041"',
            b'"\\udc00"',
        ),
        *(b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b"\xef\xbb\xbf{}"),
        *(b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b"[" * 5000, b'{"a":' * 5000, b"[" * 70 + b"]" * 70),
    ],
)
def test_what_is_no_json_is_refused(toy: Toy, text: bytes) -> None:
    assert " is no JSON: " in toy.refused(text)


def test_an_answer_that_is_no_text_is_written_as_one(programs: Path, tmp_path: Path) -> None:
    """As Python would replace what it cannot read."""
    dice = random.Random(1)
    for _ in range(20):
        rest = bytes(dice.sample([*range(0x80, 0x100), *b'a"\\\x01\x7f'], 40))
        toy = Toy(programs / "melt-runner", tmp_path, b"!" + rest + b"\n")
        (turn,) = toy.trace(toy.request("!", max_tokens=60)).turns
        assert bytes(turn.token_ids) == rest + b"\n"
        assert turn.text == rest.decode(errors="replace")


def test_what_is_read_is_written_again(programs: Path, tmp_path: Path) -> None:
    """By way of the header that the sensor logger copies."""
    dice = random.Random(2)

    def value(depth: int) -> Any:
        plain = [None, True, False, 0, -1, 2**63 - 1, -(2**63), 0.1, 1e300, 5e-324, -2.5, 3.0, 1e16, "", 'a\u20ac\n"\\']
        kind = dice.randrange(4 if depth else 2)
        if kind < 2:
            return dice.choice([*plain, dice.random(), dice.uniform(-1e9, 1e9), dice.randrange(10**12)])
        items = [value(depth - 1) for _ in range(dice.randrange(5))]
        return items if kind == 2 else {f"{index}\u00e9": item for index, item in enumerate(items)}

    header = [value(4) for _ in range(200)]
    plan = {"header": header, "rate_hz": 5, "root": "", "process": "x", "channels": []}
    (tmp_path / "plan.json").write_text(json.dumps(plan, indent=1))
    samples = tmp_path / "samples.jsonl"
    process = subprocess.Popen([str(programs / "melt-sampler"), str(tmp_path / "plan.json"), str(samples)])
    deadline = time.monotonic() + 30
    while not samples.exists() or b"\n" not in samples.read_bytes():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    written = samples.read_text(encoding="utf-8").splitlines()[0]
    assert repr(json.loads(written)) == repr(header)


# -- the seam ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [RECIPE, resources.images() / "llama.cpp" / "engine"], ids=["toy", "llama.cpp"])
def test_an_engine_needs_little_of_the_runner(folder: Path) -> None:
    shared = {path.name for path in resources.runner().iterdir()}
    used = {
        name for path in folder.iterdir() for name in re.findall(r'#include "(.+)"', path.read_text(encoding="utf-8"))
    }
    assert used & shared <= ENGINE_NEEDS


def test_the_shared_part_names_no_framework() -> None:
    for name, content in resources.files(resources.runner()).items():
        assert not re.search(rb"llama|ggml|gguf|cuda", content, re.IGNORECASE), name
