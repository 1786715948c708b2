"""A figure of the report: a drawing, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure."""

    name: str
    title: str
    caption: str
    svg: str | None = None
    reason: str | None = None
    """Why nothing is drawn; `None` where something is."""

    def __post_init__(self) -> None:
        if (self.svg is None) == (self.reason is None):
            raise ValueError(f"figure {self.name}: needs a drawing or a reason, and not both")
