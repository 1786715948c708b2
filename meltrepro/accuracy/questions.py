"""A question with its answers, whatever file it came from; which ones of a data set are asked, and as which file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from meltrepro.errors import DataError


@dataclass(frozen=True)
class Question:
    """What a model is to choose an answer for."""

    number: int
    """Its place in the data set, from 1."""
    text: str
    """What stands before the answer; of WinoGrande the sentence, with `_` where the answer belongs."""
    answers: tuple[str, ...]
    gold: int
    """Index of the right answer."""
    also: tuple[tuple[str, bool], ...] = ()
    """Answers of which several may be right, where the task has such ones too (TruthfulQA's mc2)."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise DataError(f"question {self.number} is empty")
        if len(self.answers) < 2:
            raise DataError(f"question {self.number} has {len(self.answers)} answers; at least 2 are needed")
        if any(not answer.strip() for answer in self.answers):
            raise DataError(f"question {self.number} has an empty answer")
        if not 0 <= self.gold < len(self.answers):
            raise DataError(
                f"question {self.number}: the right answer is number {self.gold + 1}, and there are {len(self.answers)}"
            )


@dataclass(frozen=True)
class Sheet:
    """Questions as the file that a scorer reads."""

    content: bytes
    questions: int
    padding: int
    """Questions at the end that fill up and are not counted."""
    sequences: int
    """Most answers that a question has."""


class _Numbered(Protocol):
    @property
    def number(self) -> int: ...


NumberedT = TypeVar("NumberedT", bound=_Numbered)


def choose(questions: Sequence[NumberedT], count: int | None, seed: int | None) -> tuple[NumberedT, ...]:
    """The questions that are asked, in the order of the data set: the first `count`, or with a seed a sample.

    The sample is ordered by a digest, so that no random generator decides it. Raises `DataError` where there are fewer.
    """
    if not questions:
        raise DataError("the data set has no question that can be asked")
    count = len(questions) if count is None else count
    if count > len(questions):
        raise DataError(f"{count} questions are asked for, the data set has {len(questions)} that can be asked")
    if seed is None:
        return tuple(questions[:count])
    drawn = sorted(questions, key=lambda question: hashlib.sha256(f"{seed}/{question.number}".encode()).digest())
    return tuple(sorted(drawn[:count], key=lambda question: question.number))


def shuffled(questions: Sequence[NumberedT], seed: int) -> tuple[NumberedT, ...]:
    """The same in an order drawn at random, by a digest as well; another one than that of a sample with this seed."""

    def drawn(question: NumberedT) -> bytes:
        return hashlib.sha256(f"order {seed}/{question.number}".encode()).digest()

    return tuple(sorted(questions, key=drawn))
