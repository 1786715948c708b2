"""How the device was while it worked: heat, clocks, waiting, and what sampling itself cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from meltrepro.measure.integrals import NoValue
from meltrepro.measure.metric import Facts, Metric
from meltrepro.record import temperature
from meltrepro.record.series import SensorSeries

_FREQUENCY, _THROTTLED = "frequency.", "throttled."


def _thermometers(facts: Facts) -> Sequence[SensorSeries]:
    found = temperature.sampled(facts.recorded)
    if not found:
        raise NoValue("the device has no temperature to sample")
    return found


def _temperatures(facts: Facts) -> list[float]:
    """Every reading of any sensor while turns were held."""
    readings = [value for series in _thermometers(facts) for value in facts.during_turns(series)]
    if not readings:
        raise NoValue("no temperature was read while turns were held")
    return readings


def _temperature_start(facts: Facts) -> float:
    firsts = [series.values[0] for series in _thermometers(facts) if series.t_ns[0] <= facts.work_ns.begin_ns]
    if not firsts:
        raise NoValue("no temperature was read before the first turn")
    return max(firsts)


def _frequency(facts: Facts) -> float:
    readings = [value for series in facts.sampled(_FREQUENCY) for value in facts.during_turns(series)]
    if not readings:
        raise NoValue("no clock was read while turns were held")
    return fmean(readings) / 1e6


def _throttled(facts: Facts) -> float:
    return sum(_grown(facts, series) for series in facts.sampled(_THROTTLED))


def _pressure(name: str) -> Callable[[Facts], float]:
    """Part of the time of work in which something waited, by a counter of such time."""

    def compute(facts: Facts) -> float:
        (series,) = facts.sampled(name)
        span_s = (series.t_ns[-1] - series.t_ns[0]) / 1e9
        if span_s <= 0:
            raise NoValue(f"{name} was read only once")
        return min(1.0, _grown(facts, series) / span_s)

    return compute


def _stolen(facts: Facts) -> float:
    grown = {series.channel.name: _grown(facts, series) for series in facts.sampled("cpu.")}
    if "cpu.steal" not in grown:
        raise NoValue("the kernel does not tell what a hypervisor takes")
    total = sum(grown.values())
    if total <= 0:
        raise NoValue("cpu.steal was read only once")
    return grown["cpu.steal"] / total


def _grown(facts: Facts, series: SensorSeries) -> float:
    """By how much a counter has grown over the whole recording."""
    values = facts.unwrapped(series).values
    return values[-1] - values[0]


def _overhead(facts: Facts) -> float:
    recording = facts.recorded
    times = [t for series in recording.series for t in (*series.t_ns[:1], *series.t_ns[-1:])]
    if recording.cpu_s is None or recording.end_ns is None or not times:
        raise NoValue("the sampler was not stopped in order")
    return recording.cpu_s / ((recording.end_ns - min(times)) / 1e9)


def _metric(
    name: str, unit: str, meaning: str, formula: str, source: str, compute: Callable[[Facts], float], unless: str
) -> Metric:
    return Metric(
        name=name,
        unit=unit,
        phase="device",
        better="lower" if name != "frequency_mean_mhz" else None,
        meaning=meaning,
        formula=formula,
        source=source,
        invalid_when=unless,
        compute=compute,
    )


def _cached_share(facts: Facts) -> float:
    share = facts.trace.load.cached_share
    if share is None:
        raise NoValue("the runner does not say what the page cache held")
    return share


DEVICE = (
    _metric(
        "temperature_start_c",
        "degC",
        "the hottest sensor before the work",
        "largest first reading of any sensor that moves in the trial, at or before the first turn_begin",
        "samples temperature.*",
        _temperature_start,
        "no sensor was read before the first turn",
    ),
    _metric(
        "temperature_max_c",
        "degC",
        "the hottest sensor while turns were held",
        "largest reading of any sensor that moves in the trial, between the first turn_begin and the last turn_end",
        "samples temperature.*",
        lambda facts: max(_temperatures(facts)),
        "no sensor was read meanwhile",
    ),
    _metric(
        "frequency_mean_mhz",
        "MHz",
        "mean clock of the CPUs while turns were held",
        "mean over CPUs and readings between the first turn_begin and the last turn_end",
        "samples frequency.*",
        _frequency,
        "the kernel shows no clock, or none was read meanwhile",
    ),
    _metric(
        "throttle_events",
        "1",
        "how often a CPU was slowed down because of heat",
        "sum over CPUs of the last value of the kernel's counter minus the first",
        "samples throttled.*",
        _throttled,
        "the kernel does not count it",
    ),
    _metric(
        "cpu_pressure_share",
        "share",
        "part of the time in which some task waited for a CPU: other work on the device",
        "last value of the kernel's counter (PSI, some) minus the first / time between the two",
        "samples pressure.cpu",
        _pressure("pressure.cpu"),
        "the kernel has no PSI",
    ),
    _metric(
        "cpu_steal_share",
        "share",
        "part of the CPUs' time that a hypervisor gave to others",
        "last value of the kernel's counter of stolen time minus the first / the same of all its counters of CPU time",
        "samples cpu.*",
        _stolen,
        "the kernel does not show it",
    ),
    _metric(
        "memory_pressure_share",
        "share",
        "part of the time in which some task waited for memory",
        "last value of the kernel's counter (PSI, some) minus the first / time between the two",
        "samples pressure.memory",
        _pressure("pressure.memory"),
        "the kernel has no PSI",
    ),
    _metric(
        "sampler_overhead_share",
        "share",
        "CPU time of the sampler, of one core",
        "cpu_s / time from the first sample to the end",
        "samples, their last line",
        _overhead,
        "the sampler died, or nothing was sampled",
    ),
    Metric(
        name="cached_share",
        unit="share",
        phase="device",
        better=None,
        meaning="part of the model's files that lay in the page cache when loading began",
        formula="256 pages of each file are touched: 1 - those that had to be fetched / all, weighed by the files' sizes",
        source="load_begin",
        invalid_when="the runner does not say",
        compute=_cached_share,
    ),
)
