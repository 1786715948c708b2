"""Texts for people: counts in words, and nothing that cannot be seen."""

from __future__ import annotations

import re
import textwrap

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\ufffe\uffff\U000e0000-\U000e007f]"
)
"""What steers a terminal, what nobody can see, and what turns the direction of writing."""
_PIECE = r"[^\s/]*/(?:s\b)?|[^\s/]+"
"""What is never broken: a word, a part of a name with its slash, a unit such as tok/s."""


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


def folded(line: str, width: int) -> list[str]:
    """A line broken between words, what follows indented by two more; a word that is too long, such as a path, stays whole."""
    indent = line[: len(line) - len(line.lstrip())]
    if len(line) <= width:
        return [line]
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=f"{indent}  ",
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )


def pieces(text: str) -> list[str]:
    """The parts between which a text of a table may be broken: words, and names after their slashes."""
    return re.findall(_PIECE, text)


def wrapped(text: str, width: int) -> list[str]:
    """A text of a table in lines of at most `width`; only a piece that is longer is broken, after a dash if it has one."""
    lines = [""]
    for word in re.findall(rf"\s+|{_PIECE}", text):
        for part in _parts(word, width):
            if "\n" in part or len(lines[-1]) + len(part) > width:
                lines[-1] = lines[-1].rstrip()
                lines.append("" if part.isspace() else part)
            elif lines[-1] or not part.isspace():
                lines[-1] += part
    return [line.rstrip() for line in lines]


def _parts(word: str, width: int) -> list[str]:
    if len(word) <= width:
        return [word]
    dashed = re.findall(r"[^-_.]*[-_.]|[^-_.]+", word)
    return [part[start : start + width] for part in dashed for start in range(0, len(part), width)]
