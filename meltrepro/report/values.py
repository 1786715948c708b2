"""What a report is made of: values, tables, figures and sections, and how numbers are written for people."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from meltrepro.report.results import CellResult
from meltrepro.stats.summary import TO_JUDGE, TOO_FEW
from meltrepro.words import visible

NOT_MEASURED = "NOT MEASURED"
Kind = Literal["text", "prose", "number", "known", "estimate", "tags", "remarks", "digest"]
"""`known` is a number that was not measured, such as a size; `prose` may be long."""
NUMERIC = frozenset({"number", "known", "estimate"})


@dataclass(frozen=True)
class Median:
    """A median over repetitions with its interval, in the column's unit."""

    median: float
    low: float
    high: float
    n: int
    of: int | None = None
    """How many repetitions there should be, where that is another number."""

    @property
    def counted(self) -> str:
        """`5`, or `2 of 3`."""
        return str(self.n) if self.of is None else f"{self.n} of {self.of}"


@dataclass(frozen=True)
class Absent:
    """A figure that does not exist, and why."""

    reason: str
    shown: str = "–"
    """What stands in its place."""


@dataclass(frozen=True)
class Tags:
    """Remarks such as `virtual`, which a reader must not miss."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Remark:
    """What is to be said of many rows: a few words in each, and once what they mean."""

    short: str
    meaning: str


@dataclass(frozen=True)
class Remarks:
    """All that is to be said of one row."""

    each: tuple[Remark, ...]

    def __str__(self) -> str:
        return "; ".join(f"{one.short}: {one.meaning}" for one in self.each)


@dataclass(frozen=True)
class Word:
    """A word that says how something came out."""

    text: str
    tone: Literal["good", "bad", "none"]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class PageLink:
    """A text that leads to another page."""

    text: str
    to: str
    """Path from the page that it stands on."""

    def __str__(self) -> str:
        return self.text


Value = str | int | float | Median | Absent | Tags | Remarks | Word | PageLink | None
"""`None` is what does not apply; what should be there and is not is `Absent`."""


@dataclass(frozen=True)
class Column:
    """One column; the key is its name in CSV files, with the unit at its end."""

    key: str
    title: str
    kind: Kind = "text"
    below: str | None = None
    """Key of the column whose fields it shares on the page, where it stands in small print."""


def named(*keys: str) -> tuple[Column, ...]:
    """Columns of text whose titles are their keys."""
    return tuple(Column(key, key) for key in keys)


@dataclass(frozen=True)
class Table:
    """A derived table; without rows it says why."""

    name: str
    """Stem of its files."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()
    reason: str | None = None
    """Why it has no rows; `None` where it has."""
    folded: bool = False
    """Whether the page shows it only when asked to."""
    gap: str = NOT_MEASURED
    """What stands before the reason."""

    def __post_init__(self) -> None:
        if bool(self.rows) == (self.reason is not None):
            raise ValueError(f"table {self.name}: needs rows or a reason, and not both")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: a row of {len(row)} values for {len(self.columns)} columns")


@dataclass(frozen=True)
class Figure:
    """A drawing, or the reason why there is none."""

    name: str
    title: str
    caption: str
    svg: str | None = None
    reason: str | None = None
    """Why nothing is drawn; `None` where something is."""
    narrow: str = ""
    """The same drawing for screens that are too narrow for the other."""

    def __post_init__(self) -> None:
        if (self.svg is None) == (self.reason is None):
            raise ValueError(f"figure {self.name}: needs a drawing or a reason, and not both")


@dataclass(frozen=True)
class Section:
    """One part of the page: which figures and tables stand together, and what is said of them."""

    id: str
    title: str
    lead: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]


_MAY_GO = frozenset({"device", "framework", "release", "workload", "campaign"})
_MAY_BE_EMPTY = frozenset({"tags", "power_mode", "battery_mah"})


def narrowed(table: Table) -> tuple[Table, str]:
    """A table without the columns that tell rows apart and do not here, and a sentence of what they hold.

    What most devices do not have goes where none has it; a tag stays in sight.
    """
    keep, common = [], []
    for position, column in enumerate(table.columns):
        values = {row[position] for row in table.rows}
        if column.key in _MAY_BE_EMPTY and values <= {None, Tags(())}:
            continue
        if column.key in _MAY_GO and len(values) == 1 < len(table.rows):
            common.append(f"{column.title} {plain(str(next(iter(values))))}")
        else:
            keep.append(position)
    columns = tuple(table.columns[i] for i in keep)
    rows = tuple(tuple(row[i] for i in keep) for row in table.rows)
    return replace(table, columns=columns, rows=rows), f"In all rows: {', '.join(common)}." if common else ""


def measured(cell: CellResult, name: str, scale: float = 1.0) -> Median | Absent:
    """A metric of a cell in the unit of a column, or why it is not there."""
    found = cell.metrics.get(name)
    if found is None:
        return Absent(cell.unavailable.get(name, "not measured"))
    of = cell.asked if cell.asked != found.n else None
    return Median(found.median * scale, found.low * scale, found.high * scale, found.n, of)


def number(value: float) -> str:
    """Four digits that count, thousands in full: `12,346`, `108.2`, `0.01234`, `1.2e-07`."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 999.95:
        return f"{value:,.0f}" if size < 1e9 else f"{value:.3g}"
    if size < 1e-4:
        return f"{value:.2g}"
    return f"{value:#.4g}".rstrip(".")


def quantity(value: float) -> str:
    """The same without zeros at the end, for figures that are known and not measured: `8`, `0.0768`."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def interval(value: Median) -> str:
    """`105.9–109.0`, none of a single value; and that there are too few, where there are."""
    around = f"{number(value.low)}–{number(value.high)}" if value.n > 1 else ""
    return ", ".join(filter(None, (around, TOO_FEW if value.n < TO_JUDGE else "")))


def exact(value: float) -> str:
    """A figure for a program: six digits, which is more than any measurement here has."""
    return f"{value:.6g}"


def plain(text: str) -> str:
    """Text of a record on one line, without what cannot be seen."""
    return visible(" ".join(text.split()), "\ufffd")
