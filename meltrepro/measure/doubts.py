"""What a reader must know of a cell's repetitions, in the same words on the console and in a report."""

from __future__ import annotations

from collections.abc import Mapping

from meltrepro.measure.records import CellRecord
from meltrepro.measure.validity import Validity
from meltrepro.words import counted

_MOST = 3
"""Repetitions whose reasons are told."""


def doubts(cell: CellRecord) -> tuple[str, ...]:
    """`1 of 3 repetitions INVALID: r001 too-short: ...`, and the same of those that failed; raises `RecordError`."""
    invalid = "INVALID, counted all the same" if cell.with_invalid else "INVALID"
    groups = ((cell.invalid, invalid), (cell.failed, "failed"))
    return tuple(
        f"{len(group)} of {counted(cell.asked, 'repetition')} {what}: {_listed(group)}"
        for group, what in groups
        if group
    )


def _listed(judged: Mapping[str, Validity]) -> str:
    names = sorted(judged)
    shown = [f"{name} {'; '.join(map(str, judged[name].findings))}" for name in names[:_MOST]]
    return ", ".join([*shown, *([f"{len(names) - _MOST} more"] if len(names) > _MOST else [])])
