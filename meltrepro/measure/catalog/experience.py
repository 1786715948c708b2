"""What a reader notices: whether the answer comes faster than it is read."""

from __future__ import annotations

from itertools import accumulate

from meltrepro.measure.metric import Facts, Metric, token_gaps_ns
from meltrepro.record.trace import Turn

READING_TPS = 238 / 60 / 0.75
"""Tokens per second of a reader: 238 words a minute (Brysbaert 2019, silent reading of English non-fiction), 0.75 words
a token (the usual rule for English)."""


def _waits_s(turn: Turn) -> list[float]:
    """How long the reader waits for each token after the first, having read everything before it."""
    read_s = 1 / READING_TPS
    arrived = accumulate(gap / 1e9 for gap in token_gaps_ns(turn))
    waits: list[float] = []
    ready = read_s  # when the reader is through with all tokens so far, counted from the first token's arrival
    for at in arrived:
        waits.append(max(0.0, at - ready))
        ready = max(ready, at) + read_s
    return waits


def _reading_met_share(facts: Facts) -> float:
    return sum(not any(_waits_s(turn)) for turn in facts.flowing) / len(facts.flowing)


def _stalls(facts: Facts) -> float:
    waits = [wait for turn in facts.flowing for wait in _waits_s(turn)]
    return sum(wait > 0 for wait in waits) / len(waits)


def _stalled_s(facts: Facts) -> float:
    return sum(sum(_waits_s(turn)) for turn in facts.flowing) / len(facts.flowing)


_READER = f"a reader begins with the first token and reads {READING_TPS:.2f} tokens/s (238 words a minute, 0.75 words a token)"
_NEVER_TWO = "no turn has two tokens with time between them"

EXPERIENCE = (
    Metric(
        name="reading_met_share",
        unit="share",
        phase="turn",
        better="higher",
        meaning="part of the answers that a reader never has to wait for after their first token",
        formula=f"turns in which no token arrives after the reader wants it / turns; {_READER}",
        source="token",
        invalid_when=_NEVER_TWO,
        compute=_reading_met_share,
    ),
    Metric(
        name="stall_share",
        unit="share",
        phase="turn",
        better="lower",
        meaning="part of the tokens that a reader has to wait for",
        formula="tokens that arrive after the reader wants them / tokens after the first of their turn; reader as above",
        source="token",
        invalid_when=_NEVER_TWO,
        compute=_stalls,
    ),
    Metric(
        name="stalled_s",
        unit="s",
        phase="turn",
        better="lower",
        meaning="how long a reader waits within an answer",
        formula="mean over turns of the sum of waits for tokens after the first; reader as above",
        source="token",
        invalid_when=_NEVER_TWO,
        compute=_stalled_s,
    ),
)
