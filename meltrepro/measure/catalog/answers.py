"""Answers that are checked: how many are right, and what time each of these took."""

from __future__ import annotations

from meltrepro.measure.integrals import NoValue
from meltrepro.measure.metric import Facts, Metric
from meltrepro.record.trace import Span

UNCHECKED = "its answers are not checked"
NONE_RIGHT = "no answer is right"


def questions(facts: Facts) -> list[Span]:
    """Every turn from its begin to its end, where answers are checked; raises `NoValue`."""
    _right(facts)
    return [Span(turn.begin_ns, turn.end_ns) for turn in facts.turns]


def right_ones(facts: Facts) -> int:
    """How many answers are right, where any is; raises `NoValue`."""
    if not (right := _right(facts)):
        raise NoValue(NONE_RIGHT)
    return right


def _right(facts: Facts) -> int:
    if facts.right is None:
        raise NoValue(UNCHECKED)
    return facts.right


def _answering_s(facts: Facts) -> float:
    return sum(span.end_ns - span.begin_ns for span in questions(facts)) / 1e9


ANSWERS = (
    Metric(
        name="right_answers",
        unit="answers",
        phase="answers",
        better="higher",
        meaning="answers that are right (accuracy.md)",
        formula="number of turns whose answer is right",
        source="turn_end; checks.json",
        invalid_when=UNCHECKED,
        compute=lambda facts: float(_right(facts)),
    ),
    Metric(
        name="answering_s",
        unit="s",
        phase="answers",
        better="lower",
        meaning="time of all questions that are checked: reading, thinking and answering",
        formula="sum over turns of t(turn_end) - t(turn_begin)",
        source="turn_begin, turn_end",
        invalid_when=UNCHECKED,
        compute=_answering_s,
    ),
    Metric(
        name="time_per_right_answer_s",
        unit="s",
        phase="answers",
        better="lower",
        meaning="seconds for each right answer, those of wrong ones included",
        formula="answering_s / right_answers; of a cell the sums over its repetitions",
        source="turn_begin, turn_end; checks.json",
        invalid_when=f"{UNCHECKED}, or {NONE_RIGHT}",
        compute=lambda facts: _answering_s(facts) / right_ones(facts),
        quotient=("answering_s", "right_answers"),
    ),
)
