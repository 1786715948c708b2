"""Answers in a model's own words: what data are read, and when an answer is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meltrepro.accuracy.answers import PROMPTS, AnswerCheck, AnswerMark, Checks, Stop, ask, marks, scores_of
from meltrepro.accuracy.scores import metric_name, score_metrics
from meltrepro.errors import DataError, RecordError
from meltrepro.manifest.accuracy import AnswerTask, AnswerWorkload
from meltrepro.record.trace import Turn
from meltrepro.untrusted import parse
from tests.support.manifests import DIGEST, GOOD, load, problems

OURS = Path(__file__).parents[2] / "specs" / "texts" / "instructions.jsonl"


def workload(task: AnswerTask, **keys: object) -> AnswerWorkload:
    return AnswerWorkload.model_validate({"task": task, "data": {"file": "x"}, **keys})


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def asked(task: AnswerTask, *rows: object, **keys: object) -> tuple[tuple[str, ...], Checks]:
    return ask(workload(task, **keys), lines(*rows), DIGEST, "the data")


def turn(text: str, answer: str | None = None) -> Turn:
    return Turn(0, 0, 9, None, (1,), (1,), 1, 2, "eog", text, answer=answer)


def word_problem(number: str) -> dict[str, str]:
    return {"question": f"How much is {number}?", "answer": f"It is <<1+1=2>>2.\n#### {number}"}


def mark_number(gold: str, answer: str) -> AnswerMark:
    _, checks = asked("gsm8k", word_problem(gold))
    (mark,) = marks(checks, [turn(answer)])
    return mark


def mark_rule(answer: str, **rule: object) -> AnswerMark:
    _, checks = asked("instructions", {"prompt": "Do it.", "rules": [rule]})
    (mark,) = marks(checks, [turn(answer)])
    return mark


@pytest.mark.parametrize(
    ("gold", "answer", "right", "strict", "found"),
    [
        ("72", "48 + 24 = 72\n#### 72", True, True, "72"),
        ("72", "The answer is 72.", True, False, "72"),
        ("1,450", "That makes $1,450.", True, False, "1450"),
        ("1450", "#### 1,450", True, True, "1450"),
        ("-3", "#### -3", True, True, "-3"),
        ("72", "#### 72\nThat took me 2 minutes.", False, True, "2"),
        ("72", "#### 71\n#### 72", True, False, "72"),
        ("18", "It is 18.0", False, False, "18.0"),
        ("72", "Seventy-two.", False, False, None),
        ("72", "", False, False, None),
        ("72", "####72", True, False, "72"),
    ],
)
def test_numbers_are_found_as_by_lm_evaluation_harness(
    gold: str, answer: str, right: bool, strict: bool, found: str | None
) -> None:
    assert mark_number(gold, answer) == AnswerMark(1, right, gold.replace(",", ""), found, answer, strict)


@pytest.mark.parametrize(
    ("rule", "kept", "broken", "reason"),
    [
        ({"kind": "words", "least": 2}, "Good day.", "Hello -", "1 word, at least 2"),
        ({"kind": "words", "most": 2}, "Good day.", "A good day", "3 words, at most 2"),
        ({"kind": "bullets", "least": 2, "most": 2}, "Well:\n- a\n  * b", "- a\n-b\n-", "1 bullet point, at least 2"),
        ({"kind": "upper-case"}, "A, 1!", "a, 1!", "not all letters are capital"),
        ({"kind": "upper-case"}, "ÜBER", "12", "not all letters are capital"),
        ({"kind": "lower-case"}, "a, 1!", "A, 1!", "not all letters are small"),
        ({"kind": "contains", "text": "Kettle"}, "two kettles", "a pot", "'Kettle' is not in it"),
        ({"kind": "lacks", "text": "snow"}, "ice", "Snowflakes", "'snow' is in it"),
        ({"kind": "begins-with", "text": "Yes,"}, "Yes, it is", "yes, it is", "it does not begin with 'Yes,'"),
        ({"kind": "ends-with", "text": "Bye."}, "So.\nBye.\n", "Bye. Oh!", "it does not end with 'Bye.'"),
        ({"kind": "json", "keys": ["a", "b"]}, '{"a": 1, "b": {}}', '{"a": 1}', "it lacks the key 'b'"),
        ({"kind": "json"}, "```json\n{}\n```", "Here: {}", "it is no JSON"),
        ({"kind": "json"}, "{}", "[1]", "it is JSON, and no mapping"),
        ({"kind": "json"}, "{}", "[" * 5000, "it is no JSON"),
    ],
)
def test_rules_are_checked_to_the_letter(rule: dict[str, object], kept: str, broken: str, reason: str) -> None:
    right, wrong = mark_rule(kept, **rule), mark_rule(broken, **rule)
    assert (right.right, right.found) == (True, None)
    assert (wrong.right, wrong.found, wrong.answer) == (False, reason, broken.strip())


def test_all_rules_must_be_kept() -> None:
    rules = [{"kind": "upper-case"}, {"kind": "words", "most": 1}]
    _, checks = asked("instructions", {"prompt": "Shout.", "rules": rules})
    found = [marks(checks, [turn(text)])[0] for text in ("HEY", "Hey", "hey there")]
    assert [mark.right for mark in found] == [True, False, False]
    assert found[2].expected == "upper-case; words most 1"
    assert found[2].found == "not all letters are capital; 2 words, at most 1"


def test_thinking_is_no_part_of_an_answer() -> None:
    _, checks = asked("gsm8k", word_problem("4"), word_problem("5"))
    found = marks(checks, [turn("<think>4 or 9</think>9", answer="9"), turn("<think>5", answer="")])
    assert [mark.right for mark in found] == [False, False]


def test_questions_are_put_as_the_task_or_the_manifest_says() -> None:
    prompts, checks = asked("gsm8k", word_problem("4"), word_problem("5"))
    assert prompts[1] == PROMPTS["gsm8k"].replace("{question}", "How much is 5?")
    assert checks == Checks(
        task="gsm8k", data=DIGEST, questions=[AnswerCheck(number=1, gold="4"), AnswerCheck(number=2, gold="5")]
    )
    prompts, checks = asked("gsm8k", word_problem("4"), word_problem("5"), questions=1, prompt="Q: {question} {x}")
    assert prompts == ("Q: How much is 4? {x}",)
    many = [word_problem(str(n)) for n in range(50)]
    drawn = asked("gsm8k", *many, questions=5, sample=1)[1]
    assert drawn == asked("gsm8k", *many, questions=5, sample=1)[1]
    assert [check.number for check in drawn.questions] != [1, 2, 3, 4, 5]


def test_checks_are_read_back_from_a_record() -> None:
    _, checks = asked("instructions", {"prompt": "x", "rules": [{"kind": "words", "most": 3}, {"kind": "json"}]})
    assert parse(Checks, checks.model_dump_json()) == checks
    with pytest.raises(ValueError, match="questions"):
        parse(Checks, json.dumps({"task": "gsm8k", "data": DIGEST, "questions": []}))


def test_scores_are_shares_of_right_answers() -> None:
    found = [
        AnswerMark(1, True, "4", "4", "4", True),
        AnswerMark(2, True, "4", "4", "4", False),
        AnswerMark(3, False, "4", "4", "4", False),
        AnswerMark(4, True, "4", "4", "4", True),
    ]
    scores = scores_of("gsm8k", found)
    assert [(metric_name(score), score.k, score.n) for score in scores] == [
        ("accuracy.gsm8k", 3, 4),
        ("accuracy.gsm8k.strict", 2, 4),
    ]
    assert score_metrics(scores) == {"accuracy.gsm8k": 0.75, "accuracy.gsm8k.strict": 0.5}
    assert [score.metric for score in scores_of("instructions", [AnswerMark(1, True, "json", None, "{}")])] == ["acc"]


def test_a_turn_too_few_is_no_score() -> None:
    _, checks = asked("gsm8k", word_problem("4"), word_problem("5"))
    with pytest.raises(RecordError, match="2 questions were asked, the record has 1 turns"):
        marks(checks, [turn("4")])


RULE = {"kind": "json"}


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("gsm8k", [{"question": "How much?"}], "question 1: expected text in 'answer', got nothing"),
        ("gsm8k", [{"answer": "#### 1"}], "question 1: expected text in 'question', got nothing"),
        ("gsm8k", [{"question": "  ", "answer": "#### 1"}], "question 1 is empty"),
        ("gsm8k", [word_problem("4"), word_problem("four")], r"question 2: expected an 'answer' that ends in '#### N"),
        ("gsm8k", [{"question": "How much?", "answer": 4}], "question 1: expected text in 'answer', got 4"),
        ("gsm8k", [], "the data set has no question that can be asked"),
        ("instructions", [{"prompt": "x"}], "question 1: expected a list of 'rules' that an answer must keep"),
        ("instructions", [{"prompt": "x", "rules": []}], "question 1: expected a list of 'rules'"),
        ("instructions", [{"prompt": "", "rules": [RULE]}], "question 1 is empty"),
        (
            "instructions",
            [{"prompt": "x", "rules": [RULE, {"kind": "rhyme"}]}],
            "line 1: question 1: rules.1.: expected the key 'kind' to be one of words, bullets, .*, got 'rhyme'",
        ),
        (
            "instructions",
            [{"prompt": "x", "rules": [{"kind": "words"}]}],
            r"rules\[0\]: expected 'least', 'most' or both",
        ),
        (
            "instructions",
            [{"prompt": "x", "rules": [{"kind": "words", "least": 3, "most": 1}]}],
            "least 3 is more than",
        ),
        (
            "instructions",
            [{"prompt": "x", "rules": [{"kind": "words", "at_least": 3}]}],
            r"question 1: rules\[0\]: unknown key 'at_least' \(did you mean 'least'\?\)",
        ),
        ("instructions", [{"prompt": "x", "rules": ["json"]}], r"rules\[0\]: expected a mapping, got 'json'"),
        ("instructions", [{"prompt": "x", "rules": [{"text": "y"}]}], "expected the key 'kind' .*, got nothing"),
        ("instructions", [{"prompt": "x", "rules": [{"kind": "jsn"}]}], "got 'jsn' .did you mean 'json'"),
        ("instructions", [{"prompt": "x", "rules": [{"kind": "words", "most": "3"}]}], "most: expected a whole number"),
        ("instructions", [{"prompt": "x", "rules": [RULE]}, {"prompt": ""}], "line 2: question 2 is empty"),
    ],
)
def test_data_that_cannot_be_asked_are_one_clear_line(task: AnswerTask, rows: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        asked(task, *rows)
    assert caught.value.message.startswith("the data: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint == f"what {task} reads: docs/accuracy.md"


def test_more_questions_than_there_are_are_refused() -> None:
    with pytest.raises(DataError, match="3 questions are asked for, the data set has 1"):
        asked("gsm8k", word_problem("4"), questions=3)


def test_our_own_instructions_can_be_kept() -> None:
    prompts, checks = ask(workload("instructions"), OURS.read_bytes(), DIGEST, "ours")
    assert len(prompts) == len(set(prompts)) == 40
    kinds = {rule.kind for check in checks.questions for rule in check.rules}
    assert kinds >= {"words", "bullets", "upper-case", "lower-case", "contains", "lacks", "json", "ends-with"}
    asked_for = [check for check in checks.questions if len(check.rules) > 1]
    assert len(asked_for) >= 10, "several rules at once"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("task: gsm8k\n    data: {file: x}\n    chunks: 2", "unknown key 'chunks'"),
        ("task: gsm9k\n    data: {file: x}", "did you mean 'gsm8k'?"),
        ("task: instructions\n    data: {folder: x}", "expected one file of data"),
        ("task: gsm8k\n    data: {file: x}\n    prompt: Answer!", "workloads.chat.prompt"),
    ],
)
def test_slips_in_the_manifest(tmp_path: Path, keys: str, said: str) -> None:
    text = GOOD.replace("    conversations: [[Hello, Again], [Bye]]\n", f"    {keys}\n")
    assert said in "\n".join(map(str, problems(tmp_path, text)))


def test_a_workload_of_answers_is_talked_to_and_scored(tmp_path: Path) -> None:
    text = GOOD.replace("    conversations: [[Hello, Again], [Bye]]\n", "    task: gsm8k\n    data: {file: x}\n")
    manifest = load(tmp_path, text).manifest
    assert list(manifest.accuracy) == list(manifest.talks) == ["chat"]
    assert not manifest.conversations
    assert manifest.workloads["chat"].context == 2048


def test_questions_that_are_asked_in_parts_come_in_an_order_that_is_drawn() -> None:
    rows = [word_problem(str(n)) for n in range(30)]
    prompts, checks = asked("gsm8k", *rows, stop_within=5, stop_every=20, prompt="{question}")
    assert checks.stop == Stop(within=5, every=20, total=30)
    numbers = [check.number for check in checks.questions]
    assert sorted(numbers) == list(range(1, 31))
    assert numbers != sorted(numbers)
    assert prompts == tuple(f"How much is {check.gold}?" for check in checks.questions), "each with its own answer"
    assert (checks.part(0), checks.part(1)) == (slice(0, 20), slice(20, 40))
    other = asked("gsm8k", *rows, stop_within=5, sample=1)[1]
    assert [check.number for check in other.questions] != numbers
    assert asked("gsm8k", *rows)[1].part(3) == slice(None)
    assert parse(Checks, checks.model_dump_json()) == checks


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("stop_every: 20", "'stop_every' does nothing without 'stop_within'"),
        ("stop_within: 5\n    repetitions: 2", "with 'stop_within' each trial asks other questions"),
        ("stop_within: 0", "workloads.chat.stop_within"),
    ],
)
def test_slips_of_an_early_stop(tmp_path: Path, keys: str, said: str) -> None:
    lines = f"    task: gsm8k\n    data: {{file: x}}\n    {keys}\n"
    text = GOOD.replace("    conversations: [[Hello, Again], [Bye]]\n", lines)
    assert said in "\n".join(map(str, problems(tmp_path, text)))
