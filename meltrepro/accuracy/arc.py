"""ARC, and OpenBookQA in the same form, as the Allen Institute publishes them: `question.stem`, `choices`, `answerKey`."""

from __future__ import annotations

from meltrepro.accuracy.questions import Question
from meltrepro.accuracy.records import Row, text
from meltrepro.errors import DataError

KEYS = frozenset({"question", "answerKey"})


def read(row: Row, number: int, stem: str) -> Question:
    """One row; `stem` puts the question. Raises `DataError`."""
    asked = row["question"]
    if not isinstance(asked, dict) or not isinstance(asked.get("choices"), list):
        raise DataError(f"question {number}: expected 'question' with a 'stem' and 'choices'")
    choices = asked["choices"]
    if not all(isinstance(choice, dict) for choice in choices):
        raise DataError(f"question {number}: expected each of its choices to have a 'label' and a 'text'")
    labels = [text(choice, number, "label") for choice in choices]
    key = text(row, number, "answerKey")
    if labels.count(key) != 1:
        raise DataError(f"question {number}: its answer {key!r} is none of its choices {', '.join(labels)}")
    answers = tuple(text(choice, number, "text").strip() for choice in choices)
    return Question(number, stem.format(text(asked, number, "stem").strip()), answers, labels.index(key))
