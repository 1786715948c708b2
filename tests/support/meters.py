"""A trial that an external meter watched, with everything known: power, clock, marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from meltrepro.record.events import parse_trace
from meltrepro.record.trace import Span, Trace
from tests.support.campaigns import MS, Trial, Turn, as_lines, events

IDLE_W, LOADED_W, PREFILL_W, GENERATION_W = 1.0, 9.0, 6.0, 4.0
PULSES_MS = (1500, 500, 1000)
REST_NS = 1000 * MS
TURN = Turn(prompt_tokens=50, prefill_ns=2000 * MS, gaps_ns=(100 * MS,) * 30)


def mark(begin_ns: int) -> tuple[list[Span], int]:
    """The pulses of one sync mark, and when its last rest ends."""
    pulses, t = [], begin_ns + REST_NS
    for length_ms in PULSES_MS:
        pulses.append(Span(t, t + length_ms * MS))
        t += length_ms * MS + REST_NS
    return pulses, t


def marked_trace() -> Trace:
    """Two turns between two sync marks; loading takes long enough for the first mark to lie behind it."""
    trace = parse_trace(as_lines(events(Trial(conversations=[[TURN, TURN]], load_ns=20_000 * MS))))
    length_ns = sum(PULSES_MS) * MS + (len(PULSES_MS) + 1) * REST_NS
    before, _ = mark(trace.conversations[0].begin_ns - length_ns)
    after, done_ns = mark(trace.conversations[-1].end_ns)
    return replace(trace, pulses=(*before, *after), done_ns=done_ns)


def levels(trace: Trace) -> list[tuple[int, float]]:
    """From when on the device draws how much, in order."""
    edges: list[tuple[int, float]] = [(0, IDLE_W)]
    phases = [(pulse, LOADED_W) for pulse in trace.pulses]
    for turn in trace.turns:
        assert turn.prefill is not None
        phases += [(turn.prefill, PREFILL_W), (Span(turn.token_ns[0], turn.token_ns[-1]), GENERATION_W)]
    for span, level in sorted(phases, key=lambda phase: phase[0].begin_ns):
        edges += [(span.begin_ns, level), (span.end_ns, IDLE_W)]
    return edges


@dataclass(frozen=True)
class Clock:
    """A meter's clock: there = here + offset + drift x here."""

    offset_ns: int = 0
    drift: float = 0.0

    def there(self, here_ns: int) -> int:
        return here_ns + self.offset_ns + round(here_ns * self.drift)


def rows(
    trace: Trace, clock: Clock, period_ns: int, lead_ns: int = 3 * 10**9, tail_ns: int = 2 * 10**9
) -> list[tuple[int, float]]:
    """What a meter writes from some time before the runner until after it: time on its own clock (ns), watts."""
    steps = levels(trace)
    found, step = [], 0
    for t in range(trace.hello.t_ns - lead_ns, trace.done_ns + tail_ns, period_ns):
        while step + 1 < len(steps) and steps[step + 1][0] <= t:
            step += 1
        found.append((clock.there(t), steps[step][1]))
    return found


def write_csv(path: Path, samples: Sequence[tuple[int, float]]) -> None:
    """A meter's file: seconds and milliwatts, with a preamble."""
    lines = ["# Power log", "Time (s),Power (mW)", *(f"{t / 1e9:.6f},{1000 * w:.3f}" for t, w in samples)]
    path.write_text("\n".join(lines) + "\n")
