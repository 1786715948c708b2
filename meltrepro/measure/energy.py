"""Energy and charge of the phases of a trial, from whatever the device or a meter shows.

In order of preference: power gauges (W), integrated; energy counters (J), differenced; current times voltage (A, V),
integrated. Several gauges or counters add up, as rails of one device do; a board with named rails (`rail.NAME.voltage`,
`.current`, `.power`) is what those add up to, and what stands beside them (`aside.NAME...`) counts nowhere. Charge: a current, integrated, or a counter of
charge (C), differenced. Power of a discharging battery is counted as positive: drivers differ in the sign of its current,
the work that it does has none. Each figure has a bound; where it cannot be given, `NoValue` says why.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from meltrepro.errors import RecordError
from meltrepro.measure.integrals import Amount, Integral, NoValue, SampleLimits, advance, integrate
from meltrepro.record.samples import Recording
from meltrepro.record.series import Kind, SensorChannel, SensorSeries
from meltrepro.record.trace import Span
from meltrepro.targets.base import DRAWN

PLATFORM = "energy.psys"
"""Counts what the packages count as well, and more; used where it is alone."""
POWER, ENERGY, CURRENT, VOLTAGE, CHARGE = "W", "J", "A", "V", "C"
MOST_W = 2000.0
"""Where nothing is known of the device: no phone, board or desk machine draws more; a larger value has another unit."""
MOST_A = 500.0
"""The same for a current."""
LEAST_W = 0.01
"""Likewise: no device that computes draws less at its most; a smaller value has another unit."""
RANGE = 1000.0
"""What a device can draw and what it draws at least when it works are no further apart, so that a wrong prefix always shows."""
RAW = "raw"
"""Unit of channels whose unit nobody knows."""
_BATTERY, _SUPPLY = "battery.", "supply."
_OF_SEVERAL = re.compile(r"battery\.(.+)\.(voltage|current|power|charge|stored|level)")
_GAIN = 1e-3
"""Of what a battery holds: if it gains more, it is charged; gauges of charge may waver by less."""
_RAIL, _ASIDE = "rail.", "aside."
RAILS = (_RAIL, _ASIDE)
"""Channels of monitors on a board, those that count and those that do not."""
_LEAST_BATTERY_V, _MOST_BATTERY_V = 2.5, 60.0
"""Of a device's own battery; a meter may watch the mains, or one rail of a chip."""


class Implausible(NoValue):
    """What is shown cannot be in the unit that it is said to be in."""


@dataclass(frozen=True)
class Supply:
    power: SensorSeries | None
    """In watts, never negative for a discharging battery; `None` for a counter."""
    counter: SensorSeries | None
    """In joules, without wraps; `None` for a gauge."""
    current: SensorSeries | None
    """In amperes, never negative for a discharging battery; `None` where only power is shown."""
    drawn: SensorSeries | None = None
    """A counter of the charge that was drawn, in coulombs, without wraps; `None` where there is none."""


def supply_of(recording: Recording, most_w: float | None = None) -> Supply:
    """The best source of a recording of a device that draws `most_w` at most.

    Raises `NoValue` where there is none, `Implausible` where its unit cannot be what it says.
    """
    named = [series for series in recording.series if series.channel.name.startswith(_RAIL)]
    if named:
        return Supply(_plausible(_of_rails(named), most_w), None, None)
    recording = replace(recording, series=tuple(s for s in recording.series if not s.channel.name.startswith(_ASIDE)))
    recording, mixed = _batteries(recording)
    external = _external_supply(recording)
    current, voltage = (_first(recording, unit, "gauge") for unit in (CURRENT, VOLTAGE))
    power, drawn = _rails(recording), _first(recording, CHARGE, "counter")
    if current is not None and current.channel.name == DRAWN and sum(current.values) < 0:
        external = external or "its battery was being charged"
    fed = [source for source in (power, current) if source is not None and external and _of_battery(source)]
    amperes = positive(current) if current is not None and current not in fed else None
    coulombs = _unwrapped(drawn, MOST_A) if drawn else None
    if power is not None and power not in fed:
        return Supply(_plausible(positive(power), most_w), None, amperes, coulombs)
    if counters := _energy_counters(recording):
        return Supply(None, _counted(counters, most_w), amperes, coulombs)
    if amperes is not None and voltage is not None:
        return Supply(_product(amperes, voltage, most_w), None, amperes, coulombs)
    if mixed is not None and not external:
        raise NoValue(mixed)
    if fed or mixed is not None:
        why = f"the device was on external power ({external}), so that its battery does not tell what it draws"
        raise NoValue(why)
    unknown = next((s.channel.name for s in recording.series if s.channel.unit == RAW and s.t_ns), None)
    if unknown is not None:
        why = f"{unknown} is in an unknown unit; calibrate the device by: meltrepro devices probe"
        raise NoValue(why)
    raise NoValue("the device shows neither power, nor an energy counter, nor current and voltage")


def _energy_counters(recording: Recording) -> Sequence[SensorSeries]:
    """Those of the packages; that of the whole platform where it is alone."""
    counters = [s for s in recording.series if s.channel.unit == ENERGY and s.channel.kind == "counter" and s.t_ns]
    return [s for s in counters if s.channel.name != PLATFORM] or counters


def _of_battery(series: SensorSeries) -> bool:
    return series.channel.name.startswith(_BATTERY)


def _external_supply(recording: Recording) -> str | None:
    """What fed the device besides its battery at any time of the recording."""
    supplies = (s for s in recording.series if s.channel.name.startswith(_SUPPLY) and any(s.values))
    return next((s.channel.name for s in supplies), None)


def _first(recording: Recording, unit: str, kind: Kind) -> SensorSeries | None:
    """The first channel of a unit that has samples."""
    of_unit = (s for s in recording.series if s.channel.unit == unit and s.channel.kind == kind and s.t_ns)
    return next(of_unit, None)


def _rails(recording: Recording) -> SensorSeries | None:
    """All that shows power as one, at the times at which every rail was read; raises `NoValue` where none is."""
    rails = [s for s in recording.series if s.channel.unit == POWER and s.channel.kind == "gauge"]
    if len(rails) < 2 or not any(rail.t_ns for rail in rails):
        return _first(recording, POWER, "gauge")
    shown = [dict(zip(rail.t_ns, rail.values, strict=True)) for rail in rails]
    times = tuple(t for t in rails[0].t_ns if all(t in rail for rail in shown))
    name = " + ".join(rail.channel.name for rail in rails)
    if not times:
        raise NoValue(f"there is no time at which all of {name} were read")
    values = tuple(sum(rail[t] for rail in shown) for t in times)
    return SensorSeries(replace(rails[0].channel, name=name), times, values)


def _of_rails(series: Sequence[SensorSeries]) -> SensorSeries:
    """Power of all rails of a board together; raises `NoValue` where one of them shows nothing.

    A sampler reads them one after the other, so that they are brought to common times by straight lines.
    """
    parts: dict[str, dict[str, SensorSeries]] = {}
    for each in series:
        name, _, quantity = each.channel.name.removeprefix(_RAIL).rpartition(".")
        parts.setdefault(name, {})[quantity] = each
    powers = []
    for name, known in parts.items():
        if not all(each.t_ns for each in known.values()):
            raise NoValue(f"the rail {name} was never read")
        powers.append(known["power"] if "power" in known else _multiplied(known["current"], known["voltage"]))
    return _added(powers, "rail." + " + ".join(parts), "sum of rails")


def _added(powers: Sequence[SensorSeries], name: str, source: str) -> SensorSeries:
    """Powers of which each is read at times of its own, by straight lines between them."""
    base = min(powers, key=len)  # a gap of one is a gap of the whole
    values = [sum(_at(power, t) for power in powers) for t in base.t_ns]
    refresh_s = max((power.channel.refresh_s or 0.0 for power in powers), default=0.0) or None
    return SensorSeries(SensorChannel(name, POWER, "gauge", source, refresh_s), base.t_ns, tuple(values))


def _batteries(recording: Recording) -> tuple[Recording, str | None]:
    """The recording with what several batteries give as one power, and why it has none where they do not tell."""
    parts: dict[str, dict[str, SensorSeries]] = {}
    rest = []
    for each in recording.series:
        if found := _OF_SEVERAL.fullmatch(each.channel.name):
            parts.setdefault(found[1], {})[found[2]] = each
        else:
            rest.append(each)
    if not parts:
        return recording, None
    try:
        rest.append(_of_batteries(parts))
    except NoValue as error:
        return replace(recording, series=tuple(rest)), str(error)
    return replace(recording, series=tuple(rest)), None


def _of_batteries(parts: Mapping[str, Mapping[str, SensorSeries]]) -> SensorSeries:
    """Power of all batteries together, of which one may be drained after the other; raises `NoValue`."""
    powers = []
    for name, known in parts.items():
        held = known.get("charge") or known.get("stored")
        if held is not None and len(held) and held.values[-1] - held.values[0] > _GAIN * abs(held.values[0]):
            raise NoValue(f"its battery {name} was being charged by another one")
        power, current, voltage = (known.get(quantity) for quantity in ("power", "current", "voltage"))
        if power is not None and len(power):
            powers.append(power)
        elif current is not None and voltage is not None and len(current) and len(voltage):
            powers.append(_multiplied(current, voltage))
        else:
            raise NoValue(f"its battery {name} shows no power, so that what the others show is not all")
    if len({positive(power).values == power.values for power in powers if any(power.values)}) > 1:
        raise NoValue("one of its batteries was being charged by another one")
    return _added([positive(power) for power in powers], _BATTERY + " + ".join(parts), "sum of batteries")


def energy(supply: Supply, spans: Sequence[Span], limits: SampleLimits, clock_ns: float = 0.0) -> Integral:
    """Energy (J) and power (W) over the spans of a phase, on the samples' clock; raises `NoValue`.

    `clock_ns` is how far phases and samples may be apart on it.
    """
    if supply.power is not None:
        return integrate(supply.power, spans, limits, clock_ns)
    assert supply.counter is not None
    return advance(supply.counter, spans, limits, clock_ns)


def charge(supply: Supply, spans: Sequence[Span], limits: SampleLimits, clock_ns: float = 0.0) -> Integral:
    """Charge (C) and current (A) over the spans of a phase; raises `NoValue`."""
    if supply.current is not None:
        return integrate(supply.current, spans, limits, clock_ns)
    if supply.drawn is not None:
        return advance(supply.drawn, spans, limits, clock_ns)
    raise NoValue("the device shows no current")


def above_idle(phase: Integral, idle: Integral) -> Amount:
    """Energy of a phase beyond what the device draws at rest: E - P(idle) x t."""
    return phase.total.minus(idle.mean.scaled(phase.duration_s))


def _unwrapped(counter: SensorSeries, fastest: float) -> SensorSeries:
    try:
        return counter.unwrapped(fastest)
    except RecordError as error:
        raise NoValue(error.message) from error


def positive(series: SensorSeries) -> SensorSeries:
    """With the sign that most of its values have taken for that of discharging."""
    negative = sum(value < 0 for value in series.values) * 2 > len(series)
    return replace(series, values=tuple(-value for value in series.values)) if negative else series


def _plausible(power: SensorSeries, most_w: float | None) -> SensorSeries:
    _check(power.channel, max(map(abs, power.values)), "at most", most_w)
    return power


def _check(channel: SensorChannel, watts: float, when: str, most_w: float | None, *, least: bool = True) -> None:
    """Raise `Implausible` for a power that no such device has while it computes."""
    least_w, largest_w = (LEAST_W, MOST_W) if most_w is None else (most_w / RANGE, most_w)
    shows = f"{channel.name} shows {watts:.4g} W {when}"
    smaller, larger = _ELSE.get(channel.unit if " x " not in channel.name else CURRENT, _ELSE[POWER])
    if watts > largest_w:
        raise Implausible(
            f"{shows}, more than the {largest_w:g} W that such a device can draw: it is another unit (is the column in "
            f"{smaller}? targets.NAME.max_power_w says otherwise)"
        )
    if least and 0 < watts < least_w:
        raise Implausible(
            f"{shows}, less than the {least_w:g} W of such a device at work: it is another unit (is the column in {larger}? "
            "targets.NAME.max_power_w says otherwise)"
        )


_ELSE = {
    POWER: ("mW or uW", "W or kW"),
    ENERGY: ("mJ, J or mWh", "J, mWh or Wh"),
    CURRENT: ("mA, uA or mV", "A, mA or V"),
}
"""What a column of a unit may be in, where it shows too much or too little."""


def _counted(counters: Sequence[SensorSeries], most_w: float | None) -> SensorSeries:
    """Counters as one, without wraps; raises `NoValue`, `Implausible` where they grow as for no such device."""
    if all(
        series.channel.wraps_at is None for series in counters
    ):  # before each step of a wrong unit looks like a reset
        _check(counters[0].channel, sum(map(_steady_rate, counters)), "in the mean", most_w, least=False)
    joules = _summed([_unwrapped(series, max(most_w or 0.0, MOST_W)) for series in counters])
    if len(joules) > 1:
        rate = (joules.values[-1] - joules.values[0]) / ((joules.t_ns[-1] - joules.t_ns[0]) / 1e9)
        _check(joules.channel, rate, "in the mean", most_w)
    return joules


def _steady_rate(counter: SensorSeries) -> float:
    """Growth a second, without the largest step."""
    steps = [after - before for before, after in pairwise(counter.values)]
    return (sum(steps) - max(steps)) / ((counter.t_ns[-1] - counter.t_ns[0]) / 1e9) if steps else 0.0


def _product(current: SensorSeries, voltage: SensorSeries, most_w: float | None) -> SensorSeries:
    """Their power; raises `Implausible` where the voltage of a battery or the power cannot be what it says."""
    largest = max(voltage.values)
    if voltage.channel.name.startswith(_BATTERY) and not _LEAST_BATTERY_V <= largest <= _MOST_BATTERY_V:
        raise Implausible(
            f"{voltage.channel.name} shows {largest:.4g} V, which no battery has: it is another unit",
        )
    return _plausible(_multiplied(current, voltage), most_w)


def _multiplied(current: SensorSeries, voltage: SensorSeries) -> SensorSeries:
    """Power at the samples of the current; the voltage, which moves little, is that of the latest sample."""
    volts = [voltage.values[max(0, bisect_right(voltage.t_ns, t) - 1)] for t in current.t_ns]
    values = tuple(amperes * volt for amperes, volt in zip(current.values, volts, strict=True))
    refresh = max((c.refresh_s or 0.0 for c in (current.channel, voltage.channel)), default=0.0)
    channel = SensorChannel(
        f"{current.channel.name} x {voltage.channel.name}", POWER, "gauge", "current x voltage", refresh or None
    )
    return SensorSeries(channel, current.t_ns, values)


def _summed(counters: Sequence[SensorSeries]) -> SensorSeries:
    """Counters of several packages as one, at the times of the first; the others are interpolated."""
    first, *others = counters
    values = [value + sum(_at(other, t) for other in others) for t, value in zip(first.t_ns, first.values, strict=True)]
    return replace(first, values=tuple(values))


def _at(counter: SensorSeries, t: int) -> float:
    """The value at a time, on a straight line between two samples."""
    i = min(max(bisect_right(counter.t_ns, t) - 1, 0), len(counter) - 1)
    if i == len(counter) - 1:
        return counter.values[i]
    share = (t - counter.t_ns[i]) / (counter.t_ns[i + 1] - counter.t_ns[i])
    return counter.values[i] + min(max(share, 0.0), 1.0) * (counter.values[i + 1] - counter.values[i])
