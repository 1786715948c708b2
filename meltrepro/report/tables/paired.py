"""Right answers of quantizations against each other, question by question."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from meltrepro.report.cells import WHO, ordered, who
from meltrepro.report.results import CellResult, Results
from meltrepro.report.values import Column, Table, Value, named
from meltrepro.stats.paired import Pairs, paired

_POINTS = 100
_NOTE = (
    "Each quantization against that of the same model, device and software with the largest file, on the questions that both"
    " were asked. Lost: right there alone; won: right here alone. Difference in points with a paired 95 % interval (Bonett"
    " and Price 2012); p by McNemar's exact test. A p is that of its row alone: of twenty rows without any difference one is"
    " below 0.05 by chance."
)


def quantizations(results: Results) -> Table:
    """What each quantization costs in right answers, told by the same questions."""
    columns = (
        *(*WHO, *named("task", "against"), Column("questions", "questions", "number")),
        *(Column("lost", "lost", "number"), Column("won", "won", "number")),
        *(Column("points", "difference (points)", "number"), Column("low", "low", "number")),
        *(Column("high", "high", "number"), Column("p", "p", "number")),
    )
    rows = tuple(
        (
            *(*who(results, cell), task, other.quantization, found.n, found.lost, found.won),
            *(_POINTS * found.difference, *(_POINTS * end for end in found.interval()), found.p),
        )
        for task, other, cell, found in _pairs(results)
    )
    why = "no two quantizations of a model were asked the same questions with the same software on one device"
    return Table("paired-accuracy", "Accuracy, paired", columns, rows, (_NOTE,) if rows else (), None if rows else why)


def _pairs(results: Results) -> Iterator[tuple[str, CellResult, CellResult, Pairs]]:
    """Task, the cell with the largest file, the other one, and what both made of their questions."""

    def alike(cell: CellResult) -> tuple[Value, ...]:
        return results.title(cell.device), cell.framework, cell.release, cell.model, cell.workload

    cells = [cell for cell in ordered(results.cells) if cell.right and cell.model_bytes and not cell.synthetic]
    for _, group in groupby(sorted(cells, key=lambda cell: tuple(map(str, alike(cell)))), key=alike):
        own = list(group)
        largest = max(own, key=lambda cell: cell.model_bytes or 0)
        for cell in own:
            found = paired(largest.right, cell.right)
            if found is not None and cell.quantization != largest.quantization:
                yield cell.scores[0].task, largest, cell, found
