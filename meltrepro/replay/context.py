"""What surrounded a cell's trials on either side of a comparison, and what of it differs.

Facts differ or they do not. Readings at the start of trials (temperature, load, clocks) never agree exactly, so only a
difference of their medians that may matter counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from meltrepro.measure.records import CampaignRecord, CellRecord
from meltrepro.record.temperature import plausible
from meltrepro.record.trace import text_of
from meltrepro.record.trial import StateSeen

DEVICE = "device."
"""Prefix of the parameters that say where a cell ran, not what ran."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same on both sides."""

    name: str
    first: str
    second: str


def differences(first: Mapping[str, object], second: Mapping[str, object]) -> tuple[Difference, ...]:
    """Every name whose values differ; a dash stands for one that a side lacks."""
    names = sorted(first.keys() | second.keys())
    pairs = ((name, str(first.get(name, "-")), str(second.get(name, "-"))) for name in names)
    return tuple(Difference(name, a, b) for name, a, b in pairs if a != b)


@dataclass(frozen=True)
class _Reading:
    name: str
    unit: str
    of: Callable[[StateSeen], float | None]
    """Its value in a device's state."""
    matters: Callable[[float, float], bool]


def _highest(values: Mapping[str, float]) -> float | None:
    return max(values.values(), default=None)


_READINGS = (
    _Reading(
        "temperature at start",
        "C",
        lambda state: _highest(plausible(state.temperatures_c)),
        lambda a, b: abs(a - b) >= 2,
    ),
    _Reading("load at start", "", lambda state: state.load_1min, lambda a, b: abs(a - b) >= 0.5),
    _Reading(
        "clock at start",
        "kHz",
        lambda state: _highest(state.frequencies_khz),
        lambda a, b: abs(a - b) >= 0.02 * max(a, b),
    ),
)


def context_differences(
    first: tuple[CampaignRecord, CellRecord], second: tuple[CampaignRecord, CellRecord]
) -> tuple[Difference, ...]:
    """What differs around two cells; raises `RecordError` for a damaged record."""
    states = [[trial.before() for trial in cell.repetitions] for _, cell in (first, second)]
    facts = differences(_facts(*first, states[0]), _facts(*second, states[1]))
    process = ran_differences("process.", first[1], second[1])
    return (*_validity(first[1], second[1]), *facts, *process, *_readings(*states))


def ran_differences(kind: str, first: CellRecord, second: CellRecord) -> tuple[Difference, ...]:
    """What of `ran_as` differs; nothing where a side's runner did not say so yet. Raises `RecordError`."""
    sides = [{name: text_of(value) for name, value in cell.ran_as.items()} for cell in (first, second)]
    if not all(sides):
        return ()
    return differences(*({name: value for name, value in side.items() if name.startswith(kind)} for side in sides))


def _validity(first: CellRecord, second: CellRecord) -> Iterator[Difference]:
    """Named whenever a side is INVALID, also where both are for the same reason: no verdict is better than its data."""
    if not (first.validity.valid and second.validity.valid):
        yield Difference("validity", str(first.validity), str(second.validity))


def _facts(campaign: CampaignRecord, cell: CellRecord, states: list[StateSeen]) -> dict[str, object]:
    governors = {governor for state in states for governor in state.governors.values()}
    conditions: dict[str, set[str]] = {}
    for name, value in (item for state in states for item in state.conditions.items()):
        conditions.setdefault(name, set()).add(value)
    return {
        **{name: value for name, value in cell.entry.params.items() if name.startswith(DEVICE)},
        "engine": campaign.document.engine,
        "meltrepro": campaign.document.meltrepro_version,
        **({"governor": ", ".join(sorted(governors))} if governors else {}),
        **{name: " and ".join(sorted(values)) for name, values in conditions.items()},
    }


def _readings(first: list[StateSeen], second: list[StateSeen]) -> Iterator[Difference]:
    for reading in _READINGS:
        values = [[value for state in states if (value := reading.of(state)) is not None] for states in (first, second)]
        if not all(values):
            continue
        a, b = map(statistics.median, values)
        if reading.matters(a, b):
            unit = f" {reading.unit}" if reading.unit else ""
            yield Difference(reading.name, f"{a:g}{unit}", f"{b:g}{unit}")
