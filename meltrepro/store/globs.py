"""Globs for whole paths, matched in one pass: a manifest of a stranger may hold any pattern, and must not hold up anybody.

`*` and `?` stop at a slash, `**` does not, `**/` stands for any folders or none, `[a-z]` and `[!a-z]` for one character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from meltrepro.errors import SourceError

_TOKENS = re.compile(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])")
_MOST_KNOWN = 4096
"""Steps that are remembered, each of them from one set of places by one character."""

_LONGEST = 1024
"""Characters of a pattern; no path that one is for is longer."""

_Takes = Callable[[str], object]


class Glob:
    """A pattern; raises `SourceError` for a text that is none.

    A place is where in the pattern one may be after some characters of a path. All of them are followed at once, as the
    bits of a number, so that nothing is ever tried again.
    """

    def __init__(self, pattern: str) -> None:
        self._takes: list[tuple[_Takes, bool]] = []
        """What is taken at each place, and whether one stays there."""
        self._skips: dict[int, int] = {}
        """Places that are left for another without a character."""
        if len(pattern) > _LONGEST:
            raise SourceError(
                f"a pattern has {len(pattern)} characters, at most {_LONGEST} expected: {pattern[:60]!r}..."
            )
        for token in filter(None, _TOKENS.split(pattern)):
            self._add(token, pattern)
        self._known: dict[tuple[int, str], int] = {}

    def matches(self, path: str) -> bool:
        """Whether the pattern stands for this path."""
        places = self._reached(1)
        for character in path:
            step = (places, character)
            if (after := self._known.get(step)) is None:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[step] = after = self._after(places, character)
            if not after:
                return False
            places = after
        return bool(places >> len(self._takes))

    def _add(self, token: str, pattern: str) -> None:
        here = len(self._takes)
        if token == "**/":
            self._skips[here] = here + 3
            self._takes += [(_nothing, False), (_anything, True), ("/".__eq__, False)]
        elif token in ("**", "*"):
            self._takes.append((_anything if token == "**" else "/".__ne__, True))
        elif token == "?":
            self._takes.append(("/".__ne__, False))
        elif choice := _class(token):
            try:
                self._takes.append((re.compile(choice, re.DOTALL).fullmatch, False))
            except re.error as error:
                raise SourceError(
                    f"{pattern!r} is not a pattern: {error}", hint="a range in [] goes from low to high"
                ) from error
        else:
            self._takes += [(character.__eq__, False) for character in token]

    def _after(self, places: int, character: str) -> int:
        after = 0
        for place in _each(places):
            if place < len(self._takes):
                takes, stays = self._takes[place]
                if takes(character):
                    after |= 1 << place if stays else 2 << place
        return self._reached(after)

    def _reached(self, places: int) -> int:
        """These places, and those that lead on from them without a character."""
        left = places
        while left:
            place = (left & -left).bit_length() - 1
            left ^= 1 << place
            if place < len(self._takes) and (self._takes[place][1] or self._takes[place][0] is _nothing):
                more = (2 << place | 1 << self._skips.get(place, place)) & ~places
                places |= more
                left |= more
        return places


def _each(places: int) -> Iterator[int]:
    """The places in a set, from the first on."""
    while places:
        place = (places & -places).bit_length() - 1
        yield place
        places ^= 1 << place


def _anything(_: str) -> bool:
    return True


def _nothing(_: str) -> bool:
    return False


def _class(part: str) -> str:
    """A character class of a glob as one of a regular expression; empty for any other part."""
    if not (part.startswith("[") and part.endswith("]") and len(part) > 2):
        return ""
    body = part[1:-1]
    negate, body = ("^/", body[1:]) if body.startswith("!") else ("", body)
    escaped = re.sub(r"([\\^\]\[&~|])", r"\\\1", body)
    return f"[{negate}{escaped}]" if body else ""
