"""What campaigns found, as flat values: the one table that findings, tables and figures are made of.

Everything here is derived from records whenever it is read, so that derived tables can be made anew from records
alone. What is absent is `None` or missing from a mapping, with its reason in `unavailable` or `reason`; never zero.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from meltrepro.accuracy.answers import Asking
from meltrepro.accuracy.scores import Score
from meltrepro.measure.operators import Breakdown
from meltrepro.measure.validity import Exclusion
from meltrepro.record.trace import OperatorPhase, Said
from meltrepro.stats.summary import Summary

__all__ = ["Answer", "CellResult", "Device", "Results", "Score", "State", "TurnResult"]

State = Literal["measured", "invalid", "failed", "skipped"]
STATES: tuple[State, ...] = get_args(State)
"""From the best outcome to the worst."""
DeviceKey = tuple[bool, str, float, str, str]
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*w", re.IGNORECASE)


@dataclass(frozen=True)
class Device:
    """A device that cells ran on, or should have."""

    name: str
    """The target's name in the manifest."""
    kind: str
    model: str
    memory_bytes: int | None
    virtual: bool
    """Numbers of virtual devices say nothing of real ones; they are never mixed."""
    power_mode: str | None = None
    """Of a board that has some, by name."""
    battery_mah: float | None = None
    """Capacity of the battery, where the device says it."""
    id: str = ""
    """What tells it from every other device, whatever manifests call it; empty where records do not say."""

    @property
    def key(self) -> DeviceKey:
        """The same for the same device in the same power mode; real devices and small budgets come first."""
        mode = self.power_mode or ""
        return self.virtual, self.name, budget_w(mode), mode, self.id or self.model


def budget_w(mode: str) -> float:
    """Watts in a power mode's name; infinite for one without, such as MAXN."""
    found = _BUDGET.search(mode)
    return float(found[1]) if found else math.inf


@dataclass(frozen=True)
class TurnResult:
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
    n_read: int
    n_written: int
    """Tokens of all sequences: of prompts, and of answers after their first."""


@dataclass(frozen=True)
class Answer:
    """What came of one prompt, with greedy sampling."""

    conversation: int
    turn: int
    token_ids: tuple[int, ...]
    text: str
    margins: tuple[float | None, ...] = ()
    """By how much the logit of each token exceeds the next largest; empty of older runners."""


@dataclass(frozen=True)
class CellResult:
    campaign: str
    cell: str
    state: State
    reason: str | None
    """Why it is not simply measured; `None` where it is."""
    device: Device
    framework: str
    """Its kind."""
    release: str
    model: str
    quantization: str
    workload: str
    accelerated: bool = False
    """Whether layers ran on a GPU."""
    software_device: bool = False
    """Whether they ran on a device that is a driver on the CPU: its figures say nothing of any GPU."""
    synthetic: bool = False
    """Whether the weights were made up: fit for speed, memory and size, never for accuracy."""
    parameters: float | None = None
    model_bytes: int | None = None
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
    right: Mapping[str, bool] = field(default_factory=dict)
    """Question -> whether its answer is right; the same question has the same name in every cell."""
    asking: Asking | None = None
    """How far questions were asked, where that ended early."""
    asked: int | None = None
    """How many repetitions there should be."""
    exclusions: tuple[Exclusion, ...] = ()
    too_few: bool = False
    """Whether its repetitions are too few to judge."""
    remarks: tuple[str, ...] = ()
    """What a reader of its figures must know."""
    options: Mapping[str, str | int | float] = field(default_factory=dict)
    """What the manifest set, and what followed from it, by name."""
    ran_as: Said = field(default_factory=dict)
    """How the kernel treated the runner and what the engine made of the request."""
    cause: str | None = None
    """The reason in one word: `out-of-memory`, `noisy`, `memory`; `None` where it is simply measured."""
    source: tuple[str, ...] = ()
    """Names of the file that the weights were made from, as the manifest has them."""
    rank: int = 0
    """Place of its framework in the manifest."""
    threads: int | None = None
    """Of the runner, as it reported them."""
    vocabulary: int | None = None
    """Tokens that the engine has logits for."""
    answers: tuple[Answer, ...] = ()
    """Of the first repetition that is believed; none where tokens were drawn at random."""

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
    """Id of each campaign -> the name in its manifest, in the order in which they were given."""
    studies: Mapping[str, str] = field(default_factory=dict)
    """Id of a campaign -> the study that its manifest belongs to."""

    @property
    def measured(self) -> tuple[CellResult, ...]:
        """The cells with figures that are believed."""
        return tuple(cell for cell in self.cells if cell.metrics or cell.scores)

    def of_study(self, study: str) -> Results:
        """What its campaigns alone found."""
        names = {id: name for id, name in self.names.items() if self.studies.get(id) == study}
        return Results(tuple(cell for cell in self.cells if cell.campaign in names), names, dict.fromkeys(names, study))

    def number(self, campaign: str) -> int:
        """What a campaign is called in tables, from 1."""
        return list(self.names).index(campaign) + 1

    def title(self, device: Device) -> str:
        """The name of a device with its power mode, and with its hardware or a number where the name alone is not unique."""
        return self._titles[device.key]

    @cached_property
    def _titles(self) -> Mapping[DeviceKey, str]:
        devices = {cell.device.key: cell.device for cell in self.cells}
        names = {key: one.name + (f" [{one.power_mode}]" if one.power_mode else "") for key, one in devices.items()}
        longer = {key: f"{name} ({devices[key].model})" for key, name in names.items()}
        number = Counter[str]()
        found = {}
        for key, name in sorted(names.items()):
            if list(names.values()).count(name) > 1:
                name = longer[key]
                number[name] += 1
                if list(longer.values()).count(name) > 1:
                    name += f" #{number[name]}"
            found[key] = name
        return found
