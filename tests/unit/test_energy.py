"""Energy, charge and mean power of virtual traces: within 1 % of the truth, or within the stated bound."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltrepro.measure.clocks import ClockMap, ClockProbe, fit
from meltrepro.measure.energy import Supply, above_idle, charge, energy, supply_of
from meltrepro.measure.integrals import Amount, Integral, NoValue, SampleLimits
from meltrepro.record.samples import Header, Recording
from meltrepro.record.series import SensorChannel, SensorSeries
from tests.support.examples import examples
from tests.support.power import Power, S, sampled, span, steps

LIMITS = SampleLimits(gap_s=1.0)


def recorded(*series: SensorSeries) -> Recording:
    header = Header("virtual", 10.0, tuple(each.channel for each in series), None)
    return Recording(header, series, (), None, None, torn=False)


def gauge(power: Power, seconds: float, rate_hz: float, **how: float) -> Supply:
    return supply_of(recorded(sampled(power, seconds, rate_hz, **how)))  # type: ignore[arg-type]


def check(found: Amount, truth: float) -> None:
    """Within 1 % of the truth, or within the stated bound."""
    assert abs(found.value - truth) <= max(0.01 * abs(truth), found.bound * (1 + 1e-6), 1e-9), (found, truth)


levels = st.lists(st.tuples(st.floats(0.5, 8), st.floats(0.1, 15)), min_size=3, max_size=8)
how = st.fixed_dictionaries(
    {
        "jitter": st.sampled_from([0.0, 0.3, 0.9]),
        "dropped": st.sampled_from([0.0, 0.02, 0.1]),
        "seed": st.integers(0, 999),
    }
)


@settings(max_examples=examples(200), deadline=None)
@given(levels, st.sampled_from([10.0, 50.0, 200.0]), how, st.data())
def test_steps(held: list[tuple[float, float]], rate_hz: float, how: dict[str, float], data: st.DataObject) -> None:
    power, seconds = steps(held), sum(duration for duration, _ in held)
    begin = data.draw(st.floats(0.1, seconds * 0.4))
    end = data.draw(st.floats(begin + seconds * 0.3, seconds - 0.2))
    found = energy(gauge(power, seconds, rate_hz, **how), [span(begin, end)], LIMITS)
    check(found.total, power.energy(begin, end))
    check(found.mean, power.energy(begin, end) / (end - begin))
    assert found.peak <= max(watts for _, watts in held) * (1 + 1e-9)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 5), st.floats(0.02, 20)), min_size=2, max_size=8), how)
def test_ramps(corners: list[tuple[float, float]], how: dict[str, float]) -> None:
    t, placed = 0.0, []
    for seconds, watts in corners:
        placed.append((t, watts))
        t += seconds
    power = Power(tuple(placed))
    end = placed[-1][0]
    found = energy(gauge(power, end + 0.2, 20.0, **how), [span(0.1 * end, 0.9 * end)], LIMITS)
    check(found.total, power.energy(0.1 * end, 0.9 * end))


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(0, 999), st.sampled_from([25.0, 100.0, 500.0]))
def test_bursts_of_100_ms(seed: int, rate_hz: float) -> None:
    """As tokens are: 100 ms at 8 W, then a pause of chance at 1 W."""
    chance = random.Random(seed)
    held = [part for _ in range(60) for part in ((0.1, 8.0), (chance.uniform(0.05, 0.3), 1.0))]
    power, seconds = steps(held), sum(duration for duration, _ in held)
    found = energy(gauge(power, seconds, rate_hz, seed=seed, jitter=0.3), [span(1, seconds - 1)], LIMITS)
    check(found.total, power.energy(1, seconds - 1))


@settings(max_examples=examples(100), deadline=None)
@given(levels, st.integers(0, 999), st.floats(-5, 5), st.floats(-100e-6, 100e-6))
def test_a_meter_on_a_clock_of_its_own(
    held: list[tuple[float, float]], seed: int, offset_s: float, drift: float
) -> None:
    """Seconds of offset and 100 ppm of drift; the clocks are compared over a link of a few milliseconds."""
    power, seconds = steps(held), sum(duration for duration, _ in held)
    here = sampled(power, seconds, 100.0, seed=seed, jitter=0.3)

    def there(t_ns: float) -> int:
        return round((t_ns / S * (1 + drift) + offset_s + 10) * S)

    chance = random.Random(seed)

    def probes(at_s: float) -> list[ClockProbe]:
        found = []
        for i in range(8):
            sent = round((at_s + i * 0.01) * S)
            out, back = (round(chance.uniform(0.0005, 0.004) * S) for _ in range(2))
            found.append(ClockProbe(sent, there(sent + out), sent + out + back))
        return found

    clock: ClockMap = fit(probes(0), probes(seconds))
    mapped = replace(here, t_ns=tuple(clock.here(there(t)) for t in here.t_ns))
    begin, end = 0.2 * seconds, 0.8 * seconds
    bound_ns = clock.widest_ns(round(begin * S), round(end * S))
    found = energy(supply_of(recorded(mapped)), [span(begin, end)], LIMITS, bound_ns)
    check(found.total, power.energy(begin, end))
    assert bound_ns < 5e6


@settings(max_examples=examples(100), deadline=None)
@given(levels, how, st.sampled_from([None, 10_000.0]))
def test_a_counter_that_may_wrap(
    held: list[tuple[float, float]], how: dict[str, float], wraps_at: float | None
) -> None:
    power, seconds = steps(held), sum(duration for duration, _ in held)
    times = sampled(power, seconds, 10.0, **how).t_ns  # type: ignore[arg-type]
    total = [9_990 + power.energy(0, t / S) for t in times]
    channel = SensorChannel("energy.package-0", "J", "counter", "rapl", None, wraps_at)
    counter = SensorSeries(channel, times, tuple(joules % wraps_at if wraps_at else joules for joules in total))
    found = energy(supply_of(recorded(counter)), [span(0.2 * seconds, 0.8 * seconds)], LIMITS)
    truth = power.energy(0.2 * seconds, 0.8 * seconds)
    if wraps_at is None or max(after - before for before, after in pairwise(total)) < wraps_at:
        check(found.total, truth)


def test_charge_and_power_from_a_battery_with_either_sign() -> None:
    """2 A at 4 V for 10 s between two rests of 0.1 A: MELT's pieces, charge apart from energy."""
    amperes = sampled(
        steps([(5, 0.1), (10, 2.0), (5, 0.1)]), 20, 50.0, channel=SensorChannel("i", "A", "gauge", "x", None)
    )
    volts = sampled(steps([(20, 4.0)]), 20, 1.0, channel=SensorChannel("u", "V", "gauge", "x", None))
    for current in (amperes, replace(amperes, values=tuple(-value for value in amperes.values))):
        supply = supply_of(recorded(current, volts))
        work, idle = [span(5, 15)], [span(0, 4)]
        found, rest = energy(supply, work, LIMITS), energy(supply, idle, LIMITS)
        assert found.total.value == pytest.approx(80, rel=0.01)
        assert found.mean.value == pytest.approx(8, rel=0.01)
        assert found.peak == pytest.approx(8)
        assert rest.mean.value == pytest.approx(0.4)
        assert charge(supply, work, LIMITS).total.value == pytest.approx(20, rel=0.01)
        net = above_idle(found, rest)
        check(net, 80 - 4)


def of(name: str, unit: str, *values: float) -> SensorSeries:
    return SensorSeries(SensorChannel(name, unit, "gauge", "x", None), tuple(i * S for i in range(len(values))), values)


CURRENT, VOLTAGE = of("battery.current", "A", 1, 1, 1), of("battery.voltage", "V", 4, 4, 4)
PLUGGED, UNPLUGGED = of("supply.usb", "1", 0, 0, 1), of("supply.usb", "1", 0, 0, 0)


def source(*series: SensorSeries) -> str:
    supply = supply_of(recorded(*series))
    shown = supply.power or supply.counter
    assert shown is not None
    return shown.channel.name


def test_a_battery_tells_nothing_while_something_else_feeds_the_device() -> None:
    assert source(CURRENT, VOLTAGE, UNPLUGGED) == "battery.current x battery.voltage"
    for battery in ((CURRENT, VOLTAGE), (of("battery.power", "W", 4, 4, 4),)):
        with pytest.raises(NoValue, match=r"was on external power \(supply.usb\)"):
            supply_of(recorded(*battery, PLUGGED))
    package = SensorSeries(
        SensorChannel("energy.package-0", "J", "counter", "x", None), (0, S, 2 * S), (0.0, 5.0, 10.0)
    )
    assert source(CURRENT, VOLTAGE, PLUGGED, package) == "energy.package-0", "a laptop at its desk"
    meter = of("meter.power", "W", 4, 4, 4)
    assert source(meter, PLUGGED) == "meter.power"


def test_a_calibrated_battery_that_is_charged_draws_nothing() -> None:
    drawn = of("battery.drawn", "A", 1, 1, 1)
    assert source(drawn, VOLTAGE) == "battery.drawn x battery.voltage"
    with pytest.raises(NoValue, match="being charged"):
        supply_of(recorded(replace(drawn, values=(-1.0, -1.0, 0.2)), VOLTAGE))


def test_a_current_in_an_unknown_unit_is_no_current() -> None:
    with pytest.raises(NoValue, match=r"battery\.current is in an unknown unit.*meltrepro devices probe"):
        supply_of(recorded(of("battery.current", "raw", -432, -431), of("battery.voltage", "raw", 3900, 3900)))


def test_several_spans_of_a_phase_add_up() -> None:
    power = steps([(1, 1.0), (2, 5.0), (1, 1.0), (3, 5.0), (1, 1.0)])
    supply = gauge(power, 8, 100.0)
    both = energy(supply, [span(1, 3), span(4, 7)], LIMITS)
    check(both.total, 25)
    assert both.duration_s == pytest.approx(5)


@pytest.mark.parametrize(
    ("series", "text"),
    [
        (
            SensorSeries(SensorChannel("p", "W", "gauge", "x", None), (0, S, 2 * S), (3000.0,) * 3),
            "3000 W",
        ),
        (
            SensorSeries(SensorChannel("c", "degC", "gauge", "x", None), (0, S), (1.0, 1.0)),
            "shows neither power",
        ),
    ],
)
def test_no_source(series: SensorSeries, text: str) -> None:
    with pytest.raises(NoValue, match=text):
        supply_of(recorded(series))


def test_the_platforms_counter_holds_that_of_its_packages() -> None:
    times = tuple(i * S for i in range(11))
    series = [
        SensorSeries(
            SensorChannel(f"energy.{name}", "J", "counter", "rapl", None, None),
            times,
            tuple(watts * i for i in range(11)),
        )
        for name, watts in (("package-0", 10.0), ("package-1", 5.0), ("psys", 25.0))
    ]
    found = energy(supply_of(recorded(*series)), [span(2, 8)], LIMITS)
    assert found.total.value == pytest.approx(6 * 15), "two packages, and not the platform once more"
    assert found.peak == pytest.approx(15)
    assert energy(supply_of(recorded(series[2])), [span(2, 8)], LIMITS).total.value == pytest.approx(6 * 25)


def test_a_counter_that_was_reset() -> None:
    channel = SensorChannel("energy.package-0", "J", "counter", "rapl", None, None)
    with pytest.raises(NoValue, match="the counter fell"):
        supply_of(recorded(SensorSeries(channel, (0, S, 2 * S), (5.0, 6.0, 1.0))))


def test_a_unit_that_is_off_by_a_thousand() -> None:
    """Millivolts that are called volts."""
    current = sampled(steps([(5, 1.0)]), 5, 10.0, channel=SensorChannel("i", "A", "gauge", "x", None))
    volts = sampled(steps([(5, 4000.0)]), 5, 10.0, channel=SensorChannel("battery.voltage", "V", "gauge", "x", None))
    with pytest.raises(NoValue, match="4000 V, which no battery has"):
        supply_of(recorded(current, volts))


def integral(limits: SampleLimits = LIMITS, clock_ns: float = 0.0, *, drop: tuple[float, float] = (0, 0)) -> Integral:
    series = sampled(steps([(10, 5.0)]), 10, 10.0)
    kept = [i for i, t in enumerate(series.t_ns) if not drop[0] < t / S < drop[1]]
    thinned = replace(series, t_ns=tuple(series.t_ns[i] for i in kept), values=tuple(series.values[i] for i in kept))
    return energy(supply_of(recorded(thinned)), [span(2, 8)], limits, clock_ns)


def test_what_makes_a_figure_unavailable() -> None:
    assert integral().total.value == pytest.approx(30)
    calls: tuple[tuple[Callable[[], Integral], str], ...] = (
        (lambda: integral(drop=(3, 6)), "s of a phase of 6 s have no samples"),
        (lambda: integral(clock_ns=0.5 * S), "the clocks may disagree by 500 ms"),
        (lambda: integral(drop=(1, 9)), "0 samples in a phase of 6 s"),
        (lambda: energy(gauge(steps([(10, 5.0)]), 10, 10.0), [span(5, 12)], LIMITS), "do not cover the phase"),
        (lambda: energy(gauge(steps([(10, 5.0)]), 10, 10.0), [span(5, 5)], LIMITS), "the phase took no time"),
    )
    for call, why in calls:
        with pytest.raises(NoValue, match=why):
            call()


def rail(name: str, unit: str, values: list[float], *, later_ns: int = 0, every_s: float = 0.1) -> SensorSeries:
    times = tuple(round(i * every_s * S) + later_ns for i in range(len(values)))
    return SensorSeries(SensorChannel(name, unit, "gauge", "", every_s), times, tuple(values))


def test_rails_of_a_board_add_up_as_they_are_named() -> None:
    """Two rails of 5 V with 1 A and 2 A, one that shows power; what stands aside would be another 100 W."""
    many = 101
    series = (
        *(rail("aside.VDD_IN.voltage", "V", [20.0] * many), rail("aside.VDD_IN.current", "A", [5.0] * many)),
        *(rail("rail.A.voltage", "V", [5.0] * many), rail("rail.A.current", "A", [1.0] * many, later_ns=900_000)),
        *(
            rail("rail.B.voltage", "V", [5.0] * many, later_ns=10**6),
            rail("rail.B.current", "A", [2.0] * many, later_ns=2 * 10**6),
        ),
        rail("rail.C.power", "W", [4.0] * many, later_ns=3 * 10**6),
    )
    supply = supply_of(recorded(*series))
    assert supply.power is not None
    assert supply.power.channel.name == "rail.A + B + C"
    found = energy(supply, [span(1, 9)], LIMITS)
    check(found.total, 8 * (5 + 10 + 4))
    assert supply.current is None, "currents of different voltages have no sum"


def test_rails_that_change_are_brought_to_common_times() -> None:
    many = 101
    ramp = [i * 0.1 for i in range(many)]
    late_ns = 50_000_000
    series = (
        *(rail("rail.A.voltage", "V", [10.0] * many), rail("rail.A.current", "A", ramp)),
        rail("rail.B.voltage", "V", [10.0] * many),
        rail("rail.B.current", "A", [value + 0.05 for value in ramp], later_ns=late_ns),
    )
    found = energy(supply_of(recorded(*series)), [span(2, 8)], LIMITS)
    check(found.total, 2 * 10 * (8**2 - 2**2) / 2)


def test_a_gap_of_one_rail_is_a_gap_of_the_whole() -> None:
    whole = rail("rail.A.power", "W", [4.0] * 101)
    gappy = SensorSeries(
        replace(whole.channel, name="rail.B.power"),
        whole.t_ns[:30] + whole.t_ns[60:],
        whole.values[:30] + whole.values[60:],
    )
    with pytest.raises(NoValue, match="have no samples"):
        energy(supply_of(recorded(whole, gappy)), [span(1, 9)], LIMITS)


def test_a_rail_that_was_never_read_is_missed() -> None:
    with pytest.raises(NoValue, match="B was never read"):
        supply_of(recorded(rail("rail.A.power", "W", [4.0] * 9), rail("rail.B.power", "W", [])))


def test_rails_aside_are_no_supply() -> None:
    with pytest.raises(NoValue, match="neither power"):
        supply_of(recorded(rail("aside.A.power", "W", [4.0] * 9)))
