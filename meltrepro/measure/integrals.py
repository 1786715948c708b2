"""Integral, mean and peak of a sampled quantity over a phase, with a bound on how wrong they are.

Integral: composite trapezoidal rule over the samples, with the value at a phase's edges interpolated linearly between
the two samples around it (Davis and Rabinowitz 1984, Methods of Numerical Integration, section 2.1). A phase may be
several spans (every prefill of a trial); their integrals add up.

The bound is the sum of these parts, each in the unit of the integral:
- clock: samples and phases come from two clocks that disagree by up to d. The integral is a difference of the curve F
  at two edges, so the worst shifts are those that move both edges outwards or inwards.
- sampling: if the quantity only rises or only falls from sample i to i+1, the trapezoid is wrong by at most
  |x[i+1] - x[i]| * dt / 2; for the last part u of an interval, |x[i+1] - x[i]| * dt * u * (1 - u/2). These add up. Noise
  and bursts faster than the samples break that assumption and average out instead: of independent samples the sum has
  the variance (1/2) sum (x[i+1] - x[i])^2 dt^2 (mean square successive difference), of which three standard deviations
  are taken. Which of the two holds, von Neumann's ratio (1941) tells: the mean square successive difference over the
  variance is 2 for independent samples and near 0 for a curve that the samples follow.
- age: a source with a new value every r seconds shows one that is up to r old, or a mean over r. Over the phase and r
  beyond, the integral of |x(t) - x(t + r)| is at most r * sum |x[i+1] - x[i]|; for noise, r takes the place of dt above.
- gaps: where samples are missing, the quantity may have been anywhere in the range seen around the phase. Spans too
  short for a sample of their own: likewise.

A load that repeats in step with the sampling, or bursts so rare that no sample met one, cannot be seen in the samples,
and no bound covers them; a faster source or a counter does.

Counters need no such assumption: they never fall, so at an edge the true count lies between the readings around it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from meltrepro.record.series import SensorSeries
from meltrepro.record.trace import Span
from meltrepro.words import counted


class NoValue(Exception):
    """A figure or a metric cannot be had; the text says why."""


@dataclass(frozen=True)
class SampleLimits:
    """What is asked of the samples of a phase."""

    gap_s: float
    """A longer time between two samples is a gap."""
    gap_share: float = 0.1
    """The largest part of a phase that gaps, or spans without a sample, may make up."""
    clock_share: float = 0.05
    """The largest part of a phase by which clock errors may move its edges, all edges together."""
    fewest: int = 2
    """Samples within the phase."""


@dataclass(frozen=True)
class Amount:
    """A figure and how far from it the truth may be, in the same unit."""

    value: float
    bound: float

    def scaled(self, factor: float) -> Amount:
        return Amount(self.value * factor, self.bound * abs(factor))

    def minus(self, other: Amount) -> Amount:
        return Amount(self.value - other.value, self.bound + other.bound)


@dataclass(frozen=True)
class Integral:
    """A quantity over one phase."""

    total: Amount
    """Unit of the quantity times seconds."""
    mean: Amount
    peak: float
    """The largest value at a sample; between samples it may have been higher."""
    duration_s: float
    samples: int
    gap_s: float
    """Time of the phase that lies in gaps or in spans without a sample."""


def integrate(series: SensorSeries, spans: Sequence[Span], limits: SampleLimits, clock_ns: float = 0.0) -> Integral:
    """Integral of a gauge over the spans of a phase, which are on the series' clock; raises `NoValue`.

    `clock_ns` is how far the two clocks may disagree during the phase (0 where they are one).
    """
    duration_s = check_spans(spans, limits, clock_ns)
    if len(series) < 2:
        raise NoValue(f"{series.channel.name} has {counted(len(series), 'sample')}")
    curve = _Curve(series)
    for span in spans:
        if not series.t_ns[0] <= span.begin_ns <= span.end_ns <= series.t_ns[-1]:
            raise NoValue(f"the samples of {series.channel.name} do not cover the phase")
    parts = [_Part(curve, span, limits) for span in spans if span.end_ns > span.begin_ns]
    samples = sum(part.samples for part in parts)
    if samples < limits.fewest:
        raise NoValue(f"{samples} samples in a phase of {duration_s:.3g} s")
    gap_s = sum(part.missing_s for part in parts)
    if gap_s > limits.gap_share * duration_s:
        raise NoValue(f"{gap_s:.3g} s of a phase of {duration_s:.3g} s have no samples")
    reach = range(max(0, parts[0].first - 2), min(len(series), parts[-1].last + 3))
    spread = max(series.values[i] for i in reach) - min(series.values[i] for i in reach)
    total = sum(part.total for part in parts)
    age_s = series.channel.refresh_s or 0.0
    bound = sum(part.shift(clock_ns / 1e9) for part in parts) + gap_s * spread + _sampling(parts, limits.gap_s, age_s)
    return Integral(
        total=Amount(total, bound),
        mean=Amount(total / duration_s, bound / duration_s),
        peak=max(part.peak for part in parts),
        duration_s=duration_s,
        samples=samples,
        gap_s=gap_s,
    )


def advance(series: SensorSeries, spans: Sequence[Span], limits: SampleLimits, clock_ns: float = 0.0) -> Integral:
    """How far a counter moved over the spans of a phase, as the integral of its rate; raises `NoValue`.

    The series never falls: a counter that wraps was unwrapped. A pause in its samples is no gap: what it counted
    meanwhile is in the next reading.
    """
    duration_s = check_spans(spans, limits, clock_ns)
    early_ns = math.ceil(clock_ns)
    late_ns = early_ns + math.ceil((series.channel.refresh_s or 0.0) * 1e9)
    edges = [edge for span in spans for edge in (span.begin_ns, span.end_ns)]
    if len(series) < 2 or not series.t_ns[0] <= min(edges) - early_ns <= max(edges) + late_ns <= series.t_ns[-1]:
        raise NoValue(f"the samples of {series.channel.name} do not cover the phase")
    curve = _Curve(series)
    total, bound = 0.0, len(edges) * _coarseness(series)
    for edge, sign in zip(edges, [-1, 1] * len(spans), strict=True):
        count = curve.at((edge - series.t_ns[0]) / 1e9)
        lowest = series.values[bisect_right(series.t_ns, edge - early_ns) - 1]
        highest = series.values[bisect_left(series.t_ns, edge + late_ns)]
        total += sign * count
        bound += max(count - lowest, highest - count)
    inside = [_Part(curve, span, limits) for span in spans]
    samples = sum(part.samples for part in inside)
    if samples < limits.fewest:
        raise NoValue(f"{samples} samples in a phase of {duration_s:.3g} s")
    rates = [dx / dt for part in inside for dx, dt, _ in part.steps(0.0, math.inf)]
    return Integral(
        total=Amount(total, bound),
        mean=Amount(total / duration_s, bound / duration_s),
        peak=max([total / duration_s, *rates]),
        duration_s=duration_s,
        samples=samples,
        gap_s=0.0,
    )


def _coarseness(series: SensorSeries) -> float:
    """By how much a counter may lag because it counts in steps: its smallest, if it was seen to stand still."""
    steps = {after - before for before, after in pairwise(series.values)}
    return min(steps - {0.0}, default=0.0) if 0.0 in steps else 0.0


def check_spans(spans: Sequence[Span], limits: SampleLimits, clock_ns: float) -> float:
    """Seconds that the spans last; raises `NoValue` for none, and where the clocks' error is too large for them."""
    duration_ns = sum(span.end_ns - span.begin_ns for span in spans)
    if duration_ns <= 0:
        raise NoValue("the phase took no time")
    blurred_ns = 2 * clock_ns * len(spans)
    if blurred_ns > limits.clock_share * duration_ns:
        raise NoValue(
            f"the clocks may disagree by {clock_ns / 1e6:.3g} ms at each edge of {len(spans)} spans"
            f" of together {duration_ns / 1e6:.4g} ms",
        )
    return duration_ns / 1e9


def gaps_in(t_ns: Sequence[int], span: Span, gap_s: float) -> list[Span]:
    """The parts of a span that lie between two samples further apart than `gap_s`."""
    first, last = max(0, bisect_right(t_ns, span.begin_ns) - 1), min(len(t_ns) - 1, bisect_left(t_ns, span.end_ns))
    return [
        Span(max(t_ns[i], span.begin_ns), min(t_ns[i + 1], span.end_ns))
        for i in range(first, last)
        if t_ns[i + 1] - t_ns[i] > gap_s * 1e9
    ]


class _Curve:
    """A series as a piecewise linear function of seconds since its first sample, with its running integral."""

    def __init__(self, series: SensorSeries) -> None:
        self.t_ns = series.t_ns
        self.x = series.values
        self.t = series.seconds
        self.running = series.running

    def at(self, t: float) -> float:
        """Value; the first or last one beyond the samples."""
        i = bisect_right(self.t, t) - 1
        if i < 0:
            return self.x[0]
        if i >= len(self.t) - 1:
            return self.x[-1]
        return self.x[i] + (self.x[i + 1] - self.x[i]) * (t - self.t[i]) / (self.t[i + 1] - self.t[i])

    def integral(self, t: float) -> float:
        """Integral from the first sample on."""
        i = min(max(bisect_right(self.t, t) - 1, 0), len(self.t) - 1)
        return self.running[i] + (self.x[i] + self.at(t)) / 2 * (t - self.t[i])


class _Part:
    def __init__(self, curve: _Curve, span: Span, limits: SampleLimits) -> None:
        t_ns = curve.t_ns
        self._curve = curve
        self._begin = (span.begin_ns - t_ns[0]) / 1e9
        self._end = (span.end_ns - t_ns[0]) / 1e9
        self.first = bisect_left(t_ns, span.begin_ns)
        """Index of the first sample in the span; of the next one after it where there is none."""
        self.last = bisect_right(t_ns, span.end_ns) - 1
        """Index of the last sample in the span."""
        self.samples = self.last - self.first + 1
        gaps = gaps_in(t_ns, span, limits.gap_s)
        missing_ns = sum(gap.end_ns - gap.begin_ns for gap in gaps)
        self.missing_s = (missing_ns if self.samples else span.end_ns - span.begin_ns) / 1e9
        self.total = curve.integral(self._end) - curve.integral(self._begin)
        inside = curve.x[self.first : self.last + 1]
        # Not at the edges, where a value is mixed with that of the phase before or after.
        self.peak = max(inside) if inside else max(curve.at(self._begin), curve.at(self._end))

    def shift(self, d: float) -> float:
        """What moving the edges by up to `d` seconds can change."""
        integral = self._curve.integral
        wider = integral(self._end + d) - integral(self._begin - d)
        inner = min(d, (self._end - self._begin) / 2)
        narrower = integral(self._end - inner) - integral(self._begin + inner)
        return max(abs(wider - self.total), abs(narrower - self.total))

    def steps(self, age_s: float, longest_s: float) -> list[tuple[float, float, float]]:
        """Step, seconds and covered share of every interval between samples from the span's begin to `age_s` after it.

        Intervals longer than `longest_s` are gaps, and counted as such.
        """
        t, x, found = self._curve.t, self._curve.x, []
        for i in range(max(0, self.first - 1), len(t) - 1):
            if t[i] >= self._end + age_s:
                break
            dt = t[i + 1] - t[i]
            covered = max(0.0, min(t[i + 1], self._end) - max(t[i], self._begin))
            if dt <= longest_s and (covered or t[i] >= self._end):
                found.append((x[i + 1] - x[i], dt, covered / dt))
        return found

    def values(self) -> Sequence[float]:
        return self._curve.x[max(0, self.first - 1) : self.last + 2]


def _sampling(parts: Sequence[_Part], longest_s: float, age_s: float) -> float:
    """How wrong the trapezoids are between the samples, and because values are old when they are read."""
    steps = [step for part in parts if part.samples for step in part.steps(age_s, longest_s)]
    followed = sum(abs(dx) * (dt * share * (1 - share / 2) + age_s) for dx, dt, share in steps)
    averaged = 3 * math.sqrt(sum(dx**2 * (dt**2 * share + age_s**2) for dx, dt, share in steps) / 2)
    if len(steps) < 8:  # too few to tell which of the two it is
        return max(followed, averaged)
    values = [value for part in parts for value in part.values()]
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    ratio = math.fsum(dx**2 for dx, _, _ in steps) / spread if spread else 0.0
    return averaged if ratio > 1 else min(followed, averaged)
