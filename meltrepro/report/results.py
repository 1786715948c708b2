"""What campaigns found, as flat values: the one table that findings, tables and figures are made of.

Everything here is derived from records whenever it is read, so that derived tables can be made anew from records
alone. What is absent is `None` or missing from a mapping, with its reason in `unavailable` or `reason`; never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from meltrepro.accuracy.scores import Score
from meltrepro.measure.operators import Breakdown
from meltrepro.record.trace import OperatorPhase
from meltrepro.stats.summary import Summary

__all__ = ["CellResult", "Device", "Results", "Score", "State", "TurnResult"]

State = Literal["measured", "invalid", "failed", "skipped"]


@dataclass(frozen=True)
class Device:
    """A device that cells ran on, or should have."""

    name: str
    """The target's name in the manifest."""
    kind: str
    """`host`, `android`, `ios`, `jetson`, `linux`."""
    model: str
    memory_bytes: int | None
    virtual: bool
    """Numbers of virtual devices say nothing of real ones; they are never mixed."""
    power_mode: str | None = None
    """Of a Jetson, by name."""
    battery_mah: float | None = None
    """Capacity of the battery, where the device says it."""
    id: str = ""
    """What tells it from every other device, whatever manifests call it; empty where records do not say."""


@dataclass(frozen=True)
class TurnResult:
    """One turn of one repetition."""

    repetition: int
    conversation: int
    turn: int
    began_s: float
    """Since the first turn of its trial."""
    n_prompt: int
    n_gen: int
    n_past: int
    """Tokens in the context when the turn ended."""
    prefill_tps: float | None
    generation_tps: float | None


@dataclass(frozen=True)
class CellResult:
    """One cell of one campaign."""

    campaign: str
    """Id of its campaign."""
    cell: str
    state: State
    reason: str | None
    """Why it is not simply measured; `None` where it is."""
    device: Device
    framework: str
    """Kind of framework: `llama.cpp`."""
    release: str
    model: str
    quantization: str
    workload: str
    accelerated: bool = False
    """Whether layers ran on a GPU."""
    synthetic: bool = False
    """Whether the weights were made up: fit for speed, memory and size, never for accuracy."""
    parameters: float | None = None
    model_bytes: int | None = None
    """Size of the model file."""
    kv_bytes: int | None = None
    """Size of the KV cache as the runner reported it."""
    context: int | None = None
    """Context window in tokens."""
    metrics: Mapping[str, Summary] = field(default_factory=dict)
    """By the names of docs/metrics.md, over the repetitions that are believed."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Metric -> why it has no value."""
    turns: tuple[TurnResult, ...] = ()
    """Of all repetitions that are believed, in order."""
    operators: Mapping[OperatorPhase, Breakdown] = field(default_factory=dict)
    profile_slowdown: float | None = None
    """How many times slower the trial generated in which operators were timed."""
    temperatures: tuple[tuple[float, float], ...] = ()
    """Of the first repetition: seconds since its first turn, hottest sensor in degrees Celsius."""
    scores: tuple[Score, ...] = ()
    asked: int | None = None
    """How many repetitions there should be."""
    doubts: tuple[str, ...] = ()
    """What a reader must know of its repetitions: `1 of 3 repetitions INVALID: r001 too-short: ...`."""
    cause: str | None = None
    """The reason in one word: `out-of-memory`, `noisy`, `memory`; `None` where it is simply measured."""
    requantized_from: str | None = None
    """Quantization of the file that the weights were made from, where that was quantized already."""

    @property
    def bits_per_weight(self) -> float | None:
        """What the file really spends on a parameter, in bits."""
        if self.model_bytes is None or not self.parameters:
            return None
        return 8 * self.model_bytes / self.parameters


@dataclass(frozen=True)
class Results:
    """Cells of one or several campaigns, in the order in which they were run."""

    cells: tuple[CellResult, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    """Id of each campaign -> the name in its manifest."""
