"""Checks of scores that would have caught the defects found in MELT's accuracy table.

They look at what scores say of each other, so they need no questions: a score that is a count over n can only be one of
n + 1 values, its standard error follows from it, and two models never have the same scores all along.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from meltrepro.report.results import Results

Kind = Literal["no-share", "not-k-over-n", "stderr-not-of-n", "copied-from-model", "same-as-quantization"]
_EXACT = 12
"""Digits of a score that was never printed."""
_FEWEST_ALIKE = 2
"""Scores that agree by chance one by one; from here on it is no chance."""
_LEAST_N = 100
"""Questions below which two models may well have as many right answers."""


@dataclass(frozen=True)
class ScoreRow:
    """One score, whoever computed it."""

    model: str
    quantization: str
    framework: str
    task: str
    value: float
    stderr: float | None = None
    n: int | None = None
    """Questions; `None` where the score is no count, or nobody says."""
    k: int | None = None
    decimals: int = _EXACT
    """Digits after the point that the value was printed with."""
    stderr_decimals: int = 4

    @property
    def name(self) -> str:
        return f"{self.model} {self.quantization} {self.framework} {self.task}"


@dataclass(frozen=True)
class Oddity:
    """Something wrong with one score or several."""

    kind: Kind
    rows: tuple[ScoreRow, ...]
    text: str


def check_scores(rows: Sequence[ScoreRow]) -> tuple[Oddity, ...]:
    """Everything that is wrong with some scores, one by one and beside each other."""
    return (*(remark for row in rows for remark in _alone(row)), *_between_models(rows), *_between_quantizations(rows))


def scores_of(results: Results) -> tuple[ScoreRow, ...]:
    """The counted scores of results."""
    return tuple(
        ScoreRow(
            model=cell.model,
            quantization=cell.quantization,
            framework=f"{cell.framework} {cell.release}".rstrip(),
            task=f"{score.task} {score.metric}",
            value=score.value,
            stderr=score.stderr,
            n=score.n,
            k=score.k,
        )
        for cell in results.cells
        for score in cell.scores
        if score.k is not None
    )


def _alone(row: ScoreRow) -> Iterator[Oddity]:
    if not (math.isfinite(row.value) and 0 <= row.value <= 1):
        yield Oddity("no-share", (row,), f"{row.name}: {row.value} is no share of right answers")
        return
    if row.n is None:
        return
    k = round(row.value * row.n) if row.k is None else row.k
    # Figures are cut off rather than rounded here and there: one unit of the last digit is allowed.
    if not 0 <= k <= row.n or abs(k / row.n - row.value) > 10**-row.decimals:
        count = f"{k}/{row.n}" if row.k is not None else f"any count of {row.n}"
        yield Oddity("not-k-over-n", (row,), f"{row.name}: {row.value} is not {count}")
        return
    if row.stderr is not None:
        expected = standard_error(row.value, row.n)
        if abs(row.stderr - expected) > 10**-row.stderr_decimals:
            text = f"{row.name}: the standard error is {row.stderr}, that of {row.value} over {row.n} is {expected:.4f}"
            yield Oddity("stderr-not-of-n", (row,), text)


def standard_error(share: float, n: int) -> float:
    """Standard error of a share of n answers, from the sample's variance; 0 for a single answer."""
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else 0.0


def _between_models(rows: Sequence[ScoreRow]) -> Iterator[Oddity]:
    """Two models with equal scores of one task in every quantization that both have."""
    tables: dict[tuple[str, str], dict[str, dict[str, ScoreRow]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row.n is None or row.n >= _LEAST_N:
            tables[row.framework, row.task][row.model].setdefault(row.quantization, row)
    for (framework, task), models in tables.items():
        for (first, a), (second, b) in combinations(models.items(), 2):
            common = sorted(a.keys() & b.keys())
            if len(common) >= _FEWEST_ALIKE and all(a[name].value == b[name].value for name in common):
                text = f"{first} and {second} have the same scores of {task} ({framework}) in {', '.join(common)}"
                pairs = tuple(row for name in common for row in (a[name], b[name]))
                yield Oddity("copied-from-model", pairs, f"{text}: one was copied")


def _between_quantizations(rows: Sequence[ScoreRow]) -> Iterator[Oddity]:
    """Two quantizations of one model with equal scores in all tasks that both have."""
    tables: dict[tuple[str, str], dict[str, dict[str, ScoreRow]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row.n is not None and row.n >= _LEAST_N:
            tables[row.model, row.framework][row.quantization].setdefault(row.task, row)
    for (model, framework), quantizations in tables.items():
        for (first, a), (second, b) in combinations(quantizations.items(), 2):
            common = sorted(a.keys() & b.keys())
            if len(common) >= _FEWEST_ALIKE and all(a[name].value == b[name].value for name in common):
                text = f"{model} ({framework}) has the same scores in {first} and {second}: {', '.join(common)}"
                pairs = tuple(row for name in common for row in (a[name], b[name]))
                yield Oddity("same-as-quantization", pairs, f"{text}; the files differ, so the runs may not have")
