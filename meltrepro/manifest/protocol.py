"""How trials are held and what is asked of them: protocol, gates, limits, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from meltrepro.manifest.base import Strict, added


class Order(StrEnum):
    interleaved = "interleaved"
    blocked = "blocked"
    as_written = "as-written"


class Gates(Strict):
    """The state that a device must be in before a trial begins; it is waited for. What is absent is not asked for."""

    temperature_c: float | None = Field(None, gt=-50, lt=150, description="Hottest that any sensor may be.")
    temperature_steady_c: float | None = Field(
        None, gt=0, lt=50, description="Most by which any sensor may have changed over `steady_s`."
    )
    steady_s: float = Field(10, gt=0, le=3600, description="Time over which temperatures must be steady.")
    busy_cores: float | None = Field(
        None, gt=0, description="Most CPU time that others may use, in cores, over the time between two looks."
    )
    free_memory_mb: float | None = Field(None, gt=0, description="Memory that must be available.")
    governor: str | None = Field(None, min_length=1, description="CPU frequency governor that every CPU must have.")
    battery_percent: float | None = Field(None, ge=0, le=100, description="Lowest charge of the battery.")
    charging: bool | None = Field(None, description="Whether the battery must be charging, or must not.")
    thermal_status: int | None = Field(
        None, ge=0, le=6, description="Most that Android may throttle because of heat: 0 not at all, 3 severely."
    )
    timeout_s: float = Field(900, gt=0, le=86400, description="A trial whose gates stay closed for longer fails.")
    poll_s: float = Field(1, gt=0, le=60, description="Time between two looks.")


Profile = Literal["smoke", "standard", "paper"]
PROFILES: Mapping[Profile, Mapping[str, Any]] = {
    "smoke": {"repetitions": 1, "warmups": 0},
    "standard": {},
    # MELT's own: section 4.1 of the paper and its scripts. The first run is counted like the others.
    "paper": {
        "repetitions": 3,
        "warmups": 0,
        "order": "as-written",
        "turn_pause_s": 5.0,
        "conversation_pause_s": 60.0,
        "idle_s": 60.0,
    },
}
"""What a profile changes of the protocol's defaults; docs/protocol.md says why."""


_GUESSED = 10


class Protocol(Strict):
    """How trials are repeated and ordered."""

    profile: Profile = Field(
        "standard",
        description="Other defaults for this section: `smoke` to see that everything works, `paper` for MELT's own protocol.",
    )
    repetitions: Annotated[int, Field(ge=1, le=10000)] | Literal["auto"] = Field(
        5,
        description="Trials of each cell that count; `auto`: as many as show `difference` on these devices, by their calibrations.",
    )
    difference: float = added(
        0.05,
        gt=0,
        lt=1,
        description="With `repetitions: auto`, the difference in generation speed, as a share, that is to be shown between two cells "
        "of a campaign in four of five cases.",
    )
    warmups: int = Field(
        1,
        ge=0,
        le=1000,
        description="Trials before the first repetition of each cell; recorded, marked, never summarised.",
    )
    steady_within: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Leave out the rest of a cell's warm-ups once two in a row generate equally fast to within this share.",
    )
    order: Order = Field(Order.interleaved, description="In which order trials of different cells follow each other.")
    seed: int = Field(1, ge=0, lt=2**32, description="Seed of sampling and of the order.")
    timeout_s: float = Field(3600, gt=0, le=10**7, description="A trial that takes longer is stopped and fails.")
    retries: int = Field(1, ge=0, le=10, description="Further attempts at a trial that failed for a transient reason.")
    parallel: bool = Field(
        True,
        description="Measure different devices at the same time. This machine and its virtual devices wait for each other.",
    )
    turn_pause_s: float = Field(0, ge=0, le=3600, description="Idle time between two turns of a conversation.")
    conversation_pause_s: float = Field(0, ge=0, le=3600, description="Idle time between two conversations of a trial.")
    idle_s: float = Field(
        0, ge=0, le=3600, description="Idle time before each trial in which what the device draws at rest is sampled."
    )

    gates: Gates = Gates()
    abort_above_c: float | None = Field(
        None, gt=0, lt=150, description="A trial is stopped, and fails, when any sensor gets hotter than this."
    )

    @property
    def count(self) -> int:
        """The repetitions as a number; of `auto`, which is replaced where devices are known, a guess for estimates."""
        return self.repetitions if isinstance(self.repetitions, int) else _GUESSED

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        """What the profile says, where the manifest does not."""
        if isinstance(values, dict) and isinstance(values.get("profile"), str):
            return {**PROFILES.get(values["profile"], {}), **values}
        return values


class Want(StrEnum):
    required = "required"
    if_available = "if-available"
    off = "off"


LIMITS = "measure.limits"
"""Where a manifest has them."""


class Limits(Strict):
    """What makes a trial INVALID, so that summaries leave it out. What a device does not show is not judged."""

    min_tokens: int = Field(2, ge=0, description="Fewest tokens that a trial must generate.")
    min_generation_s: float = Field(0, ge=0, description="Least time that generation must take.")
    truncated: bool = Field(False, description="Whether turns may be cut off by the end of the context.")
    throttle_events: float | None = Field(0, ge=0, description="Most times that CPUs may be slowed down by heat.")
    memory_pressure: float | None = Field(0.1, ge=0, le=1, description="Most time in which a task may wait for memory.")
    cpu_pressure: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Most time in which a task may wait for a CPU: 0.25 where absent, 1 switches it off. Not judged where the runner has more threads than CPUs.",
    )
    temperature_c: float | None = Field(None, gt=0, lt=150, description="Hottest that any sensor may get.")
    sample_share: float = Field(0.8, ge=0, le=1, description="Least part of the expected samples that must be there.")
    bound: float | None = Field(
        None, gt=0, description="Widest that the bound of a figure made of samples may be, as a share of it."
    )
    clock_jump_s: float | None = Field(
        0.1, gt=0, description="Most by which the device's clocks may move apart: set, or stopped by a suspension."
    )
    noise: float | None = Field(
        0.1, gt=0, description="Largest coefficient of variation of generation speed over a cell's repetitions."
    )

    @model_serializer(mode="wrap")
    def _switched_off(self, usual: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What null switches off stays null where records leave out what is absent; read again it would be the default."""
        fields = type(self).model_fields.items()
        off = [name for name, field in fields if field.default is not None and getattr(self, name) is None]
        return {**usual(self), **dict.fromkeys(off)}


class Measure(Strict):
    """Which metrics are asked for, and what happens where one cannot be had."""

    memory: Want = Field(Want.required, description="Peak memory of the runner.")
    energy: Want = Field(Want.if_available, description="Energy of each phase.")
    temperature: Want = Field(Want.if_available, description="Temperature of the device.")
    sampling_hz: float = Field(
        1.0,
        ge=0,
        le=100,
        description="How often sensors are read on the device while a trial runs; a slow sensor is asked less often; 0: never.",
    )
    limits: Limits = Limits()
    operators: bool = Field(False, description="Add one profiled trial per cell with per-operator times.")
