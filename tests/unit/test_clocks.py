"""Clocks: the truth lies within the stated bound, whatever the offset, the drift and the round trips."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import RecordError
from meltrepro.measure.alignment import align
from meltrepro.measure.clocks import ClockProbe, best_anchor, fit, join
from meltrepro.record.series import SensorChannel, SensorSeries
from meltrepro.record.trace import Span

SECOND = 1_000_000_000
POWER = SensorChannel("meter.power", "W", "gauge", "meter", 0.0002)

offsets = st.integers(-(10**13), 10**13)
drifts = st.floats(-100e-6, 100e-6)
seeds = st.integers(0, 2**32)


def _probes(at_ns: int, offset_ns: int, drift: float, rng: random.Random, n: int = 8) -> list[ClockProbe]:
    """Probes whose two ways take different, random times."""
    probes = []
    for i in range(n):
        sent = at_ns + i * 10_000_000
        out, back = rng.randrange(100, 5_000_000), rng.randrange(100, 5_000_000)
        read = sent + out
        probes.append(ClockProbe(sent, read + offset_ns + round(read * drift), read + back))
    return probes


@given(offsets, drifts, seeds, st.integers(60, 7200))
def test_the_truth_lies_within_the_bound(offset: int, drift: float, seed: int, seconds: int) -> None:
    rng = random.Random(seed)
    begin, end = 10 * SECOND, (10 + seconds) * SECOND
    clock = fit(_probes(begin, offset, drift, rng), _probes(end, offset, drift, rng))
    for _ in range(20):
        t = rng.randrange(0, end + 100 * SECOND)
        truth = t + offset + round(t * drift)
        assert abs(clock.there(t) - truth) <= clock.bound_ns(t) + 2
        assert abs(clock.here(truth) - t) <= clock.bound_ns(t) * 1.001 + 2
        assert abs(clock.here(clock.there(t)) - t) <= 2
    assert abs(clock.drift - drift) <= clock.drift_bound + 1e-12
    assert clock.bound_ns((begin + end) // 2) < 5_100_000
    assert clock.widest_ns(begin, end) >= clock.bound_ns((begin + end) // 2)


@given(offsets, drifts, seeds)
def test_without_a_second_comparison_the_bound_grows_with_time(offset: int, drift: float, seed: int) -> None:
    rng = random.Random(seed)
    clock = fit(_probes(SECOND, offset, drift, rng))
    for seconds in (0, 1, 60, 3600):
        t = seconds * SECOND
        assert abs(clock.there(t) - (t + offset + round(t * drift))) <= clock.bound_ns(t) + 2
    assert clock.bound_ns(3600 * SECOND) > 1.7 * SECOND


def test_the_shortest_round_trip_is_taken() -> None:
    probes = [
        ClockProbe(0, 22_000_000, 400_000),
        ClockProbe(1_000_000, 6_000_100, 1_000_200),
        ClockProbe(2_000_000, 9, 3_000_000),
    ]
    anchor = best_anchor(probes)
    assert (anchor.here_ns, anchor.there_ns) == (1_000_100, 6_000_100)
    assert 100 <= anchor.bound_ns < 101.1
    assert best_anchor(probes, resolution_ns=1000).bound_ns == pytest.approx(anchor.bound_ns + 1000)


def test_clocks_that_cannot_be_believed() -> None:
    with pytest.raises(RecordError, match="no probe"):
        fit([])
    with pytest.raises(RecordError, match="before it was sent"):
        ClockProbe(10, 5, 9)
    with pytest.raises(RecordError, match="not before"):
        fit([ClockProbe(10, 5, 12)], [ClockProbe(0, 5, 1)])
    with pytest.raises(RecordError, match="moved apart") as caught:
        fit([ClockProbe(0, 0, 100)], [ClockProbe(60 * SECOND, 61 * SECOND, 60 * SECOND + 100)])
    assert caught.value.hint is not None
    assert "suspended" in caught.value.hint


# -- a meter without a link ---------------------------------------------------------------------------------------

PULSES = tuple(Span(round(b * SECOND), round(e * SECOND)) for b, e in ((20, 20.7), (21.1, 21.4), (22.3, 23.5)))


def _meter(offset_ns: int, rate_hz: float, rng: random.Random, noise: float, drift: float = 0.0) -> SensorSeries:
    """Idle at 2 W, 9 W in a pulse; half a minute of other load after the mark."""
    times, values = [], []
    t = 5.0 + rng.random() / rate_hz
    while t < 60:
        busy = any(p.begin_ns <= t * 1e9 < p.end_ns for p in PULSES) or (t > 30 and int(t * 1.7) % 3 == 0)
        times.append(round(t * 1e9 * (1 + drift)) + offset_ns)
        values.append((9.0 if busy else 2.0) + rng.gauss(0, noise))
        t += (1 + rng.uniform(-0.3, 0.3)) / rate_hz
    return SensorSeries(POWER, tuple(times), tuple(values))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("rate_hz", "noise"), [(1000, 0.1), (100, 1.5), (100, 0.0), (20, 0.3)])
def test_the_sync_mark_is_found_within_its_bound(seed: int, rate_hz: float, noise: float) -> None:
    rng = random.Random(seed)
    offset = rng.randrange(-(10**13), 10**13)
    drift = rng.uniform(-100e-6, 100e-6)
    found = align(_meter(offset, rate_hz, rng, noise, drift), PULSES)
    middle = found.anchor.here_ns
    truth = middle + round(middle * drift) + offset
    assert abs(found.anchor.there_ns - truth) <= found.anchor.bound_ns
    assert found.anchor.bound_ns < 4e9 / rate_hz + 2e6
    assert found.correlation > 0.85
    assert found.correlation - max(found.second, 0.0) > 0.2


def test_the_search_can_be_narrowed() -> None:
    trace = _meter(7 * SECOND, 100, random.Random(3), 0.5)
    near = align(trace, PULSES, around_ns=6 * SECOND, search_s=3, rise_s=0.05)
    assert abs(near.anchor.offset_ns - 7 * SECOND) <= near.anchor.bound_ns
    assert near.anchor.bound_ns > 50_000_000
    with pytest.raises(RecordError, match="not in the trace"):
        align(trace, PULSES, around_ns=-3 * SECOND, search_s=2)


def test_a_mark_before_and_after_gives_the_drift() -> None:
    rng = random.Random(5)
    later = tuple(Span(p.begin_ns + 600 * SECOND, p.end_ns + 600 * SECOND) for p in PULSES)
    drift, offset = 80e-6, 3 * SECOND
    first = align(_meter(offset, 500, rng, 0.3, drift), PULSES).anchor
    base = _meter(0, 500, rng, 0.3)
    shifted = tuple(round((t + 600 * SECOND) * (1 + drift)) + offset for t in base.t_ns)
    last = align(SensorSeries(POWER, shifted, base.values), later).anchor
    clock = join(first, last)
    assert abs(clock.drift - drift) <= clock.drift_bound
    for t in (20 * SECOND, 300 * SECOND, 620 * SECOND):
        assert abs(clock.there(t) - (t + offset + round(t * drift))) <= clock.bound_ns(t)


def test_marks_that_cannot_be_found() -> None:
    rng = random.Random(1)
    times = tuple(range(0, 60 * SECOND, 10_000_000))
    noise = SensorSeries(POWER, times, tuple(rng.gauss(2, 0.2) for _ in times))
    with pytest.raises(RecordError, match="not in the trace"):
        align(noise, PULSES)
    with pytest.raises(RecordError, match="not in the trace"):
        align(SensorSeries(POWER, times, (3.0,) * len(times)), PULSES)
    square = SensorSeries(POWER, times, tuple(5.0 if t // SECOND % 2 else 1.0 for t in times))
    with pytest.raises(RecordError, match="two places"):
        align(square, [Span(20 * SECOND, 21 * SECOND)])
    with pytest.raises(RecordError, match="shorter than the sync mark"):
        align(SensorSeries(POWER, times[:100], noise.values[:100]), PULSES)
    with pytest.raises(RecordError, match="at least two samples|apart"):
        align(SensorSeries(POWER, times[::20], noise.values[::20]), PULSES)
    with pytest.raises(RecordError, match="follow one another"):
        align(noise, [PULSES[1], PULSES[0]])
    with pytest.raises(RecordError, match="fewer than three"):
        align(SensorSeries(POWER, (0, 1), (1.0, 2.0)), PULSES)
