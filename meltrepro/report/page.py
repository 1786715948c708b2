"""The report as one HTML page that needs nothing from outside and runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from meltrepro import __version__
from meltrepro.build.render import render_text
from meltrepro.report.content import Content
from meltrepro.report.figures.svg import width_of
from meltrepro.report.results import STATES
from meltrepro.report.tables.overview import commands
from meltrepro.report.values import (
    NOT_MEASURED,
    NUMERIC,
    Absent,
    Column,
    Median,
    PageLink,
    Remarks,
    Section,
    Table,
    Tags,
    Value,
    Word,
    interval,
    narrowed,
    number,
    plain,
    quantity,
)
from meltrepro.stats.summary import INTERVAL, TO_JUDGE, TOO_FEW

_TEMPLATES = Path(__file__).with_name("templates")
_VIRTUAL = (
    "Some devices are virtual. Their figures say nothing of real devices and stand in rows and panels of their own."
)
_SYNTHETIC = "Some weights are made up. They are fit for speed, memory and size, and never for accuracy."
_LEAD = (
    f"Figures are medians over repetitions; below each stand the {INTERVAL}, and the number n of repetitions; fewer than"
    f" {TO_JUDGE} are {TOO_FEW}. A dash with a number is a figure that does not exist; its reason stands below the table."
)


@dataclass(frozen=True)
class _Cell:
    text: str
    class_: str = ""
    interval: str = ""
    n: str = ""
    tags: tuple[str, ...] = ()
    notes: tuple[int, ...] = ()
    title: str = ""
    href: str = ""
    below: tuple[tuple[str, str], ...] = ()
    """Name and text of what stands below it in small print."""


@dataclass(frozen=True)
class _Shown:
    name: str
    title: str
    common: str
    heads: tuple[_Cell, ...]
    rows: tuple[tuple[_Cell, ...], ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    folded: bool
    stacked: bool
    """Whether a narrow screen shows each row as a card: where there is prose, nobody wants to scroll sideways."""
    wider_than: str
    """Class that tells how wide a screen must be to need no scrolling."""


def _title(content: Content) -> str:
    """The study's name, else those of the campaigns."""
    names = [content.study.name] if content.study else dict.fromkeys(content.results.names.values())
    return ", ".join(names) or "no campaign"


@dataclass(frozen=True)
class Page:
    """What stands on a page; no text of it is markup, but for drawings."""

    over: str
    """What kind of page it is."""
    title: str
    facts: tuple[tuple[str, int, str], ...]
    """Class, number and name of what is counted at its head."""
    lead: str
    sections: tuple[Section, ...]
    warnings: tuple[tuple[str, str], ...] = ()
    """Tags, with what a reader must know of what bears them."""
    commands: tuple[str, ...] = ()
    """What to type to check it and to measure again, shown with the section on provenance."""


def render(content: Content, parts: tuple[Section, ...]) -> str:
    """The page of a report."""
    states = [cell.state for cell in content.results.cells]
    marked = (
        ("virtual", any(cell.device.virtual for cell in content.results.cells), _VIRTUAL),
        ("synthetic", any(cell.synthetic for cell in content.results.cells), _SYNTHETIC),
    )
    return render_page(
        Page(
            over="meltrepro report",
            title=_title(content),
            facts=tuple((state, states.count(state), state) for state in STATES),
            lead=_LEAD,
            sections=parts,
            warnings=tuple((tag, text) for tag, holds, text in marked if holds),
            commands=commands(content.campaigns, content.study),
        )
    )


def render_page(page: Page) -> str:
    return render_text(
        (_TEMPLATES / "page.html.j2").read_text(encoding="utf-8"),
        {
            "page": page,
            "style": (_TEMPLATES / "style.css").read_text(encoding="utf-8"),
            "version": __version__,
            "tables": {table.name: _shown(table) for part in page.sections for table in part.tables if table.rows},
            "gaps": {part.id: _gaps(part) for part in page.sections},
            "interval": _interval,
            "plain": plain,
        },
        name=page.over,
        escape=True,
    )


def _shown(full: Table) -> _Shown:
    table, common = narrowed(full)
    reasons: dict[str, int] = {}
    heads = tuple(_Cell(plain(column.title), _class(column)) for column in table.columns if column.below is None)
    rows = tuple(tuple(_fields(table.columns, row, reasons)) for row in table.rows)
    return _Shown(
        *(table.name, table.title, common, heads, rows),
        *(tuple(map(plain, reasons)), tuple(map(plain, table.notes))),
        table.folded,
        any(column.kind in _WIDE for column in table.columns if column.below is None),
        _wider_than(heads, rows),
    )


_SIZE, _SMALL, _TAG, _PADDING, _AROUND_TAG = 13.5, 12.2, 11.5, 20.0, 16.0
"""Of texts in tables, as the style sheet has them."""
_PROSE, _LEAST, _HEAD = 220.0, 62.0, 100.0
_SCREENS = ((1080.0, "over-wide"), (690.0, "over-middle"), (330.0, "over-narrow"))


def _wider_than(heads: Sequence[_Cell], rows: Sequence[Sequence[_Cell]]) -> str:
    """The widest screen on which a table must be scrolled sideways, by the widths that its texts may have at most."""
    width = 0.0
    for position, head in enumerate(heads):
        texts = [max(_widths(row[position])) for row in rows]
        found = min(max(width_of(head.text, _SIZE), _LEAST), _HEAD)
        width += _PADDING + (_PROSE if head.class_ == "wide" else max([found, *texts]))
    return next((name for screen, name in _SCREENS if width > screen), "")


def _widths(cell: _Cell) -> tuple[float, ...]:
    """Of a field's text, of its interval and of its tags."""
    tags = sum(width_of(tag, _TAG) + _AROUND_TAG for tag in cell.tags)
    return width_of(cell.text, _SIZE), width_of(_interval(cell), _SMALL), tags


def _interval(cell: _Cell) -> str:
    """What stands below a figure."""
    return ", ".join(filter(None, (cell.interval, cell.n and f"n = {cell.n}")))


def _fields(columns: Sequence[Column], row: Sequence[Value], reasons: dict[str, int]) -> Iterator[_Cell]:
    """The fields of a row, each with what stands below it."""
    below: dict[str | None, list[tuple[str, str]]] = {}
    for column, value in zip(columns, row, strict=True):
        if column.below is not None and value:
            below.setdefault(column.below, []).append((plain(column.title), _cell(column, value, reasons).text))
    for column, value in zip(columns, row, strict=True):
        if column.below is None:
            yield replace(_cell(column, value, reasons), below=tuple(below.get(column.key, ())))


_WIDE = frozenset({"prose", "remarks"})


def _class(column: Column) -> str:
    return "n" if column.kind in NUMERIC else "wide" if column.kind in _WIDE else ""


def _cell(column: Column, value: Value, reasons: dict[str, int]) -> _Cell:
    class_ = _class(column)
    if isinstance(value, Absent):
        note = reasons.setdefault(value.reason, len(reasons) + 1)
        lost = "lost" if value.shown in ("failed", "invalid") else "none"
        return _Cell(plain(value.shown), f"{class_} {lost}".strip(), notes=(note,), title=plain(value.reason))
    if isinstance(value, Median):
        return _Cell(number(value.median), class_, interval(value), value.counted)
    if isinstance(value, Remarks):
        notes = tuple(reasons.setdefault(str(Remarks((one,))), len(reasons) + 1) for one in value.each)
        return _Cell(", ".join(one.short for one in value.each), class_, notes=notes)
    if isinstance(value, Tags):
        return _Cell("", class_, tags=tuple(map(plain, value.names)))
    if isinstance(value, PageLink):
        return _Cell(plain(value.text), class_, href=value.to)
    if isinstance(value, float):
        return _Cell(quantity(value) if column.kind == "known" else number(value), class_)
    text = "" if value is None else plain(str(value))
    if column.kind == "digest" and len(text) in (40, 64):
        return _Cell(text[:12], "digest", title=text)
    return _Cell(text, f"{class_} {value.tone}".strip() if isinstance(value, Word) else class_)


@dataclass(frozen=True)
class _Gap:
    """A reason, and what is not there because of it."""

    word: str
    reason: str
    titles: tuple[str, ...]
    ids: tuple[str, ...]
    """Of the figures and tables on the page, so that links to them lead here."""


def _gaps(part: Section) -> Mapping[str, _Gap]:
    """Each reason once, by the id of the first figure or table that it explains, which is the place where it stands."""
    missing = [(f"figure-{one.name}", one.title, NOT_MEASURED, one.reason) for one in part.figures]
    missing += [(f"table-{one.name}", one.title, one.gap, one.reason) for one in part.tables]
    grouped: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for id, title, word, reason in missing:
        if reason is not None:
            grouped.setdefault((word, plain(reason)), []).append((id, title))
    return {
        found[0][0]: _Gap(word, reason, tuple(dict.fromkeys(title for _, title in found)), tuple(id for id, _ in found))
        for (word, reason), found in grouped.items()
    }
