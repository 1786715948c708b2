"""The scorer of engines from wheels: questions as it reads them, and scores only of what adds up."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from meltrepro.accuracy.questions import Question
from meltrepro.accuracy.scores import metric_name
from meltrepro.build.model import PathOf
from meltrepro.errors import DataError, RecordError
from meltrepro.frameworks.prebuilt.scorer import LogitsScorer
from meltrepro.record.trial import ScoringRequest

SCORER = LogitsScorer()
DONE = {"done": True}


def request(task: str, **more: Any) -> ScoringRequest:
    mode = SCORER.mode(task)
    return ScoringRequest(
        task=task, mode=mode, model="", context=64, threads=1, batch=8, data="0" * 64, inputs={}, **more
    )


def answer(number: int, chosen: int, *, right: bool) -> dict[str, Any]:
    scores = [-3.5, -3.0]
    scores[chosen] = -1.25
    return {"question": number, "chosen": chosen, "right": right, "scores": scores, "tokens": [1, 2]}


def said(*lines: object) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_answers_stand_behind_their_question() -> None:
    question = Question(1, "A kettle", ("heats water.", "cools milk."), 0)
    for task in ("piqa", "hellaswag"):
        sheet = SCORER.sheet(SCORER.mode(task), [question], "1")
        (asked,) = json.loads(sheet.content)["questions"]
        texts = ["A kettle heats water.", "A kettle cools milk."]
        assert asked == {"question": "A kettle", "texts": texts, "gold": 0}
        assert (sheet.questions, sheet.padding, sheet.sequences) == (1, 0, 2)


def test_of_a_sentence_with_a_gap_counts_what_follows_the_gap() -> None:
    question = Question(1, "The cup, as _ saw, was empty.", ("Ann", "Eve"), 1)
    mode = SCORER.mode("winogrande")
    (asked,) = json.loads(SCORER.sheet(mode, [question], "1").content)["questions"]
    assert asked["texts"][1] == "The cup, as Eve saw, was empty."
    assert asked["given"] == ["The cup, as Ann", "The cup, as Eve"]
    assert SCORER.holds(mode, question)
    gapless = Question(2, "Nothing is missing.", ("Ann", "Eve"), 1)
    assert not SCORER.holds(mode, gapless)
    with pytest.raises(DataError, match="question 2 has no gap"):
        SCORER.sheet(mode, [gapless], "1")


def test_right_answers_are_counted() -> None:
    lines = [answer(1, 0, right=True), answer(2, 1, right=False), answer(3, 1, right=True)]
    (score,) = SCORER.read(request("piqa", questions=3), said(*lines, DONE), "")
    assert (score.metric, score.n, score.k, score.value) == ("acc", 3, 2, 2 / 3)
    (score,) = SCORER.read(request("truthfulqa", questions=3), said(*lines, DONE), "")
    assert score.metric == "mc1"


def summed(number: int, gold: int) -> dict[str, Any]:
    """The mean chooses the second answer, the sum and the sum over its characters the first."""
    more = {"sums": [-8.0, -9.0], "characters": [10, 10], "gold": gold}
    return {**answer(number, 1, right=gold == 1), **more}


def test_sums_count_by_the_rules_of_others() -> None:
    long = {**summed(3, 1), "characters": [10, 20]}
    scores = SCORER.read(request("piqa", questions=3), said(summed(1, 0), summed(2, 1), long, DONE), "")
    assert [(score.metric, score.k, score.n) for score in scores] == [
        ("acc", 2, 3),
        ("acc_sum", 1, 3),
        ("acc_norm", 2, 3),
    ]
    names = ["accuracy.piqa", "accuracy.piqa.acc_sum", "accuracy.piqa.acc_norm"]
    assert [metric_name(score) for score in scores] == names


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sums": [-1.0]}, "ValueError"),
        ({"sums": [1.0, -1.0]}, "no log-probability"),
        ({"characters": [0, 1]}, "ZeroDivisionError"),
        ({"gold": 0}, "of question 1 number 0 is right, and it chose 1"),
    ],
)
def test_sums_that_do_not_add_up_are_no_score(change: dict[str, Any], why: str) -> None:
    with pytest.raises(RecordError, match=why):
        SCORER.read(request("piqa", questions=1), said({**summed(1, 1), **change}, DONE), "")


def test_perplexity_is_the_mean_over_all_windows() -> None:
    windows = [
        {"window": 1, "tokens": 31, "sum": 62.0, "squares": 150.0},
        {"window": 2, "tokens": 31, "sum": 31.0, "squares": 50.0},
    ]
    (score,) = SCORER.read(request("perplexity", chunks=2), said(*windows, DONE), "")
    assert score.value == pytest.approx(math.exp(1.5))
    assert score.n == 62
    assert score.stderr == pytest.approx(math.exp(1.5) * math.sqrt((200 / 62 - 1.5**2) / 61))


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([answer(1, 0, right=True)], "its end is missing"),
        ([DONE], "asked 2 questions and answered 0"),
        ([answer(1, 0, right=True), answer(3, 0, right=True), DONE], "asked 2 questions"),
        ([answer(1, 0, right=True), {**answer(2, 0, right=True), "chosen": 1}, DONE], "not the most probable"),
        ([answer(1, 0, right=True), {**answer(2, 0, right=True), "scores": [float("nan"), -1]}, DONE], "no log-prob"),
        ([answer(1, 0, right=True), {**answer(2, 0, right=True), "scores": [2.5, -1]}, DONE], "no log-probability"),
        ([answer(1, 0, right=True), {"question": 2}, DONE], "KeyError"),
        ([answer(1, 0, right=True), {"question": 2, "scores": 3, "chosen": 0}, DONE], "TypeError"),
    ],
)
def test_what_does_not_add_up_is_no_score(lines: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(RecordError, match=why):
        SCORER.read(request("piqa", questions=2), said(*lines), "")


@pytest.mark.parametrize("garbage", ["", "{", "done\n", '{"window": 1}\n{"done": true}\n', '[1]\n{"done": true}\n'])
def test_garbage_is_no_perplexity(garbage: str) -> None:
    with pytest.raises(RecordError, match="does not add up"):
        SCORER.read(request("perplexity", chunks=1), garbage, "")


def test_windows_that_are_missing_are_missed() -> None:
    lines = said({"window": 1, "tokens": 31, "sum": 62.0, "squares": 150.0}, DONE)
    with pytest.raises(RecordError, match="windows of the text are missing"):
        SCORER.read(request("perplexity", chunks=2), lines, "")


COMPARED = {"window": 1, "tokens": 31, "sum": 62.0, "squares": 150.0, "divergence": 3.1, "divergence_squares": 0.62}


def test_a_divergence_is_the_mean_over_all_tokens() -> None:
    windows = [{**COMPARED, "same_top": 30}, {**COMPARED, "window": 2, "divergence": 0.0, "same_top": 27}]
    asked = request("kl-divergence", chunks=2)
    divergence, perplexity, same = SCORER.read(asked, said(*windows, DONE), "")
    assert (divergence.metric, divergence.n) == ("kl_divergence", 62)
    assert divergence.value == pytest.approx(0.05)
    assert divergence.stderr == pytest.approx(math.sqrt((1.24 / 62 - 0.05**2) / 61))
    assert perplexity.metric == "perplexity"
    assert perplexity.value == pytest.approx(math.exp(2))
    assert (same.metric, same.k, same.n) == ("same_top", 57, 62)


def test_a_comparison_takes_the_text_and_what_is_expected_of_it() -> None:
    names = [each.name for each in SCORER.arguments(request("kl-divergence"), "1") if isinstance(each, PathOf)]
    assert names == ["request.json", "data", "logits"]
    assert SCORER.inputs("perplexity") == ("data",)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"refused": "the unquantized model has another vocabulary"}, "gave up: the unquantized model has another voc"),
        ({**COMPARED, "same_top": 32}, "32 of 31 tokens"),
        ({**COMPARED, "same_top": 3, "divergence": float("inf")}, "no number"),
        (COMPARED, "KeyError"),
    ],
)
def test_what_cannot_be_compared_is_no_score(line: dict[str, Any], why: str) -> None:
    lines = (line,) if "refused" in line else (line, DONE)
    with pytest.raises(RecordError, match=why):
        SCORER.read(request("kl-divergence", chunks=1), said(*lines), "")
