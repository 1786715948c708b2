"""TruthfulQA as its authors publish it: `mc_task.json`, or the CSV with best, correct and incorrect answers."""

from __future__ import annotations

from meltrepro.accuracy.questions import Question
from meltrepro.accuracy.records import Row, text
from meltrepro.errors import DataError

KEYS = frozenset({"question", "mc1_targets", "mc2_targets"})
CSV_KEYS = frozenset({"Question", "Best Answer", "Correct Answers", "Incorrect Answers"})


def read(row: Row, number: int, stem: str) -> Question:
    """One entry of `mc_task.json`; raises `DataError`."""
    one, several = (_targets(row[name], number, name) for name in ("mc1_targets", "mc2_targets"))
    right = [i for i, (_, true) in enumerate(one) if true]
    if len(right) != 1:
        raise DataError(f"question {number}: {len(right)} of its mc1 answers are right, expected 1")
    answers = tuple(answer for answer, _ in one)
    return Question(number, stem.format(text(row, number, "question").strip()), answers, right[0], tuple(several))


def read_csv(row: Row, number: int, stem: str) -> Question:
    """One row of the CSV: the best answer against the incorrect ones. Raises `DataError`."""
    best = _sentence(text(row, number, "Best Answer"))
    true, false = (_split(text(row, number, name)) for name in ("Correct Answers", "Incorrect Answers"))
    if best not in true:
        true = [best, *true]
    several = tuple([(answer, True) for answer in true] + [(answer, False) for answer in false])
    return Question(number, stem.format(text(row, number, "Question").strip()), (best, *false), 0, several)


def _targets(value: object, number: int, name: str) -> list[tuple[str, bool]]:
    """Answer -> 0 or 1, as the authors write it, in order."""
    if not isinstance(value, dict) or not all(label in (0, 1) for label in value.values()):
        raise DataError(f"question {number}: expected a mapping of answers to 0 or 1 in {name!r}")
    return [(str(answer).strip(), bool(label)) for answer, label in value.items()]


def _split(answers: str) -> list[str]:
    return [_sentence(answer) for answer in answers.split(";") if answer.strip()]


def _sentence(answer: str) -> str:
    """With a full stop at the end, as all answers have in the authors' own evaluation."""
    answer = answer.strip()
    return answer if answer.endswith(".") else f"{answer}."
