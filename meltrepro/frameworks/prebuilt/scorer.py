"""The scorer of engines from wheels (`melt-scorer`): log-probabilities from logits, by the rules of llama.cpp's own scorer."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from meltrepro.accuracy.questions import Question, Sheet
from meltrepro.accuracy.scores import Score, counted, of_each
from meltrepro.build.model import Argument, PathOf
from meltrepro.errors import DataError, RecordError
from meltrepro.frameworks.base import DATA, LOGITS
from meltrepro.manifest.accuracy import TextWorkload
from meltrepro.record.trial import REQUEST, Mode, ScoringRequest

_GAP = "_"
_MODES: dict[str, Mode] = {"winogrande": "gap", "perplexity": "perplexity", "kl-divergence": "kl-divergence"}
"""Of tasks that do not put questions with answers behind them."""
_DAMAGED = "the scorer's output does not add up: "
_HINT = "the scorer's whole output is in stdout.log and stderr.log of the record"


class LogitsScorer:
    """The `Scorer` of every engine that gives logits."""

    program = "bin/melt-scorer"

    def refusal(self, task: str) -> str | None:
        return None

    def takes(self, options: Mapping[str, JsonValue]) -> dict[str, JsonValue] | None:
        return dict(options)

    def mode(self, task: str) -> Mode:
        return _MODES.get(task, "answers")

    def holds(self, mode: Mode, question: Question) -> bool:
        """Sentences with one gap; else anything."""
        return mode != "gap" or question.text.count(_GAP) == 1

    def sheet(self, mode: Mode, questions: Sequence[Question], release: str) -> Sheet:
        """JSON of whole texts: of a sentence with a gap, what follows the gap counts, else what answers do not have in common."""
        asked = [_gap(each) if mode == "gap" else _answers(each) for each in questions]
        content = json.dumps({"questions": asked}, ensure_ascii=False).encode()
        return Sheet(content, len(questions), 0, max(len(question.answers) for question in questions))

    def inputs(self, mode: Mode) -> Collection[str]:
        """The text too where a model is compared, so that other tokens are noticed."""
        return (DATA, LOGITS) if mode == "kl-divergence" else (DATA,)

    def arguments(self, request: ScoringRequest, release: str) -> tuple[Argument, ...]:
        return PathOf(REQUEST), *map(PathOf, self.inputs(request.mode))

    def read(self, request: ScoringRequest, stdout: str, stderr: str) -> tuple[Score, ...]:
        """The scores, recomputed from the log-probabilities; raises `RecordError` where lines are missing or contradict each other."""
        try:
            lines = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
            if lines and "refused" in lines[-1]:
                raise RecordError(f"the scorer gave up: {lines[-1]['refused']}", hint=_HINT)
            if not lines or lines.pop() != {"done": True}:
                raise _damaged("its end is missing")
            if request.mode == "kl-divergence":
                return _divergence(request, lines)
            if request.mode == "perplexity":
                return (_perplexity(request, lines),)
            return (_chosen(request, lines), *_by_sums(request, lines))
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise _damaged(f"{type(error).__name__}: {error}") from error

    def logits_command(self, workload: TextWorkload, release: str) -> tuple[str, ...]:
        raise LookupError("another framework makes what it compares with")

    def check_logits(self, workload: TextWorkload, path: Path, printed: str) -> None:
        raise LookupError("another framework makes what it compares with")


def _answers(question: Question) -> Mapping[str, Any]:
    texts = [f"{question.text} {answer}" for answer in question.answers]
    return {"question": question.text, "texts": texts, "gold": question.gold}


def _gap(question: Question) -> Mapping[str, Any]:
    before, gap, behind = question.text.partition(_GAP)
    if not gap:
        raise DataError(f"question {question.number} has no gap, which is written {_GAP}")
    given = [before + answer for answer in question.answers]
    return {"texts": [each + behind for each in given], "given": given, "gold": question.gold}


def _chosen(request: ScoringRequest, lines: Sequence[Mapping[str, Any]]) -> Score:
    asked = request.questions or 0
    if [line["question"] for line in lines] != list(range(1, asked + 1)):
        raise _damaged(f"it was asked {asked} questions and answered {len(lines)}")
    for line in lines:
        scores = [_log_probability(score) for score in line["scores"]]
        if line["chosen"] != scores.index(max(scores)):
            raise _damaged(
                f"of question {line['question']} it chose {line['chosen']}, which is not the most probable answer"
            )
    right = [line["right"] is True for line in lines]
    return of_each(request.task, "mc1" if request.task == "truthfulqa" else "acc", right)


def _by_sums(request: ScoringRequest, lines: Sequence[Mapping[str, Any]]) -> Iterator[Score]:
    """By the rules of lm-evaluation-harness: the answer with the highest sum over all of its tokens (its `acc`), or over the number of
    its characters (its `acc_norm`). None of a scorer that printed no sums, as that of sentences with a gap."""
    if not any("sums" in line for line in lines):
        return
    right = {"acc_sum": 0, "acc_norm": 0}
    for line in lines:
        sums = [_log_probability(each) for each in line["sums"]]
        norms = [each / length for each, length in zip(sums, line["characters"], strict=True)]
        if line["right"] is not (line["chosen"] == line["gold"]):
            raise _damaged(
                f"of question {line['question']} number {line['gold']} is right, and it chose {line['chosen']}"
            )
        for metric, values in (("acc_sum", sums), ("acc_norm", norms)):
            right[metric] += values.index(max(values)) == line["gold"]
    for metric, k in right.items():
        yield counted(request.task, metric, len(lines), k)


def _perplexity(request: ScoringRequest, lines: Sequence[Mapping[str, Any]]) -> Score:
    """exp(m) of the mean m of negative log-probabilities, and the standard error exp(m) s / sqrt(n - 1), as llama.cpp has it."""
    n, mean, error = _mean(request, lines, "sum", "squares")
    value = math.exp(-_log_probability(-mean))
    return Score(request.task, "perplexity", value, None if error is None else value * error, n, None)


def _divergence(request: ScoringRequest, lines: Sequence[Mapping[str, Any]]) -> tuple[Score, ...]:
    """The mean divergence, in nats a token; as llama.cpp's scorer has them, perplexity and the share of the same top tokens."""
    n, mean, error = _mean(request, lines, "divergence", "divergence_squares")
    if not math.isfinite(mean):
        raise _damaged(f"a divergence of {mean} is no number")
    same = sum(int(line["same_top"]) for line in lines)
    if any(not 0 <= line["same_top"] <= line["tokens"] for line in lines):
        raise _damaged(f"{same} of {n} tokens have the same top token")
    return (
        Score(request.task, "kl_divergence", mean, error, n, None),
        _perplexity(request, lines),
        counted(request.task, "same_top", n, same),
    )


def _mean(
    request: ScoringRequest, lines: Sequence[Mapping[str, Any]], sums: str, squares: str
) -> tuple[int, float, float | None]:
    """Tokens of all windows, the mean of what was summed, and its standard error s / sqrt(n - 1)."""
    if [line["window"] for line in lines] != list(range(1, (request.chunks or len(lines)) + 1)):
        raise _damaged("windows of the text are missing")
    n = sum(int(line["tokens"]) for line in lines)
    mean = sum(line[sums] for line in lines) / n
    variance = max(sum(line[squares] for line in lines) / n - mean * mean, 0.0)
    return n, mean, math.sqrt(variance / (n - 1)) if n > 1 else None


def _log_probability(number: Any) -> float:
    if not isinstance(number, float | int) or not math.isfinite(number) or number > 0:
        raise _damaged(f"{str(number)[:40]} is no log-probability")
    return float(number)


def _damaged(why: str) -> RecordError:
    return RecordError(_DAMAGED + why, hint=_HINT)
