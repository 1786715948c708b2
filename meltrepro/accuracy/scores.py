"""The scores of accuracy trials as values: taken from a scorer's log whenever they are asked for."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meltrepro import untrusted
from meltrepro.errors import RecordError
from meltrepro.manifest.accuracy import TEXT_TASKS
from meltrepro.record import trial as record
from meltrepro.record.trial import ScoringRequest


@dataclass(frozen=True)
class Score:
    """Right answers of one accuracy task, or a mean over its questions where nothing is counted (mc2)."""

    task: str
    metric: str
    """`acc`, `acc_sum`, `acc_norm`, `strict`, `mc1`, `mc2`, `perplexity`, `kl_divergence`, `same_top`."""
    value: float
    stderr: float | None
    n: int
    k: int | None
    """Right answers; `None` where the metric counts none. Otherwise `value` is `k / n`."""
    right: tuple[bool, ...] = field(default=(), compare=False, repr=False)
    """Whether each answer is right, in the order in which they were asked; empty where that is not known."""


_OTHER_RULES = ("strict", "acc_sum", "acc_norm")
Read = Callable[[ScoringRequest, str, str], tuple[Score, ...]]
"""What was asked, standard output, standard error -> the scores; raises `RecordError`."""


def scores_in(folder: Path, request: ScoringRequest, read: Read) -> tuple[Score, ...]:
    """The scores of a trial, from the logs in its folder; raises `RecordError`."""
    try:
        texts = [_text(folder / name) for name in (record.STDOUT, record.STDERR)]
    except OSError as error:
        raise RecordError(f"{error.filename} cannot be read: {error.strerror}") from error
    return read(request, *texts)


def _text(path: Path) -> str:
    with io.TextIOWrapper(untrusted.opened(path, untrusted.WHOLE), encoding="utf-8", errors="replace") as file:
        return file.read()


def score_metrics(scores: Sequence[Score]) -> dict[str, float]:
    """Scores by the names that tables and MLflow have for them: `accuracy.piqa`, `quality.perplexity`."""
    return {metric_name(score): score.value for score in scores}


def metric_name(score: Score) -> str:
    """`accuracy.TASK` for a share of right answers, `accuracy.TASK.METRIC` by another rule than the task's first, and
    `quality.METRIC` for what is measured on a text."""
    if score.task in TEXT_TASKS:
        return f"quality.{score.metric}"
    return f"accuracy.{score.task}" + (f".{score.metric}" if score.metric in _OTHER_RULES else "")


def counted(task: str, metric: str, n: int, k: int, right: Sequence[bool] = ()) -> Score:
    """The score of `k` right answers of `n`, with the standard error of a share; `right` is each of them, where that is known."""
    p = k / n
    return Score(task, metric, p, math.sqrt(p * (1 - p) / (n - 1)) if n > 1 else None, n, k, tuple(right))


def of_each(task: str, metric: str, right: Sequence[bool]) -> Score:
    """The score of answers of which each is known to be right or wrong."""
    return counted(task, metric, len(right), sum(right), right)
