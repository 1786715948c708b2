"""Drawing: elements of SVG, markers, and how wide a text will be.

Figures are written as SVG here and not by a plotting library: their colours come from the page's style sheet, so that
one drawing serves light and dark, texts stay texts, and the bytes depend on no library's version and on no font.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar
from xml.etree import ElementTree

from meltrepro.report.values import Figure, plain

_P = TypeVar("_P")
Element = ElementTree.Element

WIDE, NARROW = 820.0, 350.0
"""Widths of a drawing: the narrow one is for phones, whose readers need texts of the same size."""
FONT = 12.0
"""Size of text in the units of the drawing; page and drawing have the same unit where there is room."""
MARKERS = ("circle", "square", "diamond", "up", "down", "cross", "plus", "star")
_HEAD = 14.5
"""Size that bold text of 13 seems to have."""
_MOST_LINES = 3
_MOST_CHARACTERS = 150
"""More than fit into any place of a drawing."""
COLOURS = 7
"""How many colours the style sheet has."""
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "4 2", "1 2", "10 4")
_NARROW, _WIDE = frozenset("iljtfrI.,:;'|!()[]/ -·"), frozenset("mwMW@%")


def node(parent: Element | None, tag: str, text: str | None = None, **attributes: str | float) -> Element:
    """A new element below another; `class_` and `stroke_width` become `class` and `stroke-width`."""
    named = {
        name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else coordinate(value)
        for name, value in attributes.items()
    }
    made = ElementTree.Element(tag, named) if parent is None else ElementTree.SubElement(parent, tag, named)
    made.text = None if text is None else plain(text)
    return made


def coordinate(value: float) -> str:
    """A length with one decimal, which is finer than any screen shows."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def written(root: Element) -> str:
    """The drawing as markup; everything in it is escaped."""
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def width_of(text: str, size: float = FONT) -> float:
    """How wide a text may be at most in a usual font without serifs."""
    widths = (
        0.38 if c in _NARROW else 0.95 if c in _WIDE else 0.72 if c.isupper() else 1.0 if ord(c) > 0x2E80 else 0.62
        for c in plain(text)
    )
    return size * sum(widths)


def heading(parent: Element, x: float, y: float, title: str, remark: str, width: float) -> float:
    """The title of a panel, and a remark in a frame behind it, in a drawing of this width; returns how much lower its last line is."""
    texts = _wrapped(title, width - x - 2 * _HEAD - width_of(remark, 10), _HEAD)
    for position, text in enumerate(texts):
        words(parent, x, y + 16 * position, text, class_="head")
    lower = 16.0 * (len(texts) - 1)
    if remark:
        badge(parent, x + width_of(texts[-1], _HEAD) + 10, y + lower, remark)
    return lower


def shortened(text: str, room: float, size: float = FONT) -> str:
    """The text, or its beginning and its end where it is too wide."""
    text = plain(text)
    if width_of(text, size) <= room:
        return text
    for keep in range(min(len(text), _MOST_CHARACTERS), 2, -1):
        tail = keep // 3
        shown = f"{text[: keep - tail]}…{text[-tail:]}"
        if width_of(shown, size) <= room:
            return shown
    return f"{text[:1]}…"


def words(parent: Element, x: float, y: float, text: str, anchor: str = "start", class_: str = "") -> Element:
    """A text whose baseline is at a point."""
    extra = {"class_": class_} if class_ else {}
    return node(parent, "text", text, x=x, y=y, text_anchor=anchor, **extra)


def badge(parent: Element, x: float, y: float, text: str) -> None:
    """A remark in a frame, to the right of a point on the baseline."""
    width = width_of(text, 10) + 10
    node(parent, "rect", class_="badge", x=x, y=y - 11, width=width, height=15, rx=3)
    words(parent, x + width / 2, y, text, "middle", "badge-text")


def mark(parent: Element, x: float, y: float, series: int, title: str = "", *, data: bool = True) -> None:
    """A marker; colour and form both tell the series, and pointing at it tells the figure."""
    form = MARKERS[series % len(MARKERS)]
    class_ = f"{'mark ' if data else ''}m s{series % COLOURS}"
    if form == "circle":
        made = node(parent, "circle", class_=class_, cx=x, cy=y, r=4.5)
    elif form == "square":
        made = node(parent, "rect", class_=class_, x=x - 4, y=y - 4, width=8, height=8)
    else:
        made = node(parent, "path", class_=class_, d=path((x + dx, y + dy) for dx, dy in _SHAPES[form]) + "Z")
    if title:
        node(made, "title", title)


_SHAPES = {
    "diamond": ((0, -5.6), (5.6, 0), (0, 5.6), (-5.6, 0)),
    "up": ((0, -5.4), (5.2, 4), (-5.2, 4)),
    "down": ((0, 5.4), (5.2, -4), (-5.2, -4)),
    "cross": (
        *((-5, -3), (-3, -5), (0, -2), (3, -5), (5, -3), (2, 0)),
        *((5, 3), (3, 5), (0, 2), (-3, 5), (-5, 3), (-2, 0)),
    ),
    "plus": (
        *((-1.6, -5.2), (1.6, -5.2), (1.6, -1.6), (5.2, -1.6), (5.2, 1.6), (1.6, 1.6)),
        *((1.6, 5.2), (-1.6, 5.2), (-1.6, 1.6), (-5.2, 1.6), (-5.2, -1.6), (-1.6, -1.6)),
    ),
    "star": (
        *((0, -6), (1.5, -2), (5.7, -1.9), (2.4, 0.8), (3.5, 4.9)),
        *((0, 2.5), (-3.5, 4.9), (-2.4, 0.8), (-5.7, -1.9), (-1.5, -2)),
    ),
}


def path(points: Iterable[tuple[float, float]]) -> str:
    """Straight lines from point to point."""
    return "M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)


def interval(parent: Element, series: int, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A line along one of the axes, with a stroke across each end."""
    class_ = f"err s{series % COLOURS}"
    across = (3, 0) if start[0] == end[0] else (0, 3)
    node(parent, "line", class_=class_, x1=start[0], x2=end[0], y1=start[1], y2=end[1])
    for x, y in (start, end):
        node(parent, "line", class_=class_, x1=x - across[0], x2=x + across[0], y1=y - across[1], y2=y + across[1])


def polyline(parent: Element, points: list[tuple[float, float]], series: int) -> None:
    """A line through points, in the colour and the dashes of its series."""
    dashes = _DASHES[series % len(_DASHES)]
    extra = {"stroke_dasharray": dashes} if dashes else {}
    node(parent, "path", class_=f"line s{series % COLOURS}", d=path(points), **extra)


def legend(parent: Element, x: float, y: float, room: float, names: list[str], *, lines: bool = False) -> float:
    """Markers with their meanings, in as many lines as they need; returns the height."""
    left, top = x, y
    for series, name in enumerate(names):
        texts = _wrapped(name, room - 40)
        width = max(map(width_of, texts)) + (38 if lines else 24)
        if left > x and left + width > x + room:
            left, top = x, top + 19
        if lines:
            polyline(parent, [(left, top - 4), (left + 24, top - 4)], series)
        mark(parent, left + (12 if lines else 6), top - 4, series, data=False)
        for position, text in enumerate(texts):
            words(parent, left + (30 if lines else 16), top + 14 * position, text)
        left += width + 10
        top += 14 * (len(texts) - 1)
    return top - y + 19


def _wrapped(name: str, room: float, size: float = FONT) -> list[str]:
    """A name in as many lines as it needs, three at most; what is too wide is shortened."""
    found: list[str] = []
    for part in plain(name).split(" "):
        longer = f"{found[-1]} {part}" if found else part
        if found and (width_of(longer, size) <= room or len(found) == _MOST_LINES):
            found[-1] = shortened(longer, room, size)
        else:
            found.append(shortened(part, room, size))
    return found


def canvas(name: str, width: float, height: float, title: str, alt: str) -> Element:
    """An empty drawing that says what it shows to those who cannot see it."""
    root = node(
        None,
        "svg",
        class_="fig",
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
    )
    node(root, "title", title, id=f"{name}-t")
    node(root, "desc", alt, id=f"{name}-d")
    return root


def drawn(
    name: str, title: str, caption: str, alt: str, plot: _P, draw: Callable[[str, str, str, _P, float], str]
) -> Figure:
    """A figure with a drawing for wide screens and one for narrow ones."""
    wide, narrow = (draw(each, title, alt, plot, width) for each, width in ((name, WIDE), (f"{name}-narrow", NARROW)))
    return Figure(name, title, caption, wide, narrow=narrow)
