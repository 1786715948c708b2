"""Points, lines and bands in panels with two axes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import Literal

from meltrepro.report.figures import svg
from meltrepro.report.figures.scale import Scale, scale
from meltrepro.report.figures.svg import Element, coordinate, node, words

_LEFT, _RIGHT = 66.0, 20.0
_APART = 3.0
"""Least room between two labels, side by side."""
_TALL = 24.0
"""Height of an interval from which on labels stand above or below it."""
_FAR, _TURNS = (26.0, 40.0, 56.0, 76.0, 100.0), 16
"""How far from its point a label may stand that has no place beside it, and in how many directions."""
_LABEL_ROOM = 30.0
"""Height above and below the points of a panel with labels."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Dot:
    """One figure, with intervals where they are known."""

    x: float
    y: float
    title: str = ""
    label: str = ""
    """Written beside it where there is room."""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Dots:
    """Points that belong together."""

    index: int
    """Into the figure's names of series."""
    points: tuple[Dot, ...]
    line: bool = False
    markers: bool = True
    band: tuple[tuple[float, float, float], ...] = ()
    """x, low, high."""


@dataclass(frozen=True)
class Rule:
    """A line to compare with: y is a multiple of x."""

    label: str
    slope: float
    near: bool
    """Whether the axes must show it, however far the points are from it."""


@dataclass(frozen=True)
class Plot:
    """One pair of axes."""

    title: str
    x_axis: str
    y_axis: str
    series: tuple[Dots, ...]
    badge: str = ""
    rules: tuple[Rule, ...] = ()
    x_log: bool | None = False
    y_log: bool | None = False
    y_zero: bool = False
    height: float = 250.0
    once: Literal["series", "panel"] | None = None
    """Within what a label is written only once: at the first of its points where there is room."""
    numbered: bool = False
    """Whether points whose labels have no room get numbers, with the labels below the panel."""
    names: tuple[tuple[float, str], ...] = ()
    """Ticks of the x axis where its values are not numbers but names."""
    uprights: tuple[float, ...] = ()
    """Where on the x axis something else begins."""
    levels: tuple[tuple[float, float, float], ...] = ()
    """Level lines: from x, to x, at y."""


@dataclass(frozen=True)
class Scatter:
    panels: tuple[Plot, ...]
    series: tuple[str, ...]
    lines: bool = False
    """Whether the legend shows lines."""


@dataclass
class _Area:
    """A panel while it is being drawn, with the places that are taken."""

    group: Element
    x: Scale
    y: Scale
    top: float
    bottom: float
    taken: list[Box] = field(default_factory=list)
    ruled: list[Box] = field(default_factory=list)
    """Where lines to compare with run: a name crosses them where there is no other place."""

    def free(self, box: Box, *, cross: bool = True) -> bool:
        inside = (*(box[0] >= self.x.start, box[2] <= self.x.end + 14, box[1] >= self.top - 2, box[3] <= self.bottom),)
        wider = (box[0] - _APART, box[1], box[2] + _APART, box[3])
        others = self.taken if cross else [*self.taken, *self.ruled]
        return all(inside) and not any(_overlap(wider, other) for other in others)


def draw(name: str, title: str, alt: str, scatter: Scatter, width: float = svg.WIDE) -> str:
    """The figure as SVG; needs at least one point."""
    root = svg.canvas(name, width, 1, title, alt)
    y = 16.0
    y += svg.legend(root, 4, y, width - 8, list(scatter.series), lines=scatter.lines) + 4
    for panel in scatter.panels:
        y = _panel(root, panel, y, width) + 12
    root.set("viewBox", f"0 0 {coordinate(width)} {coordinate(y)}")
    return svg.written(root)


def _panel(root: Element, panel: Plot, y: float, width: float) -> float:
    group = node(root, "g", class_="panel loose")
    top = y
    if panel.title or panel.badge:
        top = y + 16 + svg.heading(group, 4, y + 4, panel.title, panel.badge, width)
    bottom = top + panel.height
    points = [point for series in panel.series for point in series.points]
    left = _LEFT if width == svg.WIDE else _LEFT - 10
    x = scale(_xs(panel, points), left, width - _RIGHT, log=panel.x_log)
    room = _LABEL_ROOM if any(point.label for point in points) and not panel.y_log else 0.0
    y_scale = scale(_ys(panel, points), bottom - room, top + room, log=panel.y_log, zero=panel.y_zero)
    area = _Area(group, x, y_scale, top, bottom)
    _axes(area, panel, top, bottom)
    for rule in panel.rules:
        _rule(area, rule)
    for at in map(x.at, panel.uprights):
        node(group, "line", class_="rule", x1=at, x2=at, y1=top, y2=bottom)
    for start, end, height in panel.levels:
        node(group, "line", class_="axis", x1=x.at(start), x2=x.at(end), y1=y_scale.at(height), y2=y_scale.at(height))
    for series in panel.series:
        _lines(area, series)
    for series in panel.series:
        _points(area, series)
    for rule in panel.rules:
        _rule_label(area, rule, [box for other in panel.rules if other is not rule for box in _along(area, other)])
    area.ruled = [box for rule in panel.rules for box in _along(area, rule)]
    written: set[str] = set()
    crowded: list[tuple[Dot, int]] = []
    for series in panel.series:
        if panel.once == "series":
            written = set()
        for point in series.points:
            if not point.label or (panel.once and point.label in written):
                continue
            if _label(area, point, series.index):
                written.add(point.label)
            else:
                crowded.append((point, series.index))
    return bottom + 36 + (_numbered(area, crowded, width) if panel.numbered and crowded else 0)


def _numbered(area: _Area, points: Iterable[tuple[Dot, int]], width: float) -> float:
    """Number points and write their labels below the panel; returns the height that these take."""
    left, top = 4.0, area.bottom + 52
    for number, (point, series) in enumerate(points, 1):
        if not _label(
            area, replace(point, label=str(number)), series
        ):  # then it stands at its point, whatever is there
            place = (area.x.at(point.x) + 7, area.y.at(point.y) - 7)
            words(area.group, *place, str(number), class_=f"point-label halo s{series % svg.COLOURS}")
        text = svg.shortened(f"{number} = {point.label}", width - 8, 11)
        if left > 4 and left + svg.width_of(text, 11) > width - 4:
            left, top = 4.0, top + 15
        words(area.group, left, top, text, class_="tick")
        left += svg.width_of(text, 11) + 12
    return top - area.bottom - 32


def _xs(panel: Plot, points: Iterable[Dot]) -> list[float]:
    return [v for point in points for v in (point.x, *(point.x_range or ()))] + [x for x, _ in panel.names]


def _ys(panel: Plot, points: Iterable[Dot]) -> list[float]:
    values = [v for point in points for v in (point.y, *(point.y_range or ()))]
    values += [v for series in panel.series for _, *both in series.band for v in both]
    return values + [rule.slope * point.x for rule in panel.rules if rule.near for point in points]


def _axes(area: _Area, panel: Plot, top: float, bottom: float) -> None:
    group, x, y = area.group, area.x, area.y
    for value, text in panel.names or x.ticks(7 if x.end > svg.NARROW else 4):
        at = x.at(value)
        node(group, "line", class_="grid", x1=at, x2=at, y1=top, y2=bottom)
        words(group, at, bottom + 15, text, "middle", "tick")
    for value, text in y.ticks(6):
        at = y.at(value)
        node(group, "line", class_="grid", x1=x.start, x2=x.end, y1=at, y2=at)
        words(group, x.start - 6, at + 4, text, "end", "tick")
    node(group, "line", class_="axis", x1=x.start, x2=x.end, y1=bottom, y2=bottom)
    node(group, "line", class_="axis", x1=x.start, x2=x.start, y1=top, y2=bottom)
    name = panel.x_axis if panel.names else x.named(panel.x_axis)
    words(group, (x.start + x.end) / 2, bottom + 32, name, "middle", "label")
    middle = (top + bottom) / 2
    turned = words(group, 13, middle, y.named(panel.y_axis), "middle", "label")
    turned.set("transform", f"rotate(-90 13 {coordinate(middle)})")


def _rule(area: _Area, rule: Rule) -> None:
    points = _path(area, rule)
    if len(points) > 1:
        node(area.group, "path", class_="rule", d=svg.path(points))


def _path(area: _Area, rule: Rule) -> list[tuple[float, float]]:
    """Where a rule runs within the panel."""
    x, y = area.x, area.y
    return [(x.at(v), y.at(rule.slope * v)) for v in _between(x) if y.low <= rule.slope * v <= y.high]


def _along(area: _Area, rule: Rule) -> list[Box]:
    """Small boxes along a rule, for labels to keep away from."""
    return [(x - 1, y - 1, x + 1, y + 1) for x, y in _path(area, rule)]


def _rule_label(area: _Area, rule: Rule, others: list[Box]) -> None:
    """Name a rule at one of its ends, away from points and other rules; left out where there is no room."""
    points = _path(area, rule)
    if len(points) < 2:
        return
    first, last = points[0], points[-1]
    width = svg.width_of(rule.label, 11)
    inner = [(points[round(share * (len(points) - 1))], "end", -width) for share in (0.85, 0.7, 0.5, 0.3)]
    places = ((last, "end", -width), (first, "start", 0.0), *inner)
    for ((x, y), anchor, reach), above in ((place, above) for place in places for above in (-6.0, 15.0)):
        at_x, at_y = x + (-4 if anchor == "end" else 4), y + above
        box = (at_x + reach, at_y - 10, at_x + reach + width, at_y + 3)
        if area.free(box) and not any(_overlap(box, other) for other in others):
            words(area.group, at_x, at_y, rule.label, anchor, "tick halo")
            area.taken.append(box)
            return


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _between(x: Scale) -> list[float]:
    steps = [step / 60 for step in range(61)]
    if x.log:
        return [x.low * (x.high / x.low) ** step for step in steps]
    return [x.low + (x.high - x.low) * step for step in steps]


def _lines(area: _Area, series: Dots) -> None:
    x, y = area.x, area.y
    if len(series.band) > 1:
        upper = [(x.at(at), y.at(high)) for at, _, high in series.band]
        lower = [(x.at(at), y.at(low)) for at, low, _ in reversed(series.band)]
        node(area.group, "path", class_=f"band s{series.index % svg.COLOURS}", d=svg.path([*upper, *lower]) + "Z")
    if series.line and len(series.points) > 1:
        points = [(x.at(p.x), y.at(p.y)) for p in series.points]
        svg.polyline(area.group, points, series.index)
        area.taken += [box for a, b in pairwise(points) for box in _between_points(a, b)]


def _between_points(a: tuple[float, float], b: tuple[float, float]) -> list[Box]:
    """Small boxes along a straight line, for labels to keep away from."""
    steps = max(1, math.ceil(math.dist(a, b) / 8))
    places = [(a[0] + (b[0] - a[0]) * i / steps, a[1] + (b[1] - a[1]) * i / steps) for i in range(steps + 1)]
    return [(x - 1, y - 1, x + 1, y + 1) for x, y in places]


def _points(area: _Area, series: Dots) -> None:
    x, y = area.x, area.y
    every = 1 if series.markers else max(1, math.ceil(len(series.points) / 12))
    for position, point in enumerate(series.points):
        at_x, at_y = x.at(point.x), y.at(point.y)
        if point.y_range and point.y_range[1] > point.y_range[0]:
            low, high = (y.at(v) for v in point.y_range)
            svg.interval(area.group, series.index, (at_x, low), (at_x, high))
            area.taken.append((at_x - 3, high, at_x + 3, low))
        if point.x_range and point.x_range[1] > point.x_range[0]:
            low, high = (x.at(v) for v in point.x_range)
            svg.interval(area.group, series.index, (low, at_y), (high, at_y))
            area.taken.append((low, at_y - 3, high, at_y + 3))
        if position % every == 0 or position == len(series.points) - 1:
            svg.mark(area.group, at_x, at_y, series.index, point.title)
            area.taken.append((at_x - 6, at_y - 6, at_x + 6, at_y + 6))


def _label(area: _Area, point: Dot, series: int) -> bool:
    """Write a point's label where nothing else is; `False` where there is no such place."""
    at_x, at_y, width = area.x.at(point.x), area.y.at(point.y), svg.width_of(point.label, 11)
    high, low = (area.y.at(v) - at_y for v in reversed(point.y_range or (point.y, point.y)))
    beside, above = ((9.0, 4.0, "start"), (-9.0, 4.0, "end")), ((0.0, high - 8, "middle"), (0.0, low + 16, "middle"))
    near = (*above, *beside) if low - high > _TALL else (*beside, *above)
    corners = ((8.0, -8.0, "start"), (8.0, 16.0, "start"), (-8.0, -8.0, "end"), (-8.0, 16.0, "end"))
    far = ((0.0, high - 21, "middle"), (0.0, low + 29, "middle"), (0.0, high - 34, "middle"))
    places = (*near, *corners, *far) if area.x.end > svg.NARROW else (*near, *corners)
    for cross, (dx, dy, anchor) in product((False, True), places):
        left = at_x + dx - (width / 2 if anchor == "middle" else width if anchor == "end" else 0)
        box = (left, at_y + dy - 10, left + width, at_y + dy + 3)
        if area.free(box, cross=cross):
            words(area.group, at_x + dx, at_y + dy, point.label, anchor, f"point-label halo s{series % svg.COLOURS}")
            area.taken.append(box)
            return True
    return _apart(area, point, series, (at_x, at_y), width)


def _apart(area: _Area, point: Dot, series: int, at: tuple[float, float], width: float) -> bool:
    """Write a label away from its point, with a line to it that crosses nothing where that can be."""
    for cross, far, turn in product((False, True), _FAR, range(_TURNS)):
        angle = 2 * math.pi * turn / _TURNS
        x, y = at[0] + far * math.cos(angle), at[1] - far * math.sin(angle)
        left = x if math.cos(angle) >= 0 else x - width
        box = (left, y - 10, left + width, y + 3)
        leader = [(x, y - 3), (at[0] + 11 * math.cos(angle), at[1] - 11 * math.sin(angle))]
        if area.free(box) and (cross or all(map(area.free, _between_points(*leader)))):
            node(area.group, "path", class_="leader", d=svg.path(leader))
            words(area.group, left, y, point.label, "start", f"point-label halo s{series % svg.COLOURS}")
            area.taken += [box, *_between_points(*leader)]
            return True
    return False
