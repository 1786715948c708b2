"""What `meltrepro calibrate` measured of a device: sessions of one small piece of work; a copy is part of every later campaign."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from meltrepro.errors import RecordError
from meltrepro.manifest.base import Nanoseconds, Strict
from meltrepro.untrusted import parse, read_regular
from meltrepro.words import counted

_MOST_BYTES = 1 << 20
MOST_SESSIONS = 60
"""Sessions that are kept, the newest ones."""


class CalibrationSession(Strict):
    """One session: a campaign of a few trials, with all that an ordinary one does before and after them."""

    campaign: str
    started_wall_ns: Nanoseconds
    sampled: bool = Field(description="Whether sensors were read while its trials ran.")
    seconds: float = Field(0.0, ge=0, description="How long it took.")
    values: dict[str, list[float]] = Field(description="By metric, the values of its trials in order.")
    times_s: list[float] = Field(description="When its trials began, from the beginning of the first.")


class Endurance(Strict):
    """One long trial of equal pieces of work without a pause: what is left of the speed of the first ones."""

    campaign: str
    started_wall_ns: Nanoseconds
    duration_s: float
    burst_tps: float = Field(description="Median of the pieces in the first tenth of the time.")
    steady_tps: float = Field(description="Median of the pieces in the last third.")
    slower_after_s: float | None = Field(
        None,
        description="From when on the pieces were slower than 95 % of the burst for good; absent where they never were.",
    )
    speeds_tps: list[float] = Field(description="Of the pieces, in order.")


class Calibration(Strict):
    """All that is known of one device's steadiness."""

    v: Literal[1] = 1
    device: str = Field(description="Id of the device.")
    system: str = Field("", description="Build of its system; a calibration of another build is out of date.")
    work: str = Field(description="Digest of what was measured: other work begins a new calibration.")
    cell: str = Field(description="The same for people.")
    sessions: list[CalibrationSession] = Field(min_length=1)
    endurance: Endurance | None = Field(None, description="Absent where it was left out.")
    pressure: float | None = Field(
        None, ge=0, description="Largest median of a session's share of time in which a task waited for a CPU."
    )

    def __str__(self) -> str:
        days = {datetime.fromtimestamp(each.started_wall_ns / 1e9, UTC).date() for each in self.sessions}
        return f"{counted(len(self.sessions), 'session')} of {counted(len(days), 'day')}, last {max(days)}"


def path_of(home: Path, device: str) -> Path:
    """Where the calibration of a device is kept."""
    return home / "calibrations" / f"{device}.json"


def load(home: Path, device: str) -> Calibration | None:
    """The calibration of a device, `None` where there is none; raises `RecordError` for a damaged one."""
    path = path_of(home, device)
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path} is damaged: {str(error).splitlines()[0]}", hint=f"remove it and calibrate anew: rm {path}"
        ) from error


def current(home: Path, device: str, system: str) -> Calibration | None:
    """The same, as long as the device's system is the one that was calibrated."""
    found = load(home, device)
    return found if found is not None and found.system == system else None


def read(path: Path) -> Calibration:
    """The calibration in a file; raises `OSError` and `ValueError`."""
    return parse(Calibration, read_regular(path, _MOST_BYTES))
