"""Near misses: what somebody probably meant."""

from __future__ import annotations

from collections.abc import Collection

_SHOWN = 24
_NEAR = 0.6
_LONGEST = 80


def near_miss(name: str, known: Collection[str]) -> str | None:
    """`did you mean 'x'?` for the known name that is nearest, if one is near."""
    hit = nearest(name, known)
    return None if hit is None else f"did you mean {hit!r}?"


def suggest(name: str, known: Collection[str], intro: str = "known") -> str | None:
    """The near miss, or else all known names, where they are few enough to be read."""
    names = ", ".join(sorted(known)) if 0 < len(known) <= _SHOWN else None
    return near_miss(name, known) or (f"{intro}: {names}" if names else None)


def nearest(name: str, known: Collection[str]) -> str | None:
    best, hit = max(((likeness(name, other), other) for other in known), default=(0.0, None))
    return hit if best >= _NEAR else None


def likeness(one: str, other: str) -> float:
    """How alike two names are, from 0 to 1, by the parts that they have in common. Capital letters do not count."""
    from difflib import SequenceMatcher

    return SequenceMatcher(None, one[:_LONGEST].casefold(), other[:_LONGEST].casefold()).ratio()
