"""The record of one trial: what was asked (`request.json`), how it ended (`outcome.json`), who measured.

A record is a folder, readable without MLflow and never rewritten. Metrics are not stored in it: they are computed
from `events.jsonl` whenever they are needed, so that a definition can be mended without touching a measurement. The
outcome holds the digests of the other files and a seal over itself, so that a later change of any is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from meltrepro import untrusted
from meltrepro.manifest.base import Count, Label, Nanoseconds, Seconds, Seed, Sha256, Strict
from meltrepro.manifest.meters import SyncMark
from meltrepro.record import seal
from meltrepro.record.outcomes import FailureKind, TrialFailure, with_failure_kind
from meltrepro.untrusted import as_model, load_json, parse

REQUEST, EVENTS, OUTCOME, DEVICE, SAMPLES = (
    "request.json",
    "events.jsonl",
    "outcome.json",
    "device.json",
    "samples.jsonl",
)
STDOUT, STDERR = "stdout.log", "stderr.log"
SENSOR_PLAN, SAMPLER_LOG = "sampling.json", "sampler.log"
METER, CLOCKS = "meter.jsonl", "clocks.json"
CHECKS = "checks.json"
"""What the answers of a trial are held against (docs/accuracy.md)."""
ENGINE_EVENTS, ENGINE_LOG = "engine.jsonl", "engine.log"
"""Events and log of the other device's runner, where that has the engine."""
SCRATCH = "scratch"
"""A folder that a program may have for itself; it is gone when the trial has ended, however it ended."""
CRASH = "report.ips"
"""What a phone of Apple's reports of a program that crashed; beside the record, not a part of it."""
SEALED = (
    REQUEST,
    CHECKS,
    EVENTS,
    DEVICE,
    SAMPLES,
    SENSOR_PLAN,
    METER,
    CLOCKS,
    STDOUT,
    STDERR,
    SAMPLER_LOG,
    ENGINE_EVENTS,
    ENGINE_LOG,
)
"""The files whose digests an outcome holds, as far as they are there."""


def most_bytes(name: str) -> int:
    """How large a file of a record may be, in bytes."""
    return untrusted.PIECEWISE if name in (EVENTS, ENGINE_EVENTS, SAMPLES, METER) else untrusted.WHOLE


class RequestSampling(Strict):
    greedy: bool
    temperature: float
    top_k: Count
    top_p: float
    repeat_penalty: float
    repeat_last_n: Count
    seed: Seed


class RequestThinking(Strict):
    """Marks around a reasoning model's thinking."""

    begin: str = Field(min_length=1)
    end: str = Field(min_length=1)
    max_tokens: int | None = Field(
        None, ge=1, description="Tokens of a turn's thinking after which the runner ends it."
    )


class RequestTokens(Strict):
    """A prompt of which only the length matters."""

    tokens: int = Field(ge=1, description="How many; the runner makes them up.")
    max_tokens: int | None = Field(None, ge=1, description="Of the answer; that of the request where absent.")


class RequestSpeculation(Strict):
    """How tokens are foreseen."""

    tokens: int = Field(ge=1)
    ngram: int | None = Field(None, ge=1)
    model: str | None = Field(None, description="Path of the draft model as the runner sees it.")
    digest: Sha256 | None = Field(None, description="sha256 of that model.")


class RequestAdapter(Strict):
    """What is added to the weights when they are loaded."""

    model: str = Field("", description="Path of the adapter as the runner sees it.")
    scale: float
    digest: Sha256 | None = Field(None, description="sha256 of the adapter.")


class RequestPeer(Strict):
    """The other end of a link between two runners."""

    address: str = Field(description="An IP address: where to wait, or whom to ask.")
    port: int = Field(ge=1, le=65535)
    token: str = Field(min_length=1, description="A secret of one trial that both ends know.")


class Request(Strict):
    """`request.json`, version 1 of the runner contract (docs/runner.md). Other keys are the framework's own."""

    model_config = ConfigDict(extra="allow")

    v: Literal[1] = 1
    model: str = Field(description="Path of the model as the runner sees it.")
    context: Count
    threads: Count
    batch: Count
    max_tokens: Count
    ignore_eos: bool
    sampling: RequestSampling
    conversations: list[list[str | RequestTokens]] = Field(
        description="Per turn the exact text to append, chat template applied, or a number of tokens."
    )
    depth: int | None = Field(None, ge=1, description="Tokens that the context holds before the first turn.")
    restore: bool | None = Field(None, description="They are written to a file, and read from it within that turn.")
    sequences: int | None = Field(None, ge=2, description="Answers that are written abreast.")
    shared_prompt: Literal[False] | None = Field(None, description="Each of them reads the prompt for itself.")
    speculate: RequestSpeculation | None = None
    lora: RequestAdapter | None = None
    page_cache: Literal["cold", "warm"] | None = Field(
        None, description="What it is to hold of the model's files when they are loaded."
    )
    profile: Literal["off", "operators"] = "off"
    warmup_tokens: int = Field(16, ge=0, description="Tokens decoded once before anything is timed; marked by events.")
    turn_pause_ms: int = Field(0, ge=0, description="Idle time after each turn that another one follows.")
    conversation_pause_ms: int = Field(0, ge=0, description="Idle time between conversations.")
    sync_mark: SyncMark | None = None
    thinking: RequestThinking | None = None
    serve: RequestPeer | None = Field(None, description="Whoever asks there puts the prompts and is told the answers.")
    ask: RequestPeer | None = Field(
        None, description="The runner over there has the engine; this one puts the prompts."
    )

    __pydantic_extra__: dict[str, JsonValue]

    @property
    def options(self) -> Mapping[str, JsonValue]:
        """The framework's own part."""
        return dict(self.__pydantic_extra__)


Mode = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
"""A way in which a scorer works, as the framework calls it."""


class ScoringRequest(Strict):
    """`request.json` of an accuracy trial: what the framework's scorer is asked (docs/accuracy.md)."""

    v: Literal[1] = 1
    task: str
    mode: Mode
    model: str = Field(description="Path of the model as the scorer sees it.")
    context: Count
    threads: Count
    batch: Count
    data: Sha256 = Field(description="sha256 of the data set or text, as its source gives it.")
    inputs: dict[str, Sha256] = Field(description="sha256 of each file that the scorer reads besides the model.")
    questions: Count | None = Field(None, description="Questions that count.")
    padding: Count = Field(0, description="Questions after them that do not count: scorers want a least number.")
    sequences: Count = Field(1, description="Most answers of a question.")
    left_out: list[Count] = Field(
        default_factory=list, description="Numbers of questions that the scorer's format cannot hold."
    )
    chunks: Count | None = Field(None, description="Windows of the text; all of them where absent.")
    adapter_scale: float | None = Field(None, description="Factor of the adapter that is among the inputs.")
    options: dict[str, JsonValue] | None = Field(
        None, description="The framework's own part of a request, where it has one."
    )


AnyRequest = Request | ScoringRequest


def parse_request(content: bytes) -> AnyRequest:
    """The request in a file's content; raises `ValueError` for one that is damaged."""
    found = load_json(content)
    scored = isinstance(found, dict) and "task" in found
    return as_model(ScoringRequest, found) if scored else as_model(Request, found)


Readings = list[tuple[Nanoseconds, Nanoseconds, Nanoseconds]]
"""Comparisons of two clocks, in nanoseconds: sent and received by this machine's monotonic clock, in between the other."""


class ClockReadings(Strict):
    """`clocks.json`: how this machine's monotonic clock stood to others before and after a trial."""

    v: Literal[1] = 1
    device_before: Readings = Field(min_length=1, description="With the device's CLOCK_MONOTONIC.")
    device_after: Readings = Field(default_factory=list)
    wall_before: Readings = Field(min_length=1, description="With this machine's Unix time.")
    wall_after: Readings = Field(default_factory=list)


class StateSeen(BaseModel):
    """The state of a device before a trial in `device.json`, as far as others look at it."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    temperatures_c: dict[str, float] = {}
    frequencies_khz: dict[str, float] = {}
    load_1min: float | None = None
    governors: dict[str, str] = {}
    conditions: dict[str, str] = {}


def parse_device(content: bytes) -> dict[str, Any]:
    """The content of `device.json`; raises `ValueError` for one that is damaged."""
    found = load_json(content)
    if not isinstance(found, dict):
        raise ValueError("expected an object")
    return found


def parse_state(content: bytes) -> StateSeen:
    """The state before the trial in `device.json`; raises `ValueError` for one that is damaged."""
    found = parse_device(content)
    if "before" not in found:
        raise ValueError("it has no state before the trial")
    return as_model(StateSeen, found["before"])


class TrialState(StrEnum):
    ok = "ok"
    failed = "failed"


class Identities(Strict):
    """Digests of everything that a trial's result depends on."""

    model: Sha256
    bundle: Sha256
    runner: Sha256
    request: Sha256 = Field(description="Of the request without its paths, canonical JSON.")


class Outcome(Strict):
    """`outcome.json`: written last; a trial without it never happened."""

    format: Literal[1] = 1
    cell: Label
    repetition: Count
    warmup: bool
    attempt: Count
    state: TrialState
    kind: FailureKind | None = Field(None, description="What it failed of.")
    reason: str | None = Field(None, description="The same in words.")
    transient: bool = False
    exit_code: Annotated[int, Field(ge=-(2**31), lt=2**32)] | None = None
    started_wall_ns: Nanoseconds
    duration_s: Seconds
    identities: Identities
    virtual: bool = False
    synthetic: bool = False
    """Whether the weights are made up: fit for speed, memory and size, never for accuracy."""
    files: dict[Annotated[str, Field(pattern=r"^[a-z][a-z.]*$")], Sha256] = Field(
        default_factory=dict, description="sha256 of the record's other files by name."
    )
    seal: Sha256 | None = Field(None, description="sha256 of everything else in this file, canonical JSON.")

    _of_0_1 = model_validator(mode="before")(with_failure_kind)

    @property
    def failure(self) -> TrialFailure | None:
        """Why it failed; `None` of one that ended well."""
        if self.state is TrialState.ok:
            return None
        return TrialFailure(self.kind or FailureKind.unknown, self.reason or "no reason was recorded", self.transient)


def outcome_bytes(outcome: Outcome) -> bytes:
    """The content of `outcome.json`, sealed."""
    return seal.sealed(outcome.model_dump(mode="json"))


def parse_outcome(content: bytes) -> Outcome:
    """The outcome in a file's content; raises `ValueError` for one that is damaged or was changed."""
    outcome = parse(Outcome, content)
    seal.check(content, outcome.seal)
    return outcome
