"""Reasoning models: how much they think, and when the answer itself begins."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from meltrepro.measure.integrals import NoValue
from meltrepro.measure.metric import Facts, Metric
from meltrepro.record.trace import Span, Turn

UNTOLD = "the manifest names no marks of thinking for the model: models.NAME.thinking"


def _told(facts: Facts) -> Sequence[Turn]:
    """Turns in which thinking was told from the answer."""
    turns = [turn for turn in facts.answered if turn.answer is not None]
    if not turns:
        raise NoValue(UNTOLD)
    return turns


def _begun(facts: Facts) -> Sequence[tuple[Turn, int]]:
    """Turns that came to an answer, with the number of its first token."""
    found = [(turn, turn.answer_at) for turn in _told(facts) if turn.answer_at is not None]
    if not found:
        raise NoValue("no turn came to an answer: its thinking took all tokens")
    return found


def thinking_spans(facts: Facts) -> Sequence[Span]:
    """From the token before each stretch of thinking, or its first one, to its last."""
    found = [
        Span(turn.token_ns[max(thought.begin - 1, 0)], turn.token_ns[thought.end - 1])
        for turn in _told(facts)
        for thought in turn.thinking
        if thought.end > thought.begin
    ]
    if not found:
        raise NoValue("no turn has thinking")
    return found


def answer_spans(facts: Facts) -> Sequence[Span]:
    """From the token before each answer, or its first one, to its last."""
    return [Span(turn.token_ns[max(at - 1, 0)], turn.token_ns[-1]) for turn, at in _begun(facts)]


def _first_answer_ms(facts: Facts) -> float:
    return median((turn.token_ns[at] - turn.begin_ns) / 1e6 for turn, at in _begun(facts))


def _thinking_tokens(facts: Facts) -> float:
    return fmean(sum(thought.end - thought.begin for thought in turn.thinking) for turn in _told(facts))


def _answer_tokens(facts: Facts) -> float:
    return fmean(0 if turn.answer_at is None else turn.n_gen - turn.answer_at for turn in _told(facts))


THINKING = (
    Metric(
        name="ttfat_ms",
        unit="ms",
        phase="thinking",
        better="lower",
        meaning="time to first token of the answer, thinking left out",
        formula="median over turns of t(token of answer_begin) - t(turn_begin)",
        source="turn_begin, token, answer_begin",
        invalid_when=f"{UNTOLD}; or no turn came to an answer",
        compute=_first_answer_ms,
    ),
    Metric(
        name="thinking_tokens",
        unit="tokens",
        phase="thinking",
        better=None,
        meaning="tokens of thinking in an answer, the mark that ends it included",
        formula="mean over turns of the sum of i(thinking_end) - i(thinking_begin); thinking that nothing ended counts to its last token",
        source="thinking_begin, thinking_end, token",
        invalid_when=UNTOLD,
        compute=_thinking_tokens,
    ),
    Metric(
        name="answer_tokens",
        unit="tokens",
        phase="thinking",
        better=None,
        meaning="tokens of an answer, thinking left out",
        formula="mean over turns of n_gen - i(answer_begin); 0 where the answer never began",
        source="answer_begin, turn_end",
        invalid_when=UNTOLD,
        compute=_answer_tokens,
    ),
)
