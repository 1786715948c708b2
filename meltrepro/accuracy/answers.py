"""Answers in a model's own words: what is asked, and whether an answer is right, as a pure function of its text.

What answers are held against stands in `checks.json` of a trial, and the answers in its events, so that a score follows
from the record alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from meltrepro import untrusted
from meltrepro.accuracy.datasets import Row, read_each, rows_of, text_of
from meltrepro.accuracy.questions import choose, shuffled
from meltrepro.accuracy.rules import Instruction, Rule
from meltrepro.accuracy.scores import Score, of_each
from meltrepro.errors import DataError, Problem, RecordError
from meltrepro.manifest.accuracy import AnswerTask, AnswerWorkload
from meltrepro.manifest.base import Count, Sha256, Strict
from meltrepro.manifest.yaml.tree import Position, grown
from meltrepro.manifest.yaml.validation import validate
from meltrepro.record.trace import Turn
from meltrepro.stats.anytime import known_within, share_interval
from meltrepro.untrusted import parse

PROMPTS: Mapping[AnswerTask, str] = {
    "gsm8k": "{question}\n\nWork it out step by step. Then write the result on a last line of its own, as a number after ####.",
    "instructions": "{question}",
}
"""How each task puts a question where the manifest does not say it."""
_PLACE = "{question}"


class AnswerCheck(Strict):
    """What one answer is held against."""

    number: Count = Field(description="Place of the question in the data set, from 1.")
    gold: str | None = Field(None, description="The right number, of gsm8k.")
    rules: list[Rule] = Field(default_factory=list, description="What must be kept, of instructions.")


class Stop(Strict):
    """When asking may end before all questions were asked."""

    within: float = Field(gt=0, lt=100, description="Points within which the score of all must be known.")
    every: int = Field(ge=1, description="Questions of one trial.")
    total: int = Field(ge=1, description="All questions.")

    def known(self, asked: int, right: int) -> bool:
        """Whether so many answers tell the score of all as nearly as is wished."""
        return known_within(asked, right, self.total, self.within / 100)


@dataclass(frozen=True)
class Asking:
    """How far questions were asked that end early."""

    stop: Stop
    asked: int
    right: int

    @property
    def known(self) -> bool:
        """Whether they are enough."""
        return self.stop.known(self.asked, self.right)

    @property
    def saved(self) -> int:
        """Questions that need not be asked."""
        return self.stop.total - self.asked if self.known else 0

    @property
    def interval(self) -> tuple[float, float]:
        """The share of right answers to all questions lies between these with 95 %, however often one looked."""
        return share_interval(self.asked, self.right, self.stop.total)

    def __str__(self) -> str:
        low, high = (f"{100 * end:.1f}" for end in self.interval)
        known = f"that of all lies from {low} to {high} %, valid at every look (95 %)"
        return f"asked {self.asked} of {self.stop.total} questions, {self.saved} saved: the score is known within {self.stop.within:g} points; {known}"


class Checks(Strict):
    """`checks.json`: what the answers of a trial are held against, in the order of its turns."""

    v: Literal[1] = 1
    task: AnswerTask
    data: Sha256 = Field(description="sha256 of the data set, as its source gives it.")
    questions: list[AnswerCheck] = Field(min_length=1)
    stop: Stop | None = Field(None, description="Of questions that are asked in parts: when they are enough.")

    def part(self, index: int) -> slice:
        """Which of all questions a trial asks."""
        return slice(None) if self.stop is None else slice(self.stop.every * index, self.stop.every * (index + 1))


@dataclass(frozen=True)
class Item:
    """A question and what its answer is held against."""

    number: int
    text: str
    check: AnswerCheck


@dataclass(frozen=True)
class AnswerMark:
    """Whether one answer is right."""

    number: int
    """Of the question in the data set, from 1."""
    right: bool
    expected: str
    """The right number, or the rules that are to be kept."""
    found: str | None
    """The number in the answer, or why rules are broken; `None` where there is no number, or no such rule."""
    answer: str
    """The whole answer, without its thinking."""
    strict: bool | None = None
    """Whether it is right by the strict rule too, of tasks that have one."""


def ask(workload: AnswerWorkload, content: bytes, digest: str, label: str) -> tuple[tuple[str, ...], Checks]:
    """The prompts of a workload, a conversation each, and what answers are held against.

    Raises `DataError` for data that the task cannot be made of, with `label` for what they are called.
    """
    try:
        read = _READERS[workload.task]
        items = choose(list(read_each(rows_of(content), read)), workload.questions, workload.sample)
    except DataError as error:
        hint = error.hint or f"what {workload.task} reads: docs/accuracy.md"
        raise DataError(f"{label}: {error.message}", hint=hint) from error
    if workload.ordered_by is not None:
        items = shuffled(items, workload.ordered_by)
    put = workload.prompt or PROMPTS[workload.task]
    prompts = tuple(put.replace(_PLACE, item.text) for item in items)
    within, checks = workload.stop_within, [item.check for item in items]
    stop = None if within is None else Stop(within=within, every=workload.stop_every, total=len(items))
    return prompts, Checks(task=workload.task, data=digest, questions=checks, stop=stop)


def read_checks(path: Path) -> Checks:
    """What is in a file of a record; raises `RecordError` for one that is damaged."""
    try:
        return parse(Checks, untrusted.read(path))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged: {error}") from error


def marks(checks: Checks, turns: Sequence[Turn]) -> tuple[AnswerMark, ...]:
    """Whether each answer is right, thinking left out; raises `RecordError` where there are not as many as questions."""
    if len(turns) != len(checks.questions):
        raise RecordError(f"{len(checks.questions)} questions were asked, the record has {len(turns)} turns")
    pairs = zip(checks.questions, turns, strict=True)
    return tuple(_MARKERS[checks.task](check, answer_of(turn)) for check, turn in pairs)


def answer_of(turn: Turn) -> str:
    """What a model answered, without its thinking and without space around it."""
    return (turn.text if turn.answer is None else turn.answer).strip()


def scores_of(task: str, found: Sequence[AnswerMark]) -> tuple[Score, ...]:
    """The share of right answers, and beside it that by the strict rule where the task has one."""
    scores = [of_each(task, "acc", [mark.right for mark in found])]
    if any(mark.strict is not None for mark in found):
        scores.append(of_each(task, "strict", [bool(mark.strict) for mark in found]))
    return tuple(scores)


# -- numbers ----------------------------------------------------------------------------------------------------------

_GOLD = re.compile(r"#### *(-?[$0-9.,]*[0-9][0-9.,]*)\s*$")
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
"""The filters of lm-evaluation-harness's task `gsm8k`: the first match of the one, the last of the other."""


def _word_problem(row: Row, number: int) -> Item:
    """`question`, and an `answer` that ends in `#### NUMBER`, as the authors of GSM8K publish them."""
    question, answer = text_of(row, number, "question").strip(), text_of(row, number, "answer")
    gold = _GOLD.search(answer)
    if not question:
        raise DataError(f"question {number} is empty")
    if gold is None:
        raise DataError(f"question {number}: expected an 'answer' that ends in '#### NUMBER', got {answer[-60:]!r}")
    return Item(number, question, AnswerCheck(number=number, gold=_plain(gold[1])))


def _mark_number(check: AnswerCheck, answer: str) -> AnswerMark:
    strict, flexible = _STRICT.search(answer), list(_FLEXIBLE.finditer(answer))
    found = _plain(flexible[-1][0]) if flexible else None
    kept = strict is not None and _plain(strict[1]) == check.gold
    return AnswerMark(check.number, found == check.gold, check.gold or "", found, answer, kept)


def _plain(number: str) -> str:
    """Without what is ignored when numbers are compared as texts: commas, dollars and a full stop at the end."""
    return number.replace(",", "").replace("$", "").removesuffix(".")


# -- instructions -----------------------------------------------------------------------------------------------------


def _instruction(row: Row, number: int) -> Item:
    """`prompt`, and `rules` that an answer must keep."""
    prompt, rules = text_of(row, number, "prompt").strip(), row.get("rules")
    if not prompt:
        raise DataError(f"question {number} is empty")
    if not isinstance(rules, list) or not rules:
        raise DataError(f"question {number}: expected a list of 'rules' that an answer must keep")
    problems = list[Problem]()
    kept = validate(Instruction, grown({"rules": rules}, Position("")), problems)
    if kept is None:
        first, hint = problems[0], f" ({problems[0].suggestion})" if problems[0].suggestion else ""
        raise DataError(f"question {number}: {first.field}: {first.message}{hint}")
    return Item(number, prompt, AnswerCheck(number=number, rules=kept.rules))


def _mark_rules(check: AnswerCheck, answer: str) -> AnswerMark:
    broken = [why for rule in check.rules if (why := rule.broken(answer)) is not None]
    expected = "; ".join(map(str, check.rules))
    return AnswerMark(check.number, not broken, expected, "; ".join(broken) or None, answer)


_READERS: Mapping[AnswerTask, Callable[[Row, int], Item]] = {"gsm8k": _word_problem, "instructions": _instruction}
_MARKERS: Mapping[AnswerTask, Callable[[AnswerCheck, str], AnswerMark]] = {
    "gsm8k": _mark_number,
    "instructions": _mark_rules,
}
