"""What a metric is, and what several metrics of one trial are made of."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from meltrepro.errors import RecordError
from meltrepro.measure.energy import Supply, supply_of
from meltrepro.measure.integrals import Amount, NoValue
from meltrepro.measure.metering import Metered
from meltrepro.record.samples import Recording
from meltrepro.record.series import SensorSeries
from meltrepro.record.trace import Memory, Span, Trace, Turn

Better = Literal["higher", "lower"]
Phase = Literal[
    "load",
    "prefill",
    "generation",
    "turn",
    "context",
    "link",
    "thinking",
    "memory",
    "device",
    "energy",
    "answers",
    "work",
]


class Facts:
    """What several metrics of one trial are made of, worked out once."""

    def __init__(
        self,
        trace: Trace,
        recording: Recording | None = None,
        metered: Metered | None = None,
        most_w: float | None = None,
        right: int | None = None,
    ) -> None:
        self.trace = trace
        self.recording = recording
        self.metered = metered
        self.most_w = most_w
        self.right = right
        self.turns = trace.turns

    @cached_property
    def answered(self) -> Sequence[Turn]:
        turns = [turn for turn in self.turns if turn.token_ns]
        if not turns:
            raise NoValue("no turn has a token")
        return turns

    @cached_property
    def flowing(self) -> Sequence[Turn]:
        """Turns with at least two tokens, between which time passed."""
        turns = [turn for turn in self.answered if len(turn.token_ns) > 1]
        if not turns:
            raise NoValue("no turn has a second token")
        if all(generation_ns(turn) == 0 for turn in turns):
            raise NoValue("no time passed between tokens")
        return turns

    @cached_property
    def gaps_ms(self) -> Sequence[float]:
        """All times between two tokens of a turn, sorted."""
        return sorted(gap / 1e6 for turn in self.flowing for gap in token_gaps_ns(turn))

    @cached_property
    def prompted(self) -> Sequence[Turn]:
        """Turns that were answered and whose prompt has two tokens: to read a single one is a step of writing."""
        turns = [turn for turn in self.answered if turn.n_prompt > 1]
        if not turns:
            raise NoValue("no prompt has a second token")
        return turns

    @cached_property
    def prefills(self) -> Sequence[tuple[int, Span]]:
        """Tokens that were read and prefill of every turn that has one, of two tokens at least."""
        found = [(turn.n_read, turn.prefill) for turn in self.turns if turn.prefill is not None]
        if not found:
            raise NoValue("no turn has a prefill")
        if not (found := [each for each in found if each[0] > 1]):
            raise NoValue("no prompt has a second token")
        return found

    @property
    def recorded(self) -> Recording:
        if self.recording is None:
            raise NoValue("nothing was sampled")
        return self.recording

    @property
    def powered(self) -> tuple[Recording, Callable[[int, int], float]]:
        """What shows the device's power, a meter before the device's own sensors, and how far its clock may be off (ns)
        between two moments."""
        if self.metered is None:
            return self.recorded, lambda begin_ns, end_ns: 0.0
        if self.metered.recording is None:
            raise NoValue(f"the meter's samples have no place in time: {self.metered.problem}")
        return self.metered.recording, self.metered.bound_ns

    @cached_property
    def supply(self) -> Supply:
        return supply_of(self.powered[0], self.most_w)

    def sampled(self, name: str) -> Sequence[SensorSeries]:
        """The series of a channel, or of all channels whose name begins so if it ends with a dot; never empty ones."""
        found = [
            series
            for series in self.recorded.series
            if series.t_ns
            and (series.channel.name == name or (name[-1] == "." and series.channel.name.startswith(name)))
        ]
        if not found:
            raise NoValue(f"the device has no {name.rstrip('.')} to sample")
        return found

    @cached_property
    def work_ns(self) -> Span:
        if not self.turns:
            raise NoValue("no turn was held")
        return Span(self.turns[0].begin_ns, self.turns[-1].end_ns)

    def during_turns(self, series: SensorSeries) -> Sequence[float]:
        """The readings of a series between the first turn and the last."""
        begin = bisect_left(series.t_ns, self.work_ns.begin_ns)
        return series.values[begin : bisect_right(series.t_ns, self.work_ns.end_ns)]

    @staticmethod
    def unwrapped(series: SensorSeries) -> SensorSeries:
        """A counter without its wraps."""
        try:
            return series.unwrapped()
        except RecordError as error:
            raise NoValue(error.message) from error

    def memory(self, read: Callable[[Memory], int | None], phase: str | None = None) -> list[int]:
        """Readings of one kind of memory, in order, of one phase or of all."""
        found = [read(memory) for memory in self.trace.memory if phase in (None, memory.phase)]
        known = [value for value in found if value is not None]
        if not known:
            raise NoValue("the runner could not read it" if found else "the runner read no memory")
        return known


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    phase: Phase
    better: Better | None
    """Which direction is an improvement; `None` where neither is."""
    meaning: str
    formula: str
    source: str
    """Events of docs/runner.md and samples of docs/sampling.md that it is computed from."""
    invalid_when: str
    """When there is no value."""
    compute: Callable[[Facts], float | Amount]
    """Raises `NoValue`."""
    quotient: tuple[str, str] | None = None
    """Of a figure of a cell that is no median: the metrics whose sums over the repetitions are divided."""


def token_gaps_ns(turn: Turn) -> list[int]:
    """Nanoseconds from each token of a turn to the next; one fewer than there are tokens."""
    return [after - before for before, after in zip(turn.token_ns, turn.token_ns[1:], strict=False)]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Value below which a share of sorted values lies, by linear interpolation between the two nearest ranks."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def generation_ns(turn: Turn) -> int:
    """Nanoseconds from the first token of a turn to its last."""
    return turn.token_ns[-1] - turn.token_ns[0]
