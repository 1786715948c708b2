"""Texts for people: counts in words, and nothing that cannot be seen."""

from __future__ import annotations

import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\ufffe\uffff\U000e0000-\U000e007f]"
)
"""What steers a terminal, what nobody can see, and what turns the direction of writing."""


def visible(text: str, instead: str = "?") -> str:
    """A text that anybody may have written, without what is not meant to be read; line ends and tabs stay."""
    return _UNSEEN.sub(instead, text)


def counted(number: float, what: str, many: str | None = None) -> str:
    """A number of things: `1 cell`, `2 cells`, `0 entries`; `many` where the plural is not made by an s."""
    return f"{number:.0f} {plural(number, what, many)}"


def plural(number: float, what: str, many: str | None = None) -> str:
    """The word alone: `cell` for one, `cells` for any other number."""
    return what if number == 1 else many or f"{what}s"


def readable(size: float) -> str:
    """A size for people in decimal units: `26.5 GB`."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"


def shorten(text: str, limit: int = 60) -> str:
    """A text of at most `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
