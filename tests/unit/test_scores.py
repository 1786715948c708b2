"""What scorers print, as scores: real output of both releases, and every way in which it may not add up."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.accuracy.scores import Score, metric_name, scores_in
from meltrepro.errors import RecordError
from meltrepro.frameworks.llamacpp.scorer_output import read_scores
from meltrepro.record.trial import Mode, ScoringRequest

OUTPUT = Path(__file__).parents[1] / "support" / "scorer"
"""Captured from `perplexity` of both releases with SmolLM2: 20 questions and 80 to fill up, 12, 100, 3 windows of 128."""
RELEASES = ("2024", "2026")


def asked(mode: Mode, questions: int | None = None, padding: int = 0, *, task: str = "piqa") -> ScoringRequest:
    text = questions is None
    return ScoringRequest(
        task=mode if text else task,
        mode=mode,
        model="/model",
        context=128 if text else 512,
        threads=2,
        batch=128,
        data="0" * 64,
        inputs={},
        questions=questions,
        padding=padding,
        chunks=3 if text else None,
    )


def printed(mode: str, release: str) -> tuple[str, str]:
    return (
        (OUTPUT / f"{mode}-{release}.stdout").read_text(encoding="utf-8"),
        (OUTPUT / f"{mode}-{release}.stderr").read_text(encoding="utf-8"),
    )


def lines(right: list[bool]) -> str:
    """The output of an imagined scorer of multiple choice."""
    shares = [f"{n}\t{100 * sum(right[:n]) / n:.8f}" for n in range(1, len(right) + 1)]
    n, k = len(right), sum(right)
    final = [f" Final result: {100 * k / n:.4f} +/- 1.0000"] if n >= 100 else []
    return "\n".join(["", "task\tacc_norm", *shares, "", *final, ""])


@pytest.mark.parametrize(
    ("mode", "release", "questions", "padding", "k"),
    [
        ("multiple-choice", "2024", 20, 80, 3),
        ("multiple-choice", "2026", 20, 80, 2),
        ("multiple-choice", "2024", 100, 0, 3),
        ("hellaswag", "2024", 12, 0, 1),
        ("hellaswag", "2026", 12, 0, 0),
        ("winogrande", "2024", 100, 0, 1),
        ("winogrande", "2026", 100, 0, 1),
    ],
)
def test_questions_of_both_releases(mode: Mode, release: str, questions: int, padding: int, k: int) -> None:
    (score,) = read_scores(asked(mode, questions, padding), *printed(mode, release))
    assert (score.metric, score.n, score.k) == ("acc", questions, k)
    assert score.value == k / questions
    assert score.stderr == pytest.approx(math.sqrt(score.value * (1 - score.value) / (questions - 1)))


@pytest.mark.parametrize(("release", "value", "error"), [("2024", 31.0678, 6.17024), ("2026", 30.9819, 6.13321)])
def test_perplexity_of_both_releases(release: str, value: float, error: float) -> None:
    (score,) = read_scores(asked("perplexity"), *printed("perplexity", release))
    assert score == Score("perplexity", "perplexity", value, error, 3 * 63, None)


def test_divergence_of_the_old_release() -> None:
    divergence, perplexity, same = read_scores(asked("kl-divergence"), *printed("kl-divergence", "2024"))
    assert divergence == Score("kl-divergence", "kl_divergence", 0.25642, 0.011071, 189, None)
    assert perplexity == Score("kl-divergence", "perplexity", 38.627, None, 189, None)
    assert (same.metric, same.k, same.n) == ("same_top", 131, 189)


def test_divergence_of_the_new_release_from_itself() -> None:
    divergence, perplexity, same = read_scores(asked("kl-divergence"), *printed("kl-divergence", "2026"))
    assert divergence.value == pytest.approx(0, abs=1e-5)
    assert perplexity.value == 30.9819
    assert perplexity.stderr == 6.1332
    assert (same.k, same.n) == (189, 189)


@pytest.mark.parametrize("release", RELEASES)
def test_a_divergence_over_few_tokens_has_no_summary(release: str) -> None:
    """With fewer than 100 tokens neither release makes one; the last window then says it, with a digit less."""
    stdout, stderr = printed("kl-divergence", release)
    (third,) = [line for line in stdout.splitlines() if line.startswith("   3 ")]
    few = asked("kl-divergence").model_copy(update={"context": 64})
    cut = stdout.partition(third)[0] + third.replace("0.69312", "0.69892").replace("69.312", "69.892") + "\n"
    divergence, _, same = read_scores(few, cut, stderr)
    assert divergence.n == 93
    assert divergence.value == pytest.approx(read_scores(asked("kl-divergence"), stdout, stderr)[0].value, abs=1e-5)
    assert divergence.stderr is not None
    assert same.k in (65, 93)
    with pytest.raises(RecordError, match="its summary is missing"):
        read_scores(asked("kl-divergence"), cut, stderr)


def test_the_first_answers_of_truthfulqa_are_mc1() -> None:
    request = asked("multiple-choice", 20, 80, task="truthfulqa")
    assert read_scores(request, *printed("multiple-choice", "2024"))[0].metric == "mc1"


def test_names_of_scores() -> None:
    assert metric_name(Score("piqa", "acc", 0.5, None, 2, 1)) == "accuracy.piqa"
    assert metric_name(Score("kl-divergence", "same_top", 0.5, None, 2, 1)) == "quality.same_top"


@given(st.lists(st.booleans(), min_size=1, max_size=150), st.data())
def test_every_score_is_k_of_n(right: list[bool], data: st.DataObject) -> None:
    questions = data.draw(st.integers(1, len(right)))
    (score,) = read_scores(asked("multiple-choice", questions, len(right) - questions), lines(right), "")
    assert (score.n, score.k) == (questions, sum(right[:questions]))
    assert score.value == sum(right[:questions]) / questions


@given(st.lists(st.booleans(), min_size=2, max_size=120), st.data())
def test_a_line_less_is_noticed(right: list[bool], data: st.DataObject) -> None:
    text = lines(right).split("\n")
    del text[data.draw(st.integers(2, 1 + len(right)))]
    with pytest.raises(RecordError, match="does not add up"):
        read_scores(asked("multiple-choice", len(right)), "\n".join(text), "")


def changed(mode: str, release: str, pattern: str, new: str) -> tuple[str, str]:
    texts = printed(mode, release)
    found = [re.subn(pattern, new, text, count=1, flags=re.MULTILINE) for text in texts]
    assert sum(count for _, count in found) >= 1, "the fault must be in the text"
    return found[0][0], found[1][0]


@pytest.mark.parametrize(
    ("mode", "release", "pattern", "new", "expected"),
    [
        ("multiple-choice", "2024", r"Final result: 3\.0", "Final result: 4.0", "its summary says 4 %, and 3 of 100"),
        ("multiple-choice", "2026", r"Final result: 2\.0000", "Final result: nan", "came to nan"),
        ("multiple-choice", "2024", r"^ Final result.*\n", "", "its summary is missing"),
        ("multiple-choice", "2026", r"^.*Final result.*\n", "", "its summary is missing"),
        ("multiple-choice", "2024", r"^57\t.*\n", "", "cannot bring the share"),
        ("multiple-choice", "2024", r"^57\t.*$", "57\t-nan", "came to -nan"),
        ("multiple-choice", "2024", r"^57\t.*$", "57\t9.00000000", "question 57 cannot bring the share to"),
        ("winogrande", "2024", r"score\(100 tasks\)", "score(99 tasks)", "over 99 questions"),
        ("winogrande", "2026", r"^.*Final Winogrande.*\n", "", "its summary is missing"),
        ("hellaswag", "2026", r"^12\t.*\n", "", "was asked 12 questions and answered 11"),
        ("hellaswag", "2024", r"^9\t11.11111111$", "9\t11.1", "cannot bring the share"),
        ("perplexity", "2024", r"^Final estimate.*\n", "", "its summary is missing"),
        ("perplexity", "2024", r"PPL = 31", "PPL = 32", "its last window 31.0678"),
        ("perplexity", "2026", r"PPL = 30.9819", "PPL = nan", "came to nan"),
        ("perplexity", "2024", r"\[2\][^,]*,", "", "windows of the text are missing"),
        ("perplexity", "2024", r",\[3\][^,]*,", ",", "asked for 3 windows of the text and scored 2"),
        ("kl-divergence", "2024", r"^Average.*\n", "", "its summary is missing"),
        ("kl-divergence", "2026", r"^Mean    KLD.*\n", "", "its summary is missing"),
        ("kl-divergence", "2024", r"^Average:   0.256420", "Average:   0.356420", "its last window 0.25642"),
        ("kl-divergence", "2024", r"0\.69312", "0.69400", "no whole number of tokens"),
        ("kl-divergence", "2024", r"0\.69312", "2.00000", "no whole number of tokens"),
        ("kl-divergence", "2024", r"^   3 .*\n", "", "scored 2"),
    ],
)
def test_output_that_does_not_add_up(mode: Mode, release: str, pattern: str, new: str, expected: str) -> None:
    counts = {"multiple-choice": (20, 80), "hellaswag": (12, 0), "winogrande": (100, 0)}.get(mode, (None, 0))
    with pytest.raises(RecordError, match="does not add up") as caught:
        read_scores(asked(mode, *counts), *changed(mode, release, pattern, new))
    assert expected in caught.value.message
    assert caught.value.hint is not None


def test_a_mode_of_another_framework() -> None:
    with pytest.raises(RecordError, match="it has no mode 'cloze'"):
        read_scores(asked("cloze", 20), *printed("multiple-choice", "2026"))


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("multiple_choice_score : task 3 does not fit in the context window", "raise the workload's context"),
        ("perplexity: you need at least 1024 tokens to evaluate perplexity with a context of 512", "a longer text"),
        ("kl_divergence: inconsistent vocabulary (49152 vs 32000)", "the same vocabulary"),
        ("hellaswag_score: llama_decode() failed", "stdout.log"),
    ],
)
def test_a_scorer_that_gives_up(said: str, hint: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_scores(asked("multiple-choice", 20, 80), "", f"loading\n{said}\n")
    assert said in caught.value.message
    assert hint in str(caught.value.hint)


def test_fewer_questions_than_asked() -> None:
    with pytest.raises(RecordError, match="was asked 30 questions and answered 20"):
        read_scores(asked("multiple-choice", 30), lines([True] * 20), "")


def test_logs_that_are_gone(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="stdout.log cannot be read"):
        scores_in(tmp_path, asked("perplexity"), read_scores)
