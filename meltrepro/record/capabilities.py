"""What a device lets be read and set, as `meltrepro devices probe` found it; part of every record of that device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from meltrepro.errors import RecordError
from meltrepro.manifest.base import Count, Nanoseconds, Strict
from meltrepro.untrusted import parse, read_regular

_MOST_BYTES = 1 << 20


class ControlReport(Strict):
    """One setting and whether it works."""

    name: str
    works: bool
    before: str | None = Field(None, description="How it was; absent where the device does not tell.")
    set_to: str | None = Field(None, description="What it was set to, read back and put back again.")
    why: str = Field("", description="What went wrong.")


class BatteryReport(Strict):
    """What the raw values of the battery mean, found by discharging it."""

    calibrated: bool
    why: str = Field("", description="Why it could not be calibrated.")
    current_a: float | None = Field(
        None, description="Amperes for one raw unit, positive for what the device draws: the sign is in it."
    )
    voltage_v: float | None = Field(None, description="Volts for one raw unit.")
    ratio: float | None = Field(
        None, description="Charge by the integrated current, in units of 1 uA, to that of the charge counter."
    )
    counter_steps: Count = Field(0, description="How often the charge counter moved meanwhile.")
    duration_s: float = 0.0


class Capabilities(Strict):
    """The report on one device."""

    v: Literal[1] = 1
    device: str = Field(description="Id of the device.")
    system: str = Field("", description="Build of its system; a report on another build is out of date.")
    probed_wall_ns: Nanoseconds
    controls: list[ControlReport] = Field(default_factory=list)
    sources: list[str] = Field(default_factory=list, description="What a sampler can read.")
    unavailable: dict[str, str] = Field(default_factory=dict, description="What the state lacks, with the reason.")
    battery: BatteryReport | None = Field(None, description="Absent for a device without one, or one nobody asked.")


def path_of(home: Path, device: str) -> Path:
    """Where the report on a device is kept."""
    return home / "devices" / f"{device}.json"


def system_of(facts: Mapping[str, str]) -> str:
    """The build of a device's system, by what it says of itself."""
    return facts.get("build") or facts.get("kernel", "")


def load(home: Path, device: str) -> Capabilities | None:
    """The report on a device, `None` where it was never probed; raises `RecordError` for a damaged one."""
    path = path_of(home, device)
    try:
        return parse(Capabilities, read_regular(path, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path} is damaged: {str(error).splitlines()[0]}", hint="probe the device anew: meltrepro devices probe"
        ) from error
