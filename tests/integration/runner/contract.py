"""The runner contract as tests hold runners to it: what they are asked, what they leave behind, and what a complete run is."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meltrepro.record.events import read_trace
from meltrepro.record.trace import Trace, Turn
from meltrepro.record.trial import Request, RequestSampling
from tests.integration.bundles import Bundle

END_OF_TURN, BOS = 2, 1  # SmolLM2: <|im_end|>, <|im_start|>
END_OF_TURN_MARK = "<|im_end|>"
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
FIELDS = {
    "hello": {"v", "runner", "framework", "commit", "isa", "wall", "pid", "system"},
    "process": {"nice", "scheduler", "cpus", "memlock_bytes", "aslr"},
    "load_begin": {"cached_share", "asked"},
    "load_end": {"model_bytes", "n_params", "n_vocab", "n_ctx_train"},
    "mem": {"phase", "rss_anon", "rss_file", "hwm", "swap"},
    "context": {"n_ctx", "n_batch", "threads", "kv_bytes"},
    "effective": {
        *("flash_attention", "n_ubatch", "cache_types", "threads", "threads_batch", "mmap", "load", "mlock", "numa"),
        *("rope_scaling", "rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor"),
        *("yarn_beta_fast", "yarn_beta_slow", "yarn_orig_ctx", "locked_bytes", "devices", "cpu_features"),
        *("weights", "kv_cache", "compute"),
    },
    "warmup_begin": {"n"},
    "warmup_end": set(),
    "conversation_begin": {"c"},
    "conversation_end": {"c"},
    "turn_begin": {"c", "i"},
    "prefill_begin": {"n"},
    "prefill_end": set(),
    "token": {"i", "id", "margin"},
    "turn_end": {"c", "i", "n_prompt", "n_gen", "n_past", "stop", "text"},
    "pulse_begin": {"i"},
    "pulse_end": {"i"},
    "decoding": {"phase", "count", "ns"},
    "op": {"phase", "name", "module", "count", "ns"},
    "node": {"phase", "name", "module", "begin", "ns"},
    "error": {"code", "message"},
    "done": set(),
}
ONLY_2026 = {"placement", "affinity", "affinity_strict", "priority", "poll", "swa_full", "repack", "lazy"}
"""More of the `effective` event."""
COMPLETE = (
    "hello process load_begin load_end mem context effective warmup_begin warmup_end "
    "(conversation_begin (turn_begin (prefill_begin prefill_end (token )+)?turn_end mem )+conversation_end )+"
    "mem done "
)


def assert_contract(run: Run, runner: Runner) -> None:
    """A complete run's events: kinds in order, fields, times, and facts that are known."""
    kinds = "".join(event["e"] + " " for event in run.events)
    assert re.fullmatch(COMPLETE, kinds), kinds
    for event in run.events:
        more = ONLY_2026 if event["e"] == "effective" and runner.bundle.facts["release"] != "2024-02-27" else set()
        assert set(event) == {"e", "t"} | FIELDS[event["e"]] | more, event
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
