"""What the raw current of a battery means: makers differ in its unit and in its sign, and none says so.

The charge counter is asked, whose unit Android fixes (uAh): while a device discharges, the integral of the current must
be what the counter loses. The ratio of the two is near a power of ten, which is the unit, and has the sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from meltrepro.record.capabilities import BatteryReport
from meltrepro.targets.base import DRAWN, RAW, Reading, Source

UNITS_A = (1e-6, 1e-3, 1e-4, 1.0)
"""Units that drivers were seen to use or could: uA, mA, 0.1 mA, A."""
_TOLERANCE = 2.0
"""The ratio may be off by this factor: counters of charge move in coarse steps."""
_LEAST_STEPS = 3
_VOLTS = ((1e-6, 2.5e6, 6e7), (1e-3, 2500, 6e4))
"""Units of a voltage, each with the raw values that a battery can have in it."""


def calibrate(readings: Sequence[Reading]) -> BatteryReport:
    """What one raw unit of current and voltage is, from looks at a battery that was being discharged."""
    duration_s = readings[-1].t_s - readings[0].t_s if readings else 0.0
    voltage_v = _voltage(readings)

    def refused(why: str, **known: float) -> BatteryReport:
        return BatteryReport(calibrated=False, why=why, voltage_v=voltage_v, duration_s=duration_s, **known)

    if any(reading.charging for reading in readings):
        return refused("the device is on external power, so that its battery does not tell what it draws")
    if any(reading.batteries > 1 for reading in readings):
        return refused("it has several batteries, of which only one would be measured")
    if len(readings) < 2:
        return refused("the battery was not looked at for long enough")
    currents = [reading.current for reading in readings if reading.current is not None]
    charges = [reading.charge_uah for reading in readings if reading.charge_uah is not None]
    if len(currents) < len(readings):
        return refused("the device does not show its battery's current")
    if len(charges) < len(readings):
        return refused("the device does not show a counter of charge to compare the current with")
    steps = sum(one != other for one, other in pairwise(charges))
    counted_uas = (charges[0] - charges[-1]) * 3600
    if counted_uas < 0:
        return refused("the counter of charge rises while the device draws")
    if steps < _LEAST_STEPS:
        return refused(
            f"the counter of charge moved {steps} times in {duration_s:.0f} s, {_LEAST_STEPS} are needed; probe for longer",
            counter_steps=steps,
        )
    if counted_uas == 0:
        return refused("the counter of charge ended where it began", counter_steps=steps)
    times = pairwise(reading.t_s for reading in readings)
    raw_s = sum((a + b) / 2 * (t - s) for (s, t), (a, b) in zip(times, pairwise(currents), strict=True))
    ratio = raw_s / counted_uas
    unit = next(
        (unit for unit in UNITS_A if 1 / _TOLERANCE <= abs(ratio) * unit / 1e-6 <= _TOLERANCE),
        None,
    )
    if unit is None or voltage_v is None:
        why = (
            f"current and counter of charge disagree: their ratio is {ratio:.3g}, near no unit"
            if unit is None
            else "its voltage is in no known unit"
        )
        return refused(why, ratio=ratio, counter_steps=steps)
    return BatteryReport(
        calibrated=True,
        current_a=unit if ratio > 0 else -unit,
        voltage_v=voltage_v,
        ratio=ratio,
        counter_steps=steps,
        duration_s=duration_s,
    )


def _voltage(readings: Sequence[Reading]) -> float | None:
    found = [reading.voltage for reading in readings if reading.voltage is not None]
    return next((unit for unit, low, high in _VOLTS if found and low <= min(found) and max(found) <= high), None)


def calibrated(sources: Sequence[Source], battery: BatteryReport | None) -> tuple[Source, ...]:
    """Sources whose raw numbers are known for what they are, where the device's report says it."""
    known = {}
    if battery is not None and battery.calibrated:
        known = {
            "battery.current": (DRAWN, "A", battery.current_a),
            "battery.voltage": ("battery.voltage", "V", battery.voltage_v),
        }
    found = []
    for source in sources:
        name, unit, scale = known.get(source.name, ("", "", None))
        mend = source.unit == RAW and scale is not None
        found.append(replace(source, name=name, unit=unit, scale=scale) if mend and scale is not None else source)
    return tuple(found)
