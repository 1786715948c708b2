"""HellaSwag as its authors publish it: `activity_label`, `ctx`, `endings`, `label`."""

from __future__ import annotations

import re

from meltrepro.accuracy.questions import Question
from meltrepro.accuracy.records import Row, index, text, texts

KEYS = frozenset({"ctx", "endings", "label"})
_MARKS = re.compile(r"\[[^]]*\]")
_SPACES = re.compile(r"\s+")


def read(row: Row, number: int, stem: str) -> Question:
    """One row; the marks that WikiHow leaves, such as `[title]`, are taken out. Raises `DataError`."""
    context = f"{text(row, number, 'activity_label')}: {text(row, number, 'ctx')}"
    endings = tuple(map(_plain, texts(row["endings"], number, "endings")))
    return Question(number, stem.format(_plain(context)), endings, index(row["label"], number, "label"))


def _plain(line: str) -> str:
    """One line without marks: each is a full stop to lm-evaluation-harness, which scores of this task are made with."""
    return _SPACES.sub(" ", _MARKS.sub("", line.strip().replace(" [title]", ". "))).strip()
