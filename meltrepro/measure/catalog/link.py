"""What it takes to have another device answer: bytes and time on the link, and what the engine over there took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from meltrepro.measure.integrals import NoValue
from meltrepro.measure.metric import Facts, Metric
from meltrepro.record.trace import Served, Turn

_LOCAL = "the engine runs on the device itself"


def _served(facts: Facts) -> Sequence[tuple[Turn, Served]]:
    found = [(turn, turn.served) for turn in facts.turns if turn.served is not None and turn.n_gen > 0]
    if not found:
        raise NoValue(_LOCAL)
    return found


def _first(facts: Facts) -> Sequence[tuple[Turn, int]]:
    return [(turn, served.first_ns) for turn, served in _served(facts) if served.first_ns is not None]


def _link_ms(facts: Facts) -> float:
    return median((turn.end_ns - turn.begin_ns - served.ns) / 1e6 for turn, served in _served(facts))


def _link_ttft_ms(facts: Facts) -> float:
    return median((turn.token_ns[0] - turn.begin_ns - first_ns) / 1e6 for turn, first_ns in _first(facts))


def _served_ttft_ms(facts: Facts) -> float:
    return median(first_ns / 1e6 for _, first_ns in _first(facts))


def _bytes(count: Callable[[Served], int]) -> Callable[[Facts], float]:
    return lambda facts: float(sum(count(served) for _, served in _served(facts)))


LINK = (
    Metric(
        name="link_ms",
        unit="ms",
        phase="link",
        better="lower",
        meaning="time of a turn that the link took, and not the engine at its other end",
        formula="median over turns of t(turn_end) - t(turn_begin) - served_ns",
        source="turn_begin, turn_end",
        invalid_when=_LOCAL,
        compute=_link_ms,
    ),
    Metric(
        name="link_ttft_ms",
        unit="ms",
        phase="link",
        better="lower",
        meaning="the same of the time to the first token; part of ttft_ms",
        formula="median over turns of t(first token) - t(turn_begin) - first_ns",
        source="turn_begin, token, turn_end",
        invalid_when=_LOCAL,
        compute=_link_ttft_ms,
    ),
    Metric(
        name="served_ttft_ms",
        unit="ms",
        phase="link",
        better="lower",
        meaning="time to the first token at the other end of the link, by the clock there",
        formula="median over turns of first_ns",
        source="turn_end",
        invalid_when=_LOCAL,
        compute=_served_ttft_ms,
    ),
    Metric(
        name="link_sent_bytes",
        unit="bytes",
        phase="link",
        better=None,
        meaning="what prompts put on the link, without what the network adds",
        formula="sum of sent_bytes over turns",
        source="turn_end",
        invalid_when=_LOCAL,
        compute=_bytes(lambda served: served.sent_bytes),
    ),
    Metric(
        name="link_received_bytes",
        unit="bytes",
        phase="link",
        better=None,
        meaning="what answers put on the link, without what the network adds",
        formula="sum of received_bytes over turns",
        source="turn_end",
        invalid_when=_LOCAL,
        compute=_bytes(lambda served: served.received_bytes),
    ),
)
