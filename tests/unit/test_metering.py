"""Energy by external meters whose clocks differ from the device's: the truth lies within the stated bound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltrepro.manifest.meters import Meter
from meltrepro.manifest.protocol import Limits
from meltrepro.measure import energy, metric
from meltrepro.measure.integrals import SampleLimits, integrate
from meltrepro.measure.meterfile import read_meter
from meltrepro.measure.metering import Metered, jump_s, on_device_clock
from meltrepro.measure.metrics import Metrics, compute
from meltrepro.measure.validity import Reason, judge_trial
from meltrepro.record.samples import FaultKind, Header, Recording, SensorFault
from meltrepro.record.series import SensorChannel, SensorSeries
from meltrepro.record.trace import Span, Trace
from meltrepro.record.trial import ClockReadings
from tests.support.examples import examples
from tests.support.meters import (
    GENERATION_W,
    IDLE_W,
    PREFILL_W,
    Clock,
    marked_trace,
    rows,
    write_csv,
)

TRACE = marked_trace()
TRUTH = {
    "prefill_energy_j": 2 * 2 * PREFILL_W,
    "generation_energy_j": 2 * 3 * GENERATION_W,
    "energy_per_token_j": 2 * 3 * GENERATION_W / 60,
}
S = 10**9


def recorded(
    clock_name: str,
    clock: Clock,
    period_ns: int = 10_000_000,
    trace: Trace = TRACE,
    bound_s: float = 0,
    lead_s: float = 3,
    tail_s: float = 2,
) -> Recording:
    samples = rows(trace, clock, period_ns, round(lead_s * S), round(tail_s * S))
    channel = SensorChannel("meter.power", "W", "gauge", "test", None)
    series = SensorSeries(channel, tuple(t for t, _ in samples), tuple(w for _, w in samples))
    header = Header("meter", 1e9 / period_ns, (channel,), None, clock_name, bound_s)
    return Recording(header, (series,), (), samples[-1][0], None, torn=False)


def right(metrics: Metrics, within: float = 0.01) -> None:
    for name, truth in TRUTH.items():
        off = abs(metrics.values[name] - truth)
        assert off <= max(within * truth, metrics.bounds[name]), name
        assert off <= metrics.bounds[name] + 1e-3 * truth, f"{name} is outside of its bound"


@settings(max_examples=examples(20))
@given(
    st.integers(0, 10**13),
    st.floats(-100e-6, 100e-6),
    st.sampled_from([1_000_000, 5_000_000, 20_000_000]),
)
def test_a_clock_of_its_own_is_found_by_the_marks(offset_ns: int, drift: float, period_ns: int) -> None:
    clock = Clock(offset_ns, drift)
    metered = on_device_clock(recorded("own", clock, period_ns), TRACE, None)
    assert metered.problem is None
    assert metered.recording is not None
    places = [metered.recording.series[0].t_ns[i] for i in (0, 500, -1)]
    truth = [t for t, _ in rows(TRACE, Clock(), period_ns)]
    for place, expected in zip(places, (truth[0], truth[500], truth[-1]), strict=True):
        assert abs(place - expected) <= metered.bound_ns(min(place, expected), max(place, expected))
    right(compute(TRACE, metered=metered))


@pytest.mark.parametrize("tail_s", [5, 20, 25, 30, 60])
def test_a_recording_that_goes_on_for_as_long_as_the_trial_took(tail_s: float) -> None:
    """The second mark could be the first by itself; none follows it."""
    clock = Clock(5 * S, 100e-6)
    metered = on_device_clock(recorded("own", clock, lead_s=tail_s, tail_s=tail_s), TRACE, None)
    assert metered.problem is None
    right(compute(TRACE, metered=metered))


@pytest.mark.parametrize(("lead_s", "tail_s"), [(-15, 2), (-21, 2), (3, -6), (3, -1.5)])
def test_a_recording_that_begins_or_ends_too_close_to_a_mark(lead_s: float, tail_s: float) -> None:
    metered = on_device_clock(recorded("own", Clock(5 * S), lead_s=lead_s, tail_s=tail_s), TRACE, None)
    assert metered.problem is not None
    assert "; record from before the first mark until after the last one" in metered.problem


def readings(wall: Clock, device: Clock, *, jump_ns: int = 0, suspended_ns: int = 0) -> ClockReadings:
    """Comparisons around the trial, by a host whose clock runs as the trial's device does but for `device`."""

    def ask(clock: Clock, at_ns: int, moved_ns: int) -> list[tuple[int, int, int]]:
        return [(t, clock.there(t + 200) + moved_ns, t + 1000) for t in range(at_ns, at_ns + 8000, 1000)]

    begin, end = TRACE.hello.t_ns + S, TRACE.done_ns + S
    return ClockReadings(
        device_before=ask(device, begin, 0),
        device_after=ask(device, end, -suspended_ns),
        wall_before=ask(wall, begin, 0),
        wall_after=ask(wall, end, jump_ns),
    )


@pytest.mark.slow
@given(st.integers(10**18, 2 * 10**18), st.floats(-100e-6, 100e-6))
def test_the_hosts_wall_clock(offset_ns: int, drift: float) -> None:
    wall = Clock(offset_ns, drift)
    metered = on_device_clock(recorded("host", wall), TRACE, readings(wall, Clock()))
    right(compute(TRACE, metered=metered))
    assert metered.bound_ns(TRACE.hello.t_ns, TRACE.done_ns) < 5000


def test_a_host_clock_that_may_be_off_widens_the_bound() -> None:
    wall = Clock(10**18)
    off = Clock(10**18 + 25_000_000)
    metered = on_device_clock(recorded("host", off, bound_s=0.03), TRACE, readings(wall, Clock()))
    assert metered.bound_ns(TRACE.hello.t_ns, TRACE.done_ns) > 30_000_000
    metrics = compute(TRACE, metered=metered)
    for name, truth in TRUTH.items():
        assert abs(metrics.values[name] - truth) <= metrics.bounds[name]
    verdict = judge_trial(TRACE, metrics, None, Limits(bound=0.01), metered)
    assert Reason.uncertain in [finding.reason for finding in verdict.findings]


def test_faults_and_the_end_are_on_the_devices_clock_too() -> None:
    wall, device = Clock(10**18), Clock(77 * S)
    meter = recorded("host", wall)
    fault = SensorFault(meter.series[0].t_ns[3], 0, FaultKind.not_a_number, "x")
    found = on_device_clock(replace(meter, faults=(fault,)), TRACE, readings(wall, device)).recording
    assert found is not None
    assert found.faults[0].t_ns == found.series[0].t_ns[3]
    assert found.end_ns == found.series[0].t_ns[-1]


@pytest.mark.parametrize("clock_name", ["device", "host", "own"])
def test_a_moment_of_the_device_on_the_meters_clock(clock_name: str) -> None:
    """However far from the trial's other samples it lies: clocks drift apart."""
    clock = Clock() if clock_name == "device" else Clock(10**15, 100e-6)
    metered = on_device_clock(recorded(clock_name, clock), TRACE, readings(clock, Clock()))
    for t_ns in (TRACE.hello.t_ns, TRACE.done_ns):
        assert abs(metered.own_ns(t_ns) - clock.there(t_ns)) <= metered.bound_ns(t_ns, t_ns)


def test_the_devices_own_clock() -> None:
    metered = on_device_clock(recorded("device", Clock()), TRACE, None)
    right(compute(TRACE, metered=metered))


def test_idle_power_is_that_before_the_runner_and_after_the_sampler_began() -> None:
    metered = on_device_clock(recorded("device", Clock()), TRACE, None)
    memory = SensorChannel("memory.available", "B", "gauge", "test", None)
    begin = TRACE.hello.t_ns - 2_500_000_000
    sampler = Recording(
        Header("x", 1.0, (memory,), None),
        (SensorSeries(memory, (begin, begin + S), (1.0, 1.0)),),
        (),
        None,
        None,
        torn=False,
    )
    metrics = compute(TRACE, sampler, metered)
    assert metrics.values["idle_power_w"] == pytest.approx(IDLE_W)
    assert metrics.values["generation_net_energy_j"] == pytest.approx(2 * 3 * (GENERATION_W - IDLE_W), rel=0.01)


def test_a_meter_shows_the_device_at_rest_without_a_sampler() -> None:
    metered = on_device_clock(recorded("device", Clock()), TRACE, None)
    assert compute(TRACE, metered=metered).values["idle_power_w"] == pytest.approx(IDLE_W)


@pytest.mark.parametrize(
    ("trace", "meter", "why"),
    [
        (replace(TRACE, pulses=()), recorded("own", Clock()), "the runner made no sync mark"),
        (TRACE, recorded("own", Clock(), trace=replace(TRACE, pulses=())), "the sync mark is not in the trace"),
        (TRACE, recorded("own", Clock(), period_ns=400_000_000), "the shortest pulse"),
        (TRACE, recorded("host", Clock(10**18)), "were not compared"),
    ],
)
def test_without_a_place_in_time_there_is_no_energy_and_the_trial_is_invalid(
    trace: Trace, meter: Recording, why: str
) -> None:
    metered = on_device_clock(meter, trace, None)
    assert metered.problem is not None and why in metered.problem
    metrics = compute(trace, metered=metered)
    assert why in metrics.unavailable["generation_energy_j"]
    verdict = judge_trial(trace, metrics, None, Limits(), metered)
    assert [finding.reason for finding in verdict.findings] == [Reason.clock_unknown]


def test_clocks_that_jump_and_devices_that_sleep() -> None:
    wall = Clock(10**18, 50e-6)
    assert jump_s(readings(wall, Clock(0, -50e-6))) <= 0.001
    for odd in (readings(wall, Clock(), jump_ns=2 * S), readings(wall, Clock(), suspended_ns=3 * S)):
        assert jump_s(odd) == pytest.approx(2.5, abs=0.6)
        verdict = judge_trial(TRACE, compute(TRACE), None, Limits(), None, jump_s(odd))
        (finding,) = verdict.findings
        assert finding.reason is Reason.clock_jumped
        assert "one was set, or the device was suspended" in finding.detail
        metered = on_device_clock(recorded("host", wall), TRACE, odd)
        assert metered.problem is not None and "moved apart" in metered.problem
    assert judge_trial(TRACE, compute(TRACE), None, Limits(clock_jump_s=None), None, 9.0).valid


def test_a_battery_gauge_and_a_meter_the_meter_counts() -> None:
    battery = SensorChannel("battery.power", "W", "gauge", "x", 1.0)
    times = tuple(range(TRACE.hello.t_ns, TRACE.done_ns, S))
    own = Recording(
        Header("x", 1.0, (battery,), None),
        (SensorSeries(battery, times, (50.0,) * len(times)),),
        (),
        None,
        None,
        torn=False,
    )
    right(compute(TRACE, own, on_device_clock(recorded("device", Clock()), TRACE, None)))
    lost = Metered(None, problem="of a reason")
    assert "of a reason" in compute(TRACE, own, lost).unavailable["generation_energy_j"]


def test_a_file_as_a_meter_writes_it(tmp_path: Path) -> None:
    write_csv(tmp_path / "m.csv", rows(TRACE, Clock(77 * S, 80e-6), 1_000_000))
    meter = Meter(file="m.csv", time="Time (s)", columns={"Power (mW)": "mW"})
    metered = on_device_clock(read_meter(tmp_path / "m.csv", meter), TRACE, None)
    right(compute(TRACE, metered=metered))


def test_what_shows_power_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long recording of a fast meter takes seconds each time."""
    supplies: list[energy.Supply] = []

    def supply_of(recording: Recording, most_w: float | None = None) -> energy.Supply:
        supplies.append(energy.supply_of(recording))
        return supplies[-1]

    monkeypatch.setattr(metric, "supply_of", supply_of)
    compute(TRACE, metered=on_device_clock(recorded("device", Clock()), TRACE, None))
    (supply,) = supplies
    assert supply.power is not None
    assert supply.power.running is supply.power.running
    assert supply.power.running[-1] == pytest.approx(
        integrate(supply.power, [Span(supply.power.t_ns[0], supply.power.t_ns[-1])], SampleLimits(1.0)).total.value
    )


def test_the_rails_of_a_meter_add_up() -> None:
    """Only where all were read: elsewhere samples are missing."""
    whole = recorded("device", Clock())
    channels = tuple(SensorChannel(f"meter.power.{i}", "W", "gauge", "test", None) for i in range(2))
    samples = whole.series[0]
    rails = tuple(
        SensorSeries(channel, samples.t_ns, tuple(share * w for w in samples.values))
        for channel, share in zip(channels, (0.3, 0.7), strict=True)
    )
    meter = replace(whole, header=replace(whole.header, channels=channels), series=rails)
    right(compute(TRACE, metered=on_device_clock(meter, TRACE, None)))
    begin_ns, end_ns = TRACE.turns[0].begin_ns, TRACE.turns[-1].end_ns
    kept = [(t, w) for t, w in zip(rails[1].t_ns, rails[1].values, strict=True) if not begin_ns < t < end_ns]
    torn = SensorSeries(channels[1], tuple(t for t, _ in kept), tuple(w for _, w in kept))
    metrics = compute(TRACE, metered=on_device_clock(replace(meter, series=(rails[0], torn)), TRACE, None))
    assert "samples" in metrics.unavailable["generation_energy_j"]
    none = SensorSeries(channels[1], (), ())
    metrics = compute(TRACE, metered=on_device_clock(replace(meter, series=(rails[0], none)), TRACE, None))
    assert "no time at which all of meter.power.0 + meter.power.1 were read" in metrics.unavailable["load_energy_j"]


@pytest.mark.parametrize("volts", [230.0, 12.0, 1.1])
def test_any_voltage_of_a_meter_is_believed(volts: float) -> None:
    whole = recorded("device", Clock())
    samples = whole.series[0]
    current, voltage = (
        SensorChannel("meter.current", "A", "gauge", "x", None),
        SensorChannel("meter.voltage", "V", "gauge", "x", None),
    )
    series = (
        SensorSeries(current, samples.t_ns, tuple(w / volts for w in samples.values)),
        SensorSeries(voltage, samples.t_ns, (volts,) * len(samples)),
    )
    meter = replace(whole, header=replace(whole.header, channels=(current, voltage)), series=series)
    right(compute(TRACE, metered=on_device_clock(meter, TRACE, None)))


@pytest.mark.parametrize("sign", [1, -1])
def test_current_alone_still_shows_the_marks(sign: int) -> None:
    samples = rows(TRACE, Clock(5 * S), 1_000_000)
    channel = SensorChannel("meter.current", "A", "gauge", "test", None)
    series = SensorSeries(channel, tuple(t for t, _ in samples), tuple(sign * w / 4 for _, w in samples))
    meter = Recording(Header("meter", 1000.0, (channel,), None, "own"), (series,), (), None, None, torn=False)
    metered = on_device_clock(meter, TRACE, None)
    assert metered.problem is None
    assert "neither power" in compute(TRACE, metered=metered).unavailable["generation_energy_j"]
