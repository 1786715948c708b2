"""External power meters in a manifest."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from meltrepro.manifest.base import Place, Strict

Heading = Annotated[str, StringConstraints(pattern=r"^\S(.*\S)?$")]
"""Of a column of a CSV file; cells are read without the spaces around them."""
Delimiter = Annotated[str, StringConstraints(pattern=r'^[^"\r\n]$')]


class SyncMark(Strict):
    """Planned loads before and after the conversations, which a power meter sees."""

    pulses_ms: list[Annotated[int, Field(ge=1, le=60000)]] = Field(
        default=[1500, 500, 1000],
        min_length=2,
        description="How long each load lasts, two at least; unequal ones are found surely.",
    )
    rest_ms: int = Field(1000, ge=1, le=60000, description="Rest before, between and after them.")


MeterUnit = Literal["W", "mW", "uW", "A", "mA", "uA", "V", "mV", "J", "mJ", "Wh", "mWh", "C", "mAh", "degC"]
_CURRENT, _VOLTAGE, _CHARGE = ("A", "mA", "uA"), ("V", "mV"), ("C", "mAh")


class Meter(Strict):
    """An external meter, by the CSV file that its program writes while trials run, or that was recorded as a whole."""

    file: Place = Field(description="Path of the file, relative to the manifest.")
    time: Heading = Field(description="Heading of the column with the time of each sample.")
    time_unit: Literal["s", "ms", "us", "ns"] = Field("s", description="Unit of that column.")
    clock: Literal["own", "host", "device"] = Field(
        "own",
        description="Whose clock that column shows: one of its own, which the sync mark aligns; Unix time of the machine that "
        "runs meltrepro; the device's CLOCK_MONOTONIC.",
    )
    clock_bound_s: float = Field(
        0, ge=0, le=3600, description="How far a clock that should show the time of host or device may be from it."
    )
    columns: dict[Heading, MeterUnit] = Field(
        min_length=1,
        description="Heading of each column to read, with its unit. Several of power, or of energy, add up; of current, voltage "
        "and charge there may be one each.",
    )
    delimiter: Delimiter = Field(",", description="What separates the columns.")
    refresh_s: float | None = Field(
        None,
        gt=1e-6,
        le=3600,
        description="How often the meter has a new value, where that is less often than it writes one.",
    )
    linger_s: float = Field(
        1, ge=0, le=60, description="How long after a trial to wait until the samples of its end are in the file."
    )
    sync_mark: SyncMark = SyncMark()

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        for quantity, units in (("current", _CURRENT), ("voltage", _VOLTAGE), ("charge", _CHARGE)):
            found = [heading for heading, unit in self.columns.items() if unit in units]
            if len(found) > 1:
                several = ", ".join(map(repr, found))
                raise ValueError(
                    f"expected one column of {quantity} at most, got {several}: rails add up in W or J only"
                )
        own = self.clock == "own"
        if set(self.columns.values()) <= {*_VOLTAGE, "degC", *(_CHARGE if own else ())}:
            needed = "current (A), in which the sync mark is seen" if own else "current (A) or charge (C)"
            raise ValueError(f"expected a column of power (W), energy (J), {needed}")
        if own and self.clock_bound_s:
            raise ValueError("expected no clock_bound_s with clock: own, of which the sync mark says how far it is off")
        if not own and self.sync_mark != SyncMark():
            raise ValueError(f"expected no sync_mark with clock: {self.clock}, which needs none")
        return self
