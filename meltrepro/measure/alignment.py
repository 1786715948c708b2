"""Where a planned load pulse lies in the trace of an external meter: the two clocks' offset without any link.

The device loads itself in a pattern of known times (the sync mark); the meter, on a clock of its own, sees the power
rise and fall. The offset is the shift at which the pattern's and the trace's Pearson correlation is largest
(normalised cross-correlation, Lewis 1995, "Fast template matching"). Two marks look alike: the first is where the second
follows after the planned time.

The bound: with samples `period` apart an edge is known to one period. Noise of standard deviation s moves the best
shift by k periods only if it outweighs the k samples at each of the m edges that then disagree by the step A: their
evidence is k m A**2, its noise 2 A s sqrt(k m), so k <= (2 z s / A)**2 / m at z standard deviations. How slowly the
load itself rises, and the drift of the clocks within the mark, are added.

numpy and scipy are imported when an alignment is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from meltrepro.errors import RecordError
from meltrepro.measure.clocks import MOST_DRIFT, Anchor
from meltrepro.record.series import SensorSeries
from meltrepro.record.trace import Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_CORRELATION = 0.6
LARGEST_SECOND = 0.9
"""Of the best correlation: a second place that looks as good as this makes the first a guess."""
_Z = 4.0
_MOST_POINTS = 1 << 24


@dataclass(frozen=True)
class Alignment:
    """Where the sync mark was found."""

    anchor: Anchor
    """Middle of the mark: `here` is the device, `there` the meter."""
    correlation: float
    """Of the pattern with the trace at the best shift; 1 is perfect."""
    second: float
    """The best correlation at any other place."""


def align(
    trace: SensorSeries,
    pulses: Sequence[Span],
    *,
    later: Sequence[Span] = (),
    around_ns: int | None = None,
    search_s: float | None = None,
    rise_s: float = 0.0,
) -> Alignment:
    """Find planned pulses (device's clock) in the power trace of a meter (meter's clock); raises `RecordError`.

    `later` are the pulses of another mark that must follow in the trace; only the place of the first is looked for.
    `around_ns` is the offset that is expected (meter minus device) and `search_s` how far from it to look; without
    them, the whole trace is searched. `rise_s` is the longest time that the load takes to follow its plan.
    """
    import numpy as np

    _check(trace, pulses)
    begin_ns, end_ns = _extent(pulses)
    step_ns = float(np.median(np.diff(np.asarray(trace.t_ns, dtype=np.int64))))
    shortest_ns = min(pulse.end_ns - pulse.begin_ns for pulse in pulses)
    if shortest_ns < 2 * step_ns:
        raise RecordError(
            f"the meter's samples are {step_ns / 1e6:.3g} ms apart, the shortest pulse is {shortest_ns / 1e6:.3g} ms",
            hint="plan pulses of at least two samples",
        )
    start_ns, stop_ns = trace.t_ns[0], trace.t_ns[-1]
    if around_ns is not None and search_s is not None:
        reach_ns = round(search_s * 1e9)
        start_ns = max(start_ns, begin_ns + around_ns - reach_ns)
        stop_ns = min(stop_ns, end_ns + around_ns + reach_ns)
    points = int((stop_ns - start_ns) / step_ns) + 1
    lengths_ns = [end - begin for begin, end in map(_extent, filter(None, (pulses, later)))]
    if max(points, *(length_ns / step_ns for length_ns in lengths_ns)) > _MOST_POINTS:
        raise RecordError("the trace is too long to search", hint="record less before and after the trial")
    pattern = _pattern(pulses, step_ns)
    lobe = max(1, math.ceil(shortest_ns / step_ns))
    if points < pattern.size:
        raise RecordError(
            "the trace is shorter than the sync mark: the mark cannot be in it",
            hint="record from before the first mark until after the last one",
        )
    times = np.asarray(trace.t_ns, dtype=np.int64) - start_ns
    window = np.interp(np.arange(points) * step_ns, times.astype(np.float64), np.asarray(trace.values))
    correlations = fits = _correlate(window, pattern)
    if later:
        distance_ns = _extent(later)[0] - begin_ns
        reach = lobe + math.ceil(MOST_DRIFT * distance_ns / step_ns)
        fits = _followed(correlations, window, _pattern(later, step_ns), round(distance_ns / step_ns), reach)
    place = int(np.argmax(fits))
    others = np.concatenate([fits[: max(0, place - lobe)], fits[place + lobe + 1 :]])
    fit, second = float(fits[place]), float(others.max()) if others.size else 0.0
    if not fit >= LEAST_CORRELATION:  # of a trace without any change it is no number
        raise RecordError(
            f"the sync mark is not in the trace: its best correlation is {fit:.2f}, needed {LEAST_CORRELATION}",
            hint="record from before the first mark until after the last one, not too close to either, or make the pulses longer",
        )
    if second > LARGEST_SECOND * fit:
        raise RecordError(
            f"the sync mark fits the trace at two places (correlations {fit:.3f} and {second:.3f})",
            hint="plan pulses of unequal lengths, or record each trial by itself",
        )
    nearest = max(0, place - lobe)
    best = nearest + int(np.argmax(correlations[nearest : place + lobe + 1]))
    found = float(correlations[best])
    shift = best + _vertex(correlations, best)
    middle_ns = (begin_ns + end_ns) // 2
    offset_ns = start_ns + round(shift * step_ns) - begin_ns
    noise = math.sqrt(max(0.0, 1 / found**2 - 1)) * float(pattern.std())  # standard deviation over the step
    moved = (2 * _Z * noise) ** 2 / (2 * len(pulses))
    longest_ns = _longest_pause(trace, begin_ns + offset_ns, end_ns + offset_ns)
    bound_ns = max(longest_ns, step_ns) + step_ns * moved + rise_s * 1e9 + MOST_DRIFT * (end_ns - begin_ns) / 2
    return Alignment(Anchor(middle_ns, middle_ns + offset_ns, bound_ns), found, second)


def _check(trace: SensorSeries, pulses: Sequence[Span]) -> None:
    if len(trace) < 3:
        raise RecordError("the meter's trace has fewer than three samples")
    edges = [edge for pulse in pulses for edge in (pulse.begin_ns, pulse.end_ns)]
    if not pulses or any(after <= before for before, after in pairwise(edges)):
        raise RecordError("a sync mark needs pulses that follow one another")


def _longest_pause(trace: SensorSeries, begin_ns: int, end_ns: int) -> int:
    """Longest time between two samples in or at the edge of a stretch."""
    pairs = pairwise(trace.t_ns)
    return max((after - before for before, after in pairs if before < end_ns and after > begin_ns), default=0)


def _extent(pulses: Sequence[Span]) -> tuple[int, int]:
    """From where to where a mark is compared: with rest around it, so that its outer edges count.

    Not more rest than between pulses, as work may lie beyond.
    """
    margin_ns = max(pulse.end_ns - pulse.begin_ns for pulse in pulses)
    margin_ns = min([margin_ns, *(after.begin_ns - before.end_ns for before, after in pairwise(pulses))])
    return pulses[0].begin_ns - margin_ns, pulses[-1].end_ns + margin_ns


def _pattern(pulses: Sequence[Span], step_ns: float) -> NDArray[np.float64]:
    """1 where the device plans to load itself, else 0, at the trace's sampling period."""
    import numpy as np

    begin_ns, end_ns = _extent(pulses)
    times = np.arange(int((end_ns - begin_ns) / step_ns) + 1) * step_ns
    level = np.zeros(times.size)
    for pulse in pulses:
        level[(times >= pulse.begin_ns - begin_ns) & (times < pulse.end_ns - begin_ns)] = 1.0
    return level


def _correlate(window: NDArray[np.float64], pattern: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation of the pattern with the window at every place where it lies wholly inside."""
    import numpy as np
    from scipy.signal import correlate

    centred = pattern - pattern.mean()
    level = window - window.mean()  # keeps the running sums small
    products = correlate(level, centred, mode="valid", method="fft")
    sums = np.concatenate([[0.0], np.cumsum(level)])
    squares = np.concatenate([[0.0], np.cumsum(level**2)])
    n = pattern.size
    spread = squares[n:] - squares[:-n] - (sums[n:] - sums[:-n]) ** 2 / n
    # Where the trace is flat, rounding alone would correlate with anything.
    floor = max(float(np.square(level).mean()) * n * 1e-9, np.finfo(np.float64).tiny)
    return np.asarray(products / np.sqrt(np.maximum(spread, floor) * float(np.square(centred).sum())))


def _followed(
    correlations: NDArray[np.float64],
    window: NDArray[np.float64],
    pattern: NDArray[np.float64],
    distance: int,
    reach: int,
) -> NDArray[np.float64]:
    """How well two marks fit, the first at each place and the second `distance` samples later, give or take `reach`.

    That is the worse of their two correlations; raises `RecordError` where the trace cannot hold both.
    """
    import numpy as np
    from scipy.ndimage import maximum_filter1d

    if window.size < pattern.size + distance - reach:
        raise RecordError(
            "the trace is shorter than the time between the sync marks: they cannot both be in it",
            hint="record from before the first mark until after the last one",
        )
    following = np.pad(_correlate(window, pattern), (0, reach), constant_values=-1.0)
    following = maximum_filter1d(following, 2 * reach + 1, mode="constant", cval=-1.0)[distance:]
    count = min(correlations.size, following.size)
    return np.minimum(correlations[:count], following[:count])


def _vertex(values: NDArray[np.float64], best: int) -> float:
    """Where between its neighbours the peak lies: the vertex of the parabola through three points, -0.5 to 0.5."""
    if not 0 < best < values.size - 1:
        return 0.0
    left, top, right = (float(value) for value in values[best - 1 : best + 2])
    bend = left - 2 * top + right
    return 0.0 if bend >= 0 else max(-0.5, min(0.5, (left - right) / (2 * bend)))
