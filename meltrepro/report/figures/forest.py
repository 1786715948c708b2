"""Rows of medians with their intervals: one panel per device, one line per cell, one marker per series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meltrepro.report.figures import svg
from meltrepro.report.figures.scale import Scale, scale
from meltrepro.report.figures.svg import Element, node, words

_MOST_LABEL = 310.0
_LABEL = 16.0
"""Height of a label that stands above its row, where there is no room beside it."""
_MARGIN = 32.0
"""What is left of the axis where labels stand above their rows; where they stand beside them it is more."""
_BAND = 13.0
"""Height that one series takes in a row."""


@dataclass(frozen=True)
class Mark:
    series: int
    value: float
    low: float
    high: float
    title: str


@dataclass(frozen=True)
class Row:
    """One cell."""

    label: str
    marks: tuple[Mark, ...]
    remark: str = ""
    """A tag such as `synthetic`."""
    group: str = ""
    """Rows of different groups have a line between them."""


@dataclass(frozen=True)
class Panel:
    """Rows that share an axis."""

    title: str
    rows: tuple[Row, ...]
    badge: str = ""


@dataclass(frozen=True)
class Forest:
    panels: tuple[Panel, ...]
    series: tuple[str, ...]
    axis: str
    """Name and unit of what is measured."""
    log: bool | None = None
    zero: bool = True
    lines: tuple[float, ...] = ()
    """Values to compare with."""
    top: tuple[float, str] | None = None
    """A second unit: factor and name."""
    shared: bool = False
    """Whether all panels have the same axis."""
    spread: bool = True
    """Whether each series has a height of its own within a row."""


def draw(name: str, title: str, alt: str, forest: Forest, width: float = svg.WIDE) -> str:
    """The figure as SVG; needs at least one mark. In a narrow one, labels stand above their rows."""
    labels = [
        svg.width_of(row.label) + (svg.width_of(row.remark, 10) + 18 if row.remark else 0)
        for row in _rows(forest.panels)
    ]
    left = _MARGIN if width < svg.WIDE else max(min(max(labels), _MOST_LABEL) + 12, _MARGIN + 1)
    root = svg.canvas(name, width, 1, title, alt)
    y = 16.0
    y += svg.legend(root, 4, y, width - 8, list(forest.series)) + 4
    for panel in forest.panels:
        basis = forest.panels if forest.shared else (panel,)
        x = _axis(forest, basis, left, width - 24)
        y = _panel(root, forest, panel, x, y, left) + 14
    root.set("viewBox", f"0 0 {svg.coordinate(width)} {svg.coordinate(y)}")
    return svg.written(root)


def _rows(panels: Sequence[Panel]) -> list[Row]:
    return [row for panel in panels for row in panel.rows]


def _axis(forest: Forest, panels: Sequence[Panel], start: float, end: float) -> Scale:
    values = [v for row in _rows(panels) for mark in row.marks for v in (mark.low, mark.value, mark.high)]
    return scale([*values, *forest.lines], start, end, log=forest.log, zero=forest.zero)


def _panel(root: Element, forest: Forest, panel: Panel, x: Scale, y: float, left: float) -> float:
    """Draw a panel from a height on; returns where it ends."""
    group = node(root, "g", class_="panel")
    y += svg.heading(group, 4, y + 4, panel.title, panel.badge, x.end + 24)
    above = _LABEL if left == _MARGIN else 0.0
    top = y + (32 if forest.top else 16)
    count = len(forest.series) if forest.spread else 1
    height = max(21.0, _BAND * count + 8) + above
    bottom = top + height * len(panel.rows)
    for value, text in x.ticks(_ticks(x)):
        node(group, "line", class_="grid", x1=x.at(value), x2=x.at(value), y1=top, y2=bottom)
        words(group, x.at(value), bottom + 15, text, "middle", "tick")
    if forest.top:
        _second_unit(group, forest.top, x, top)
    for at in map(x.at, forest.lines):
        node(group, "line", class_="rule", x1=at, x2=at, y1=top, y2=bottom)
    node(group, "line", class_="axis", x1=left, x2=x.end, y1=bottom, y2=bottom)
    before = ""
    for position, row in enumerate(panel.rows):
        at = top + height * position
        if row.group and before and row.group != before:
            node(group, "line", class_="split", x1=4, x2=x.end, y1=at, y2=at)
        before = row.group or before
        _label(group, row, x, at + (above or height) / 2, left)
        _marks(group, row, x, at + above + (height - above) / 2, count if forest.spread else 0)
    words(group, (left + x.end) / 2, bottom + 32, x.named(forest.axis), "middle", "label")
    return bottom + 40


def _second_unit(group: Element, unit: tuple[float, str], x: Scale, top: float) -> None:
    other = Scale(x.low * unit[0], x.high * unit[0], x.start, x.end, x.log)
    room = x.start > _MARGIN
    for position, (value, text) in enumerate(other.ticks(_ticks(x))):
        text += "" if room or position else f" {unit[1]}"
        node(group, "line", class_="axis", x1=other.at(value), x2=other.at(value), y1=top - 4, y2=top)
        words(group, other.at(value), top - 7, text, "middle", "tick")
    if room:
        words(group, x.start - 8, top - 7, unit[1], "end", "tick")


def _ticks(x: Scale) -> int:
    """How many ticks there is room for."""
    return 7 if x.start > _MARGIN else 4


def _label(group: Element, row: Row, x: Scale, middle: float, left: float) -> None:
    """The name of a row and its remark, beside its marks or above them."""
    end = left if left > _MARGIN else x.end + _MARGIN / 2
    remark = svg.width_of(row.remark, 10) + 18 if row.remark else 0
    shown = svg.shortened(row.label, min(_MOST_LABEL, end - 12) - remark)
    label = words(group, 4, middle + 4, shown, class_="halo")
    if shown != row.label:
        node(label, "title", row.label)
    if row.remark:
        at = end - remark if left > _MARGIN else 12 + svg.width_of(shown)
        svg.badge(group, at, middle + 4, row.remark)


def _marks(group: Element, row: Row, x: Scale, middle: float, count: int) -> None:
    """The marks of a row with their intervals; each of `count` series has a height of its own, or all have one."""
    for mark in row.marks:
        at = middle + (_BAND * (mark.series - (count - 1) / 2) if count else 0)
        if mark.high > mark.low:
            svg.interval(group, mark.series, (x.at(mark.low), at), (x.at(mark.high), at))
        svg.mark(group, x.at(mark.value), at, mark.series, mark.title)
