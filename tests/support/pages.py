"""Tables in the documentation that programs make: each stands between two marks of its name."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_END = "<!-- end -->"


def made(page: str, name: str) -> str:
    """The table that a page has."""
    return (DOCS / page).read_text(encoding="utf-8").partition(_begin(name))[2].partition(_END)[0]


def write(page: str, name: str, table: str) -> None:
    """Put another in its place."""
    head, begin, rest = (DOCS / page).read_text(encoding="utf-8").partition(_begin(name))
    assert begin, f"{page} has no {begin!r}"
    (DOCS / page).write_text(head + begin + table + _END + rest.partition(_END)[2], encoding="utf-8")


def _begin(name: str) -> str:
    return f"<!-- table of {name} -->\n"
