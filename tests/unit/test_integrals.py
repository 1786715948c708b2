"""Bounds of integrals: each of their parts is needed, and all of them together still say something."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.measure.integrals import Amount, Integral, NoValue, SampleLimits, advance, gaps_in, integrate
from meltrepro.record.series import SensorChannel, SensorSeries
from meltrepro.record.trace import Span
from tests.support.power import Power, S, sampled, span, steps

SECONDS = 30.0
seeds = st.integers(0, 2**32)
levels = st.lists(st.tuples(st.floats(1.2, 6), st.floats(1, 15)), min_size=2, max_size=8)
"""None shorter than a source's time between two values: what no value shows cannot be known."""


def spans_in(chance: random.Random, n: int, begin: float = 2.0, end: float = 26.0) -> list[Span]:
    """Spans in order, none of less than 0.5 s."""
    while True:
        edges = sorted(chance.uniform(begin, end) for _ in range(2 * n))
        pairs = list(zip(edges[::2], edges[1::2], strict=True))
        if all(b - a > 0.5 for a, b in pairs):
            return [span(a, b) for a, b in pairs]


def true(power: Power, spans: list[Span]) -> float:
    return sum(power.energy(each.begin_ns / S, each.end_ns / S) for each in spans)


def right(found: Integral, truth: float) -> bool:
    assert found.total.bound >= 0
    assert found.mean.value == pytest.approx(found.total.value / found.duration_s)
    return abs(found.total.value - truth) <= max(found.total.bound * (1 + 1e-6), 0.01 * abs(truth))


def limits(rate_hz: float) -> SampleLimits:
    return SampleLimits(gap_s=4 / rate_hz, gap_share=0.5)


def aged(series: SensorSeries, power: Power, refresh_s: float, first_s: float) -> SensorSeries:
    """As a source shows it that takes a new value every `refresh_s` seconds."""
    taken = (first_s + (t / S - first_s) // refresh_s * refresh_s for t in series.t_ns)
    channel = replace(series.channel, refresh_s=refresh_s)
    return SensorSeries(channel, series.t_ns, tuple(power.at(max(t, 0.0)) for t in taken))


@given(levels, st.floats(0.1, 1.0), seeds, st.integers(1, 4))
def test_values_that_are_old_when_they_are_read(
    held: list[tuple[float, float]], refresh_s: float, seed: int, n: int
) -> None:
    chance, power = random.Random(seed), steps([*held, (SECONDS, held[-1][1])])
    series = aged(sampled(power, SECONDS, 20.0, seed=seed, jitter=0.5), power, refresh_s, chance.random() * refresh_s)
    spans = spans_in(chance, n)
    assert right(integrate(series, spans, limits(20)), true(power, spans))


@pytest.mark.parametrize(
    ("rate_hz", "per_second", "noise"), [(1.0, 2.0, 0.0), (2.0, 1.0, 0.0), (5.0, 4.0, 0.0), (10.0, 1.0, 1.0)]
)
def test_bursts_between_samples_and_noise_average_out(rate_hz: float, per_second: float, noise: float) -> None:
    """A minute of bursts of 100 ms that are mostly missed: three standard deviations are enough."""
    correct = 0
    for seed in range(150):
        chance, held, t = random.Random(seed), list[tuple[float, float]](), 0.0
        while t < 70:
            pause = 0.001 + chance.expovariate(per_second)
            held += [(pause, 2.0), (0.1, 7.0)]
            t += pause + 0.1
        power, spans = steps(held), [span(5, 65)]
        series = sampled(power, 70, rate_hz, seed=seed, jitter=0.9, noise=noise)
        correct += right(integrate(series, spans, limits(rate_hz)), true(power, spans))
    assert correct >= 147


@pytest.mark.parametrize(("rate_hz", "widest"), [(1000.0, 0.001), (100.0, 0.01), (10.0, 0.1), (1.0, 0.6)])
def test_the_bound_of_work_between_two_rests(rate_hz: float, widest: float) -> None:
    power = steps([(10, 2.0), (10, 8.0), (10, 2.0)])
    found = integrate(sampled(power, SECONDS, rate_hz, jitter=0.5), [span(10, 20)], limits(rate_hz))
    assert abs(found.total.value - 80) <= found.total.bound < widest * 80


def test_constant_power_is_known_exactly_and_noise_averages_out() -> None:
    power = steps([(SECONDS, 8.0)])
    slow = aged(sampled(power, SECONDS, 4.0, jitter=0.5), power, 1.0, 0.3)
    found = integrate(slow, [span(10, 20)], limits(4))
    assert found.total.value == pytest.approx(80)
    assert found.total.bound < 1e-9
    noisy = integrate(sampled(power, SECONDS, 1000.0, noise=0.5), [span(10, 20)], limits(1000))
    assert abs(noisy.total.value - 80) <= noisy.total.bound < 0.2


@pytest.mark.parametrize("offset_s", [-0.05, 0.05])
def test_the_clocks_error_is_in_the_bound(offset_s: float) -> None:
    """Work begins with the phase, and the meter's clock is 50 ms behind or ahead."""
    series = sampled(steps([(10, 2.0), (20, 10.0)]), SECONDS, 1000.0)
    shifted = SensorSeries(series.channel, tuple(t + round((offset_s + 1) * S) for t in series.t_ns), series.values)
    found = integrate(shifted, [span(11, 21)], limits(1000), clock_ns=0.05 * S)
    assert offset_s < 0 or abs(found.total.value - 100) > 0.3
    assert abs(found.total.value - 100) <= found.total.bound < 2.5


def test_what_happened_in_a_gap_is_in_the_bound() -> None:
    """A second without samples, in which the device rested unseen."""
    whole = sampled(steps([(5, 2.0), (5, 8.0), (1, 2.0), (9, 8.0)]), 20, 10.0)
    kept = [i for i, t in enumerate(whole.t_ns) if not 9.95 < t / S < 11.05]
    series = SensorSeries(whole.channel, tuple(whole.t_ns[i] for i in kept), tuple(whole.values[i] for i in kept))
    found = integrate(series, [span(5, 19)], SampleLimits(gap_s=0.3))
    assert found.gap_s == pytest.approx(1.2, abs=0.01)
    assert abs(found.total.value - 106) == pytest.approx(6, abs=0.5)
    assert abs(found.total.value - 106) <= found.total.bound < 9


@given(levels, st.sampled_from([1.0, 10.0]), st.floats(0, 0.9), seeds, st.integers(1, 3), st.sampled_from([None, 0.5]))
def test_counters_need_no_assumption(
    held: list[tuple[float, float]], rate_hz: float, jitter: float, seed: int, n: int, refresh_s: float | None
) -> None:
    """Read at any rate, with samples lost, counting in steps of 1 mJ, twice a second or all the time."""
    chance, power = random.Random(seed), steps([*held, (SECONDS, held[-1][1])])
    spans = spans_in(chance, n)
    times = sampled(power, SECONDS, rate_hz, seed=seed, jitter=jitter, dropped=0.1).t_ns
    seen = [t / S if refresh_s is None else t / S // refresh_s * refresh_s for t in times]
    values = tuple(power.energy(0, t) // 1e-3 * 1e-3 for t in seen)
    series = SensorSeries(SensorChannel("energy", "J", "counter", "virtual", refresh_s), times, values)
    try:
        found = advance(series, spans, limits(rate_hz))
    except NoValue as error:
        assert "samples" in str(error)
        return
    assert abs(found.total.value - true(power, spans)) <= found.total.bound + 2 * n * 1e-3
    longest = max(after - before for before, after in pairwise(times)) / S
    assert found.total.bound <= 2 * n * 15 * (2 * longest + 2 * (refresh_s or 0))


def test_a_counter_that_stands_still_counts_in_steps() -> None:
    """A charge counter in steps of 3.6 C (1 mAh), read each second at 1 A."""
    times = tuple(i * S for i in range(101))
    series = SensorSeries(
        SensorChannel("charge", "C", "counter", "x", None), times, tuple(i // 3.6 * 3.6 for i in range(101))
    )
    found = advance(series, [span(10, 90)], SampleLimits(gap_s=2.0))
    assert abs(found.total.value - 80) <= found.total.bound <= 16


def test_a_counter_must_cover_the_phase() -> None:
    series = SensorSeries(
        SensorChannel("energy", "J", "counter", "x", 1.5), tuple(i * S for i in range(10)), tuple(range(10))
    )
    assert advance(series, [span(1, 7)], SampleLimits(gap_s=2.0)).total.value == pytest.approx(6)
    for begin, end in ((1, 8), (1, 12)):  # what was counted at 8 s may be shown only after 9 s
        with pytest.raises(NoValue, match="do not cover the phase"):
            advance(series, [span(begin, end)], SampleLimits(gap_s=2.0))


def gauge(values: list[float], times: list[float] | None = None, refresh_s: float | None = None) -> SensorSeries:
    seconds = range(len(values)) if times is None else times
    channel = SensorChannel("power", "W", "gauge", "virtual", refresh_s)
    return SensorSeries(channel, tuple(round(t * S) for t in seconds), tuple(values))


WIDE = SampleLimits(gap_s=2, gap_share=0.9, clock_share=0.5)
RAMP, SWING = [float(i) for i in range(11)], [float(i % 2) for i in range(11)]


@pytest.mark.parametrize(
    ("series", "begin", "end", "clock_s", "total", "bound"),
    [
        # The edges are interpolated. Three steps: 2, 0 and 4 W, of which half, all and half are covered.
        (gauge([2, 4, 4, 8]), 0.5, 2.5, 0.0, 8.25, 3 * math.sqrt((4 / 2 + 16 / 2) / 2)),
        # Edges that are 0.1 s further out add 0.91 J, further in they take 0.89 J.
        (gauge([2, 4, 4, 8]), 0.5, 2.5, 0.1, 8.25, 0.91 + 3 * math.sqrt((4 / 2 + 16 / 2) / 2)),
        (gauge([8, 4, 4, 8]), 0.5, 2.5, 0.1, 9.0, 1.24 + 3 * math.sqrt((16 / 2 + 16 / 2) / 2)),
        # A curve with its highest point within: further in takes more than further out adds.
        (gauge([0, 4, 4, 0]), 0.5, 2.5, 0.1, 7.0, 0.44 + 3 * math.sqrt((16 / 2 + 16 / 2) / 2)),
        # Values that are up to half a second old.
        (gauge([2, 4, 4, 8], refresh_s=0.5), 0.5, 2.5, 0.0, 8.25, 3 * math.sqrt((4 + 16) * (1 / 2 + 0.25) / 2)),
        # Seven steps cannot tell a curve from noise; of eight that rise, each is off by half a step at most.
        (gauge(RAMP[:8]), 0.0, 7.0, 0.0, 24.5, 3 * math.sqrt(7 / 2)),
        (gauge(RAMP[:9]), 0.0, 8.0, 0.0, 32.0, 8 / 2),
        (gauge(RAMP), 0.0, 10.0, 0.0, 50.0, 10 / 2),
        (gauge(RAMP, refresh_s=1.0), 0.0, 9.0, 0.0, 40.5, 3 * math.sqrt((9 * 2 + 1) / 2)),
        (gauge(SWING), 0.0, 10.0, 0.0, 5.0, 3 * math.sqrt(10 / 2)),
        # Nobody looked from 2 to 5 s, when it may have been anything from 2 to 6 W.
        (gauge([2, 2, 4, 4, 6], [0, 1, 2, 5, 6]), 0.5, 5.5, 0.0, 18.25, 3 * 4 + 3 * math.sqrt((4 + 4 / 2) / 2)),
        (gauge([5] * 12), 0.5, 10.5, 0.0, 50.0, 0.0),
    ],
)
def test_integrals_by_hand(
    series: SensorSeries, begin: float, end: float, clock_s: float, total: float, bound: float
) -> None:
    found = integrate(series, [span(begin, end)], WIDE, clock_s * S)
    assert (found.total.value, found.total.bound) == pytest.approx((total, bound))
    assert (found.mean.value, found.mean.bound) == pytest.approx((total / (end - begin), bound / (end - begin)))
    assert found.duration_s == pytest.approx(end - begin)


def test_samples_peak_and_gaps_of_a_phase() -> None:
    found = integrate(gauge([9, 4, 5, 3, 8]), [span(0.5, 1.5), span(2, 3)], WIDE)
    assert (found.samples, found.peak, found.gap_s, found.duration_s) == (3, 5, 0, 2), "the edges belong to no peak"
    found = integrate(gauge([2, 2, 4, 4, 6], [0, 1, 2, 5, 6]), [span(0.5, 5.5)], WIDE)
    assert found.samples == 3
    assert found.gap_s == pytest.approx(3)
    found = integrate(gauge([2, 2, 4, 8, 6]), [span(0, 2), span(2.5, 2.75)], WIDE)
    assert (found.samples, found.peak) == (3, 7), "a span between two samples"
    assert found.gap_s == pytest.approx(0.25)


def test_gaps_lie_between_two_samples_and_within_the_span() -> None:
    times = [0, S, 3 * S, 7 * S, 8 * S]
    assert gaps_in(times, span(0, 8), 1.5) == [span(1, 3), span(3, 7)]
    assert gaps_in(times, span(2, 4), 1.5) == [span(2, 3), span(3, 4)]
    assert gaps_in(times, span(0, 8), 2.0) == [span(3, 7)], "as long as is allowed is none"
    assert gaps_in(times, span(7, 9), 0.5) == [span(7, 8)]


def test_a_counter_by_hand() -> None:
    """It stood still once, so it counts in steps of 2 J: that much more may have gone by at each of two edges."""
    series = SensorSeries(
        SensorChannel("energy", "J", "counter", "x", None), tuple(i * S for i in range(5)), (0.0, 2.0, 4.0, 4.0, 7.0)
    )
    found = advance(series, [span(0.5, 3.5)], WIDE)
    assert (found.total.value, found.total.bound) == pytest.approx((4.5, 2 * 2 + 1 + 1.5))
    assert (found.mean.value, found.mean.bound) == pytest.approx((1.5, 6.5 / 3))
    assert (found.peak, found.samples, found.gap_s, found.duration_s) == (3, 3, 0, 3)
    late = advance(series, [span(1, 3)], WIDE, 0.25 * S)
    assert (late.total.value, late.total.bound) == pytest.approx((2, 2 * 2 + 2 + 3)), "the clocks may disagree"


@pytest.mark.parametrize(
    ("series", "spans", "limits", "clock_ns", "message"),
    [
        (gauge([1, 2, 3]), [], WIDE, 0, "the phase took no time"),
        (gauge([1, 2, 3]), [span(1, 1)], WIDE, 0, "the phase took no time"),
        (gauge([1]), [span(0, 1)], WIDE, 0, "power has 1 sample"),
        (gauge([]), [span(0, 1)], WIDE, 0, "power has 0 samples"),
        (gauge([1, 2, 3]), [span(1, 2.5)], WIDE, 0, "the samples of power do not cover the phase"),
        (gauge([1, 2], [1, 3]), [span(0.5, 2.5)], WIDE, 0, "the samples of power do not cover the phase"),
        (gauge([1, 2, 3]), [span(0.5, 1.5)], WIDE, 0, "1 samples in a phase of 1 s"),
        (gauge([1, 2, 3, 4], [0, 1, 4, 5]), [span(0, 5)], SampleLimits(2), 0, "3 s of a phase of 5 s have no samples"),
        (
            gauge(RAMP),
            [span(1, 2), span(3, 4)],
            SampleLimits(2),
            0.03 * S,
            "the clocks may disagree by 30 ms at each edge of 2 spans of together 2000 ms",
        ),
    ],
)
def test_why_there_is_no_figure(
    series: SensorSeries, spans: list[Span], limits: SampleLimits, clock_ns: float, message: str
) -> None:
    with pytest.raises(NoValue) as caught:
        integrate(series, spans, limits, clock_ns)
    assert str(caught.value) == message


def test_limits_are_reached_before_they_are_passed() -> None:
    two = SampleLimits(gap_s=2, gap_share=0.5, clock_share=0.1, fewest=2)
    assert integrate(gauge([1, 2, 3]), [span(0, 1)], two, 0.05 * S).samples == 2
    assert integrate(gauge([1, 2, 3, 4], [0, 1, 4, 6]), [span(0, 6)], two).gap_s == 3
    with pytest.raises(NoValue, match="clocks may disagree"):
        integrate(gauge([1, 2, 3]), [span(0, 1)], two, 0.051 * S)


def test_amounts() -> None:
    assert Amount(3.0, 0.5).scaled(-2) == Amount(-6.0, 1.0)
    assert Amount(3.0, 0.5).minus(Amount(1.0, 0.25)) == Amount(2.0, 0.75)
