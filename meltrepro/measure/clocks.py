"""From one clock to another: offset, drift, and how wrong they can be.

A probe reads the other clock between two readings of this one. Wherever between the two the reading happened, taking
it for the middle is wrong by at most half the round trip (Cristian 1989, "Probabilistic clock synchronization"), so the
probe with the shortest round trip is the best and the rest are not needed. Two such anchors, before and after, give
a line: there = here + offset + drift * time. Between them its bound is the interpolation of theirs; beyond them it
grows with the uncertainty of the slope.

Times are nanoseconds; `here` and `there` are the two clocks of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meltrepro.errors import RecordError

MOST_DRIFT = 500e-6
"""The most by which a kernel lets its clock be slewed (adjtimex), and far more than a crystal's error."""

_MOST_CREDIBLE = 0.1
"""No comparison is so uncertain that a clock may run by a tenth faster or slower than another."""


@dataclass(frozen=True)
class ClockProbe:
    """One question to the other clock."""

    sent_ns: int
    """On this clock."""
    there_ns: int
    """The answer, on the other clock."""
    received_ns: int
    """On this clock."""

    def __post_init__(self) -> None:
        if self.received_ns < self.sent_ns:
            raise RecordError(f"a clock probe was answered {self.sent_ns - self.received_ns} ns before it was sent")

    @property
    def round_trip_ns(self) -> int:
        return self.received_ns - self.sent_ns


@dataclass(frozen=True)
class Anchor:
    """One moment on both clocks."""

    here_ns: int
    there_ns: int
    bound_ns: float
    """How far `there_ns` can be from the truth."""

    @property
    def offset_ns(self) -> int:
        return self.there_ns - self.here_ns


@dataclass(frozen=True)
class ClockMap:
    """Straight line through one anchor or two."""

    first: Anchor
    last: Anchor
    """The same as `first` where there is only one."""
    drift: float
    """Nanoseconds that the other clock gains in one of this clock's."""
    drift_bound: float

    def there(self, here_ns: int) -> int:
        passed = here_ns - self.first.here_ns
        return self.first.there_ns + passed + round(passed * self.drift)

    def here(self, there_ns: int) -> int:
        passed = there_ns - self.first.there_ns
        return self.first.here_ns + passed - round(passed * (self.drift / (1 + self.drift)))

    def bound_ns(self, here_ns: int) -> float:
        """How far a mapped moment can be from the truth."""
        before, after = here_ns - self.first.here_ns, self.last.here_ns - here_ns
        if before < 0:
            return self.first.bound_ns - before * self.drift_bound
        if after < 0:
            return self.last.bound_ns - after * self.drift_bound
        share = before / (before + after) if before + after else 0.0
        return self.first.bound_ns * (1 - share) + self.last.bound_ns * share

    def widest_ns(self, begin_ns: int, end_ns: int) -> float:
        """The largest bound between two moments on this clock."""
        return max(self.bound_ns(begin_ns), self.bound_ns(end_ns))  # it falls before the anchors and rises behind them


def best_anchor(probes: Sequence[ClockProbe], resolution_ns: int = 0) -> Anchor:
    """The anchor of the shortest round trip; raises `RecordError` where there is no probe.

    `resolution_ns` is the step of the coarser of the two clocks.
    """
    if not probes:
        raise RecordError("the clocks were not compared: there is no probe")
    best = min(probes, key=lambda probe: probe.round_trip_ns)
    middle = best.sent_ns + best.round_trip_ns // 2
    # Half a nanosecond is lost by the whole-numbered middle; the other clock drifts within the round trip too.
    reach = (best.round_trip_ns / 2) * (1 + MOST_DRIFT) + resolution_ns + 0.5
    return Anchor(middle, best.there_ns, reach)


def fit(before: Sequence[ClockProbe], after: Sequence[ClockProbe] = (), *, resolution_ns: int = 0) -> ClockMap:
    """The map from probes before and, if there are any, after; raises `RecordError`.

    A clock that was set in between shows as a drift that no clock has.
    """
    first = best_anchor(before, resolution_ns)
    last = best_anchor(after, resolution_ns) if after else None
    return join(first, last)


def join(first: Anchor, last: Anchor | None = None) -> ClockMap:
    """The map through one anchor, with a drift of 0 that may be up to `MOST_DRIFT`, or through two.

    Raises `RecordError` where the second is not later, or the drift is more than any clock has.
    """
    if last is None:
        return ClockMap(first, first, 0.0, MOST_DRIFT)
    passed = last.here_ns - first.here_ns
    if passed <= 0:
        raise RecordError("the clocks must be compared again after the first comparison, not before")
    drift = (last.offset_ns - first.offset_ns) / passed
    uncertain = (first.bound_ns + last.bound_ns) / passed
    if abs(drift) > min(MOST_DRIFT + uncertain, _MOST_CREDIBLE):
        raise RecordError(
            f"the clocks moved apart by {(last.offset_ns - first.offset_ns) / 1e6:.3f} ms in {passed / 1e9:.3f} s",
            hint="one of them was set, or its device was suspended; repeat the trial",
        )
    return ClockMap(first, last, drift, uncertain)
