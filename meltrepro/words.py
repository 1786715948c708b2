"""Counts in words."""

from __future__ import annotations


def counted(number: float, what: str, many: str | None = None) -> str:
    """A number of things: `1 cell`, `2 cells`, `0 entries`; `many` where the plural is not made by an s."""
    return f"{number:.0f} {plural(number, what, many)}"


def plural(number: float, what: str, many: str | None = None) -> str:
    """The word alone: `cell` for one, `cells` for any other number."""
    return what if number == 1 else many or f"{what}s"
