"""Questions in the formats that llama.cpp's scorer reads, byte for byte as its sources of 2024 and 2026 parse them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from meltrepro.accuracy.questions import Question, Sheet
from meltrepro.errors import DataError

MOST_ANSWERS = 100
"""The scorer takes no question with more."""
_FILLER = Question(0, "It is", ("so.", "not."), 0)


def multiple_choice(questions: Sequence[Question], fewest: int = 1) -> Sheet:
    """`--multiple-choice`: count and offsets as uint32, then per question its text, mc1 and mc2 answers with labels.

    Fewer than `fewest` questions are filled up at the end with ones that do not count.
    """
    padding = max(0, fewest - len(questions))
    tasks = [_task(question) for question in (*questions, *[_FILLER] * padding)]
    offset, offsets = 4 + 4 * len(tasks), []
    for task in tasks:
        offsets.append(offset)
        offset += len(task)
    head = struct.pack(f"<I{len(tasks)}I", len(tasks), *offsets)
    return Sheet(head + b"".join(tasks), len(questions), padding, max(len(q.answers) for q in questions))


def hellaswag(questions: Sequence[Question]) -> Sheet:
    """`--hellaswag`: six lines per question: context, index of the right ending, four endings."""
    lines: list[str] = []
    for question in questions:
        if len(question.answers) != 4:
            raise DataError(f"question {question.number} has {len(question.answers)} endings, expected 4")
        lines += [question.text, str(question.gold), *question.answers]
    if any("\n" in line or "\r" in line for line in lines):
        raise DataError("a question has a line break, which the scorer's format cannot hold")
    return Sheet(("\n".join(lines) + "\n").encode(), len(questions), 0, 4)


def winogrande(questions: Sequence[Question]) -> Sheet:
    """`--winogrande`: CSV without a heading: number, sentence with `_`, two choices, 1 or 2."""
    lines = [_line(question) for question in questions]
    return Sheet(("\n".join(lines) + "\n").encode(), len(questions), 0, 2)


def holds_sentence(question: Question) -> bool:
    """Whether the scorer's CSV can hold a sentence.

    It knows no doubled quotes; and with nothing before the `_` the scorer writes before its own memory, where a model has
    no token for the beginning of a text.
    """
    return not question.text.startswith("_") and _written(question) is not None


def _task(question: Question) -> bytes:
    if len(question.answers) > MOST_ANSWERS:
        raise DataError(f"question {question.number} has {len(question.answers)} answers, at most {MOST_ANSWERS}")
    one = [(answer, i == question.gold) for i, answer in enumerate(question.answers)]
    return _text(question.text) + _answers(one) + _answers(question.also)


def _answers(answers: Sequence[tuple[str, bool]]) -> bytes:
    texts = b"".join(_text(answer) for answer, _ in answers)
    return struct.pack("<I", len(answers)) + texts + struct.pack(f"<{len(answers)}i", *(right for _, right in answers))


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<I", len(content)) + content


def _line(question: Question) -> str:
    sentence = _written(question)
    if sentence is None:
        raise DataError(
            f"question {question.number} has commas and quotes, which the scorer's CSV cannot hold together"
        )
    return f"{question.number},{sentence},{','.join(question.answers)},{question.gold + 1}"


def _written(question: Question) -> str | None:
    """The sentence as the scorer reads it back, with quotes around it only where they are needed."""
    if any(sign in part for part in (question.text, *question.answers) for sign in "\r\n"):
        return None
    if any(sign in answer for answer in question.answers for sign in ',"'):
        return None
    for sentence in (question.text, f'"{question.text}"'):
        if _parsed(f"0,{sentence},a,b,1") == question.text:
            return sentence
    return None


def _parsed(line: str) -> str | None:
    """The sentence that the scorer takes out of a line."""
    commas: list[int] = []
    quoted = False
    for i, sign in enumerate(line):
        if sign == '"':
            quoted = not quoted
        elif sign == "," and not quoted:
            commas.append(i)
            if len(commas) == 4:
                break
    if len(commas) != 4 or line[commas[2] + 1 : commas[3]] != "b":
        return None
    start, end = commas[0] + 1, commas[1]
    return line[start + 1 : end - 1] if line[start] == '"' else line[start:end]
