"""The record of one trial: what was asked (`request.json`), how it ended (`outcome.json`), who measured.

A record is a folder, readable without MLflow and never rewritten. Metrics are not stored in it: they are computed
from `events.jsonl` whenever they are needed, so that a definition can be mended without touching a measurement.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from meltrepro.spec.manifest import Sha256, Strict

REQUEST, EVENTS, OUTCOME, DEVICE, SAMPLES = (
    "request.json",
    "events.jsonl",
    "outcome.json",
    "device.json",
    "samples.jsonl",
)
STDOUT, STDERR = "stdout.log", "stderr.log"


class RequestSampling(Strict):
    greedy: bool
    temperature: float
    top_k: int
    top_p: float
    repeat_penalty: float
    repeat_last_n: int
    seed: int


class Request(Strict):
    """`request.json`, version 1 of the runner contract (docs/runner.md)."""

    v: Literal[1] = 1
    model: str = Field(description="Path of the GGUF file as the runner sees it.")
    context: int
    threads: int
    batch: int
    gpu_layers: int = 0
    max_tokens: int
    ignore_eos: bool
    sampling: RequestSampling
    conversations: list[list[str]] = Field(description="Per turn the exact text to append, chat template applied.")
    profile: Literal["off", "operators"] = "off"
    warmup_tokens: int = Field(16, ge=0, description="Tokens decoded once before anything is timed; marked by events.")


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
    cell: str
    repetition: int
    warmup: bool
    attempt: int
    state: TrialState
    reason: str | None = None
    transient: bool = False
    exit_code: int | None = None
    started_wall_ns: int
    duration_s: float
    identities: Identities
    virtual: bool = False
