"""What is a temperature, and what a sensor shows in the place of one: one rule for states, samples, gates, metrics and reports.

Kernels and services list more than thermometers among their sensors (voltages, currents, charge, differences), and a
thermometer that is off, not connected or made up goes on showing a number. A number, a name and a type tell most of them; a
sensor that never moves in a whole trial is one that shows nothing, as long as there is another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from meltrepro.record.samples import Recording
from meltrepro.record.series import SensorSeries

CHANNELS = "temperature."
"""How the names of such channels begin."""
LIMITS_C = (-40.0, 120.0)
"""Above lie 125, 127 and 128, which inputs without a sensor show; machines switch themselves off before that."""
_LEAST_C = 1.0
"""What is nearer to zero is a sensor that is off, or a number of another unit."""
_AT_REST_C, _POWER_ON_C = 100.0, 85.0
"""Nothing real stays so hot at rest without moving; the other is what common sensors show before they measure."""
_NO_TEMPERATURE = re.compile(
    r"pmic-die|(?!.*(?:therm|temp))"
    r"(?:.*[^a-z0-9])?(?:[iv]bat\w*?|vph|bcl|socd|vdroop\d*|ocp|smpl|batoilo|minus|lvl\d+)(?:[^a-z0-9].*)?"
)
"""Voltages, currents, charge, levels of alarms, differences; and a chip that always says 100.

Sources: Linux for Tegra's device trees (PMIC-Die); Qualcomm's and Google's drivers of battery current limits.
"""
_DEGREES, _TENTHS, _THOUSANDTHS = 1.0, 0.1, 1e-3
_PERCENT = "soc"
"""A zone of this name is a system on a chip, or a state of charge."""
_FEWEST_UNITS = 10
"""A smaller number is a level or a switch."""


def meant(value: float | None) -> float | None:
    """A temperature in degrees Celsius that a sensor can mean, else `None`."""
    if value is None or not math.isfinite(value) or abs(value) < _LEAST_C:
        return None
    return value if LIMITS_C[0] <= value <= LIMITS_C[1] else None


def named(name: str) -> bool:
    """Whether a sensor of this name, that of its zone or monitor before it or not, can be a thermometer."""
    return not _NO_TEMPERATURE.fullmatch(name.rpartition(":")[2].strip().lower())


def plausible(found: Mapping[str, float]) -> dict[str, float]:
    """Of what sensors show, by their names, what can be temperatures."""
    return {name: value for name, value in found.items() if meant(value) is not None and named(name)}


def zone_unit(kind: str, shown: float) -> float | None:
    """What the number of a thermal zone of this type has to be multiplied with, `None` where it is no temperature.

    The kernel's unit is a thousandth of a degree (Documentation/ABI/testing/sysfs-class-thermal); drivers of older phones
    show degrees or tenths. No machine that computes is within a degree of freezing.
    """
    if not named(kind) or abs(shown) < _FEWEST_UNITS:
        return None
    small = 0 < shown < 1000 and kind.strip().lower() != _PERCENT
    units = (_DEGREES, _TENTHS) if small else (_THOUSANDTHS,)
    return next((unit for unit in units if meant(shown * unit) is not None), None)


def parked(looks: Sequence[Mapping[str, float]]) -> set[str]:
    """Of sensors that were looked at again and again at rest, oldest first, those that show nothing.

    They have shown one value from the first look on, and it is one that no sensor of a machine at rest stays at.
    """
    return {
        name
        for name, value in looks[-1].items()
        if (value == _POWER_ON_C or value >= _AT_REST_C) and all(look.get(name) == value for look in looks)
    }


def sampled(recording: Recording) -> tuple[SensorSeries, ...]:
    """The temperatures of a recording, without what is none; of records of earlier versions too.

    A sensor that never moved counts only where none did.
    """
    found = [_meant(series) for series in recording.series if series.channel.name.startswith(CHANNELS)]
    known = [series for series in found if len(series)]
    moving = [series for series in known if len(series) == 1 or _moved(series.values)]
    return tuple(moving or known)


def _meant(series: SensorSeries) -> SensorSeries:
    if not named(series.channel.name.removeprefix(CHANNELS)):
        return SensorSeries(series.channel, (), ())
    pairs = [(t, value) for t, value in zip(series.t_ns, series.values, strict=True) if meant(value) is not None]
    return SensorSeries(series.channel, tuple(t for t, _ in pairs), tuple(value for _, value in pairs))


def _moved(values: Iterable[float]) -> bool:
    return len(set(values)) > 1
