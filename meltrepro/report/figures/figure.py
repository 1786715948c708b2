"""A figure of the report: a drawing, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from meltrepro.report.figures import svg

_P = TypeVar("_P")


@dataclass(frozen=True)
class Figure:
    """One figure."""

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


def drawn(
    name: str, title: str, caption: str, alt: str, plot: _P, draw: Callable[[str, str, str, _P, float], str]
) -> Figure:
    """A figure with a drawing for wide screens and one for narrow ones."""
    wide, narrow = (
        draw(each, title, alt, plot, width) for each, width in ((name, svg.WIDE), (f"{name}-narrow", svg.NARROW))
    )
    return Figure(name, title, caption, wide, narrow=narrow)
