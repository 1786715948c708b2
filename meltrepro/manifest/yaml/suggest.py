"""Near misses: what somebody probably meant."""

from __future__ import annotations

from collections.abc import Collection

_SHOWN = 16
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
    """The known name that is nearest, if one is near."""
    best, hit = max(((likeness(name, other), other) for other in known), default=(0.0, None))
    return hit if best >= _NEAR else None


def likeness(one: str, other: str) -> float:
    """How alike two names are, from 0 to 1: by edits for slips of the finger, by common parts for shortened names.

    Capital letters do not count.
    """
    from difflib import SequenceMatcher

    a, b = one[:_LONGEST].casefold(), other[:_LONGEST].casefold()
    by_edits = 1 - _edits(a, b) / max(len(a), len(b), 1)
    return max(by_edits, SequenceMatcher(None, a, b).ratio())


def _edits(a: str, b: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that lead from one text to the other."""
    before, last = list[int](), list(range(len(b) + 1))
    for i, x in enumerate(a):
        row = [i + 1]
        for j, y in enumerate(b):
            cost = min(last[j] + (x != y), last[j + 1] + 1, row[j] + 1)
            if i and j and x == b[j - 1] and a[i - 1] == y:
                cost = min(cost, before[j - 1] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
