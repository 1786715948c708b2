"""Bounds of integrals: each of their parts is needed, and all of them together still say something."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.measure.integrals import Integral, NoValue, SampleLimits, advance, integrate
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
