"""One page that leads to the reports of all campaigns."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from meltrepro.report.content import Content
from meltrepro.report.page import Page, render_page
from meltrepro.report.results import STATES
from meltrepro.report.values import Absent, Column, PageLink, Section, Table, Tags, Value, Word
from meltrepro.words import counted

_COLUMNS = (
    *(Column("started_utc", "started (UTC)"), Column("name", "campaign"), Column("validity", "validity")),
    *(Column("tags", "tags", "tags"), Column("cells", "cells", "number"), Column("targets", "targets")),
    Column("id", "id"),
)


@dataclass(frozen=True)
class Entry:
    """A campaign of the index."""

    id: str
    content: Content | None
    """`None` where its records are damaged."""
    problem: str = ""
    """How they are damaged."""


def index_page(entries: Sequence[Entry]) -> str:
    """The page, the newest campaign first; the report of each is expected in a folder of its id beside it."""
    newest = sorted(entries, key=lambda entry: entry.id, reverse=True)
    rows = tuple(_row(entry) for entry in newest)
    reason = None if rows else "there is no campaign on this machine"
    table = Table("all-campaigns", "Campaigns", _COLUMNS, rows, reason=reason)
    section = Section(
        "campaigns", "Campaigns", "The newest first; a name leads to the campaign's report.", (), (table,)
    )
    found = counted(len(entries), "campaign").split(" ")
    return render_page(
        Page("meltrepro reports", "All campaigns", (("measured", int(found[0]), found[1]),), "", (section,))
    )


def _row(entry: Entry) -> tuple[Value, ...]:
    if entry.content is None:
        return ("", Absent(entry.problem, "damaged"), None, Tags(()), None, "", entry.id)
    (document,) = entry.content.campaigns
    cells = entry.content.results.cells
    started = datetime.datetime.fromtimestamp(document.started_wall_ns // 10**9, datetime.UTC)
    marked = ("virtual", document.virtual), ("synthetic", document.synthetic)
    return (
        f"{started:%Y-%m-%d %H:%M}",
        PageLink(document.name, f"{entry.id}/index.html"),
        _validity([cell.state for cell in cells]),
        Tags(tuple(name for name, holds in marked if holds)),
        len(cells),
        ", ".join(dict.fromkeys(cell.device.name for cell in cells)),
        entry.id,
    )


def _validity(states: Sequence[str]) -> Value:
    """All VALID, or how many cells are not, and what became of them."""
    if all(state == "measured" for state in states):
        return Word("all VALID", "good") if states else "no cell"
    counts = {state: states.count(state) for state in STATES if state in states}
    said = ", ".join(f"{n} {'VALID' if state == 'measured' else state}" for state, n in counts.items())
    return Word(said.replace("invalid", "INVALID"), "bad")
