"""WinoGrande as its authors publish it: `sentence` with one `_`, `option1`, `option2`, `answer` 1 or 2; or the scorer's CSV."""

from __future__ import annotations

from meltrepro.accuracy.questions import Question
from meltrepro.accuracy.records import Row, index, text
from meltrepro.errors import DataError

KEYS = frozenset({"sentence", "option1", "option2", "answer"})


def read(row: Row, number: int, stem: str) -> Question:
    """One row; raises `DataError`."""
    sentence = text(row, number, "sentence").strip()
    if sentence.count("_") != 1:
        raise DataError(f"question {number}: expected one '_' in its sentence, found {sentence.count('_')}")
    options = tuple(text(row, number, name).strip() for name in ("option1", "option2"))
    return Question(number, stem.format(sentence), options, index(row["answer"], number, "answer") - 1)
