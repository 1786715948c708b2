"""Tables for people: what is the same in every row is said once instead."""

from __future__ import annotations

from dataclasses import dataclass, replace

from meltrepro.report.values import Table, Tags, plain

_MAY_GO = frozenset({"device", "framework", "release", "workload", "campaign", "tags"})


@dataclass(frozen=True)
class Narrow:
    """A table without its constant columns."""

    table: Table
    common: str
    """`In all rows: framework llama.cpp, campaign 1.`; empty where nothing is common."""


def narrowed(table: Table) -> Narrow:
    """Take out the columns that tell rows apart and do not here; a tag that all rows have stays in sight."""
    if len(table.rows) < 2:
        return Narrow(table, "")
    keep, common = [], []
    for position, column in enumerate(table.columns):
        values = {row[position] for row in table.rows}
        goes = column.key in _MAY_GO and len(values) == 1 and (column.kind != "tags" or values == {Tags(())})
        if not goes:
            keep.append(position)
        elif column.kind != "tags":
            common.append(f"{column.title} {plain(str(next(iter(values))))}")
    said = f"In all rows: {', '.join(common)}." if common else ""
    columns = tuple(table.columns[i] for i in keep)
    return Narrow(replace(table, columns=columns, rows=tuple(tuple(row[i] for i in keep) for row in table.rows)), said)
