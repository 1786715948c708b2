"""Heat, clocks and waiting from samples whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from meltrepro.measure.metrics import Metrics, compute
from meltrepro.record.events import parse_trace
from meltrepro.record.samples import Header, Recording
from meltrepro.record.series import Kind, SensorChannel, SensorSeries
from meltrepro.record.trace import Trace
from tests.support.campaigns import Trial, as_lines, events

TRACE: Trace = parse_trace(as_lines(events(Trial())))
FIRST_NS, LAST_NS = TRACE.turns[0].begin_ns, TRACE.turns[-1].end_ns
STEP_NS = 10_000_000


def series(
    name: str,
    value: Callable[[int], float],
    *,
    kind: Kind = "gauge",
    wraps_at: float | None = None,
    begin_ns: int = FIRST_NS - 30 * STEP_NS,
) -> SensorSeries:
    """Samples every 10 ms from before the first turn until after the last; `value` is a function of time."""
    times = tuple(range(begin_ns, LAST_NS + 10 * STEP_NS, STEP_NS))
    return SensorSeries(SensorChannel(name, "1", kind, name, None, wraps_at), times, tuple(map(value, times)))


def measure(*channels: SensorSeries, cpu_s: float | None = None, end_ns: int | None = None) -> Metrics:
    header = Header("test", 100.0, tuple(each.channel for each in channels), None)
    return compute(TRACE, Recording(header, tuple(channels), (), end_ns, cpu_s, torn=False))


def test_the_hottest_sensor_before_and_during_the_work() -> None:
    warm = series("temperature.a", lambda t: 40.0 if t < FIRST_NS else 60.0)
    hot_before = series("temperature.b", lambda t: 90.0 if t < FIRST_NS - STEP_NS else 30.0)
    values = measure(warm, hot_before).values
    assert (values["temperature_start_c"], values["temperature_max_c"]) == (90.0, 60.0)


def _rising(t: int) -> float:
    return 38.0 + 3.5 * (t - FIRST_NS) / (LAST_NS - FIRST_NS) if t > FIRST_NS else 38.0


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("temperature.thermal_zone4:PMIC-Die", 100.0),
        ("temperature.thermal_zone1:mtkts_bts1", 125.0),
        ("temperature.thermal_zone2:stuck", 77.25),
        ("temperature.thermal_zone2:power-on", 85.0),
        ("temperature.thermal_zone3:vbat", 4200.0),
        ("temperature.thermal_zone7:bcl", 2147483.647),
        ("temperature.hwmon2:nct6775:AUXTIN3", 115.0),
    ],
)
def test_a_zone_that_never_moves_is_not_the_hottest(name: str, shown: float) -> None:
    real = series("temperature.thermal_zone0:cpu", _rising)
    values = measure(series(name, lambda _: shown), real).values
    assert values["temperature_max_c"] == pytest.approx(41.5, abs=0.1)
    assert values["temperature_start_c"] == 38.0


@pytest.mark.parametrize("shown", [-273.0, -127.0, 0.0, 0.041, 125.0, 2147483.6])
def test_what_a_zone_shows_while_it_is_off_is_left_out(shown: float) -> None:
    flickering = series("temperature.modem", lambda t: 33.0 if t // STEP_NS % 2 else shown)
    values = measure(flickering, series("temperature.cpu", _rising)).values
    assert values["temperature_max_c"] == pytest.approx(41.5, abs=0.1)


def test_zones_that_never_move_count_where_none_does() -> None:
    still = [series("temperature.a", lambda _: 31.0), series("temperature.b", lambda _: 42.0)]
    assert measure(*still).values["temperature_max_c"] == 42.0
    metrics = measure(series("temperature.x:PMIC-Die", lambda _: 100.0))
    assert metrics.unavailable["temperature_max_c"] == "the device has no temperature to sample"


def test_a_sensor_that_was_first_read_later_says_nothing_of_the_start() -> None:
    metrics = measure(series("temperature.a", lambda _: 50.0, begin_ns=FIRST_NS + STEP_NS))
    assert metrics.unavailable["temperature_start_c"] == "no temperature was read before the first turn"
    assert metrics.values["temperature_max_c"] == 50.0


def test_clocks_are_averaged_over_cpus_while_turns_are_held() -> None:
    slow = series("frequency.cpu0", lambda t: 4e8 if t < FIRST_NS else 1e9)
    fast = series("frequency.cpu1", lambda t: 4e8 if t < FIRST_NS else 2e9)
    assert measure(slow, fast).values["frequency_mean_mhz"] == pytest.approx(1500, rel=0.05)


def test_what_a_hypervisor_takes_is_a_share_of_all_cpu_time() -> None:
    def grows(share: float) -> Callable[[int], float]:
        return lambda t: share * t / 1e9

    cpu = {"user": 1.6, "system": 0.1, "idle": 0.2, "steal": 0.1}
    found = [series(f"cpu.{name}", grows(share), kind="counter") for name, share in cpu.items()]
    assert measure(*found).values["cpu_steal_share"] == pytest.approx(0.05)
    assert "hypervisor" in measure(*found[:-1]).unavailable["cpu_steal_share"]
    assert "cpu_steal_share" in measure(series("temperature.a", lambda _: 50.0)).unavailable


def test_counters_count_what_was_added_and_survive_a_wrap() -> None:
    steps = series("throttled.cpu0", lambda t: 5.0 + (t >= FIRST_NS), kind="counter")
    wrapping = series("throttled.cpu1", lambda t: 3.0 if t < FIRST_NS else 1.0, kind="counter", wraps_at=4.0)
    assert measure(steps, wrapping).values["throttle_events"] == 1 + 2


def test_a_counter_that_falls_has_a_reason_instead() -> None:
    metrics = measure(series("throttled.cpu0", lambda t: 5.0 - (t >= FIRST_NS), kind="counter"))
    assert "the counter fell" in metrics.unavailable["throttle_events"]


def test_pressure_is_a_share_of_the_time() -> None:
    metrics = measure(series("pressure.cpu", lambda t: 100 + 0.25 * t / 1e9, kind="counter"))
    assert metrics.values["cpu_pressure_share"] == pytest.approx(0.25)
    assert metrics.unavailable["memory_pressure_share"] == "the device has no pressure.memory to sample"


def test_overhead_needs_an_end() -> None:
    one = series("memory.available", lambda _: 1.0)
    span_s = 2.0
    ended = measure(one, cpu_s=0.01, end_ns=one.t_ns[0] + round(span_s * 1e9))
    assert ended.values["sampler_overhead_share"] == pytest.approx(0.005)
    assert measure(one).unavailable["sampler_overhead_share"] == "the sampler was not stopped in order"


def names(metrics: Metrics) -> Sequence[str]:
    return [name for name, reason in metrics.unavailable.items() if reason == "nothing was sampled"]


def test_without_samples_there_is_a_reason_for_each() -> None:
    assert {"temperature_max_c", "throttle_events", "sampler_overhead_share"} <= set(names(compute(TRACE)))
    nothing = compute(replace(TRACE, conversations=()))
    assert nothing.unavailable["temperature_max_c"] == "nothing was sampled"
