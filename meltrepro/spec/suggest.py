"""Near misses: what somebody probably meant."""

from __future__ import annotations

from collections.abc import Collection

_SHOWN = 16


def near_miss(name: str, known: Collection[str]) -> str | None:
    """`did you mean 'x'?` for the known name that is nearest, if one is near."""
    name = nearest(name, known) or ""
    return f"did you mean {name!r}?" if name else None


def suggest(name: str, known: Collection[str], intro: str = "known") -> str | None:
    """The near miss, or else all known names, where they are few enough to be read."""
    names = ", ".join(sorted(known)) if 0 < len(known) <= _SHOWN else None
    return near_miss(name, known) or (f"{intro}: {names}" if names else None)


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that is nearest, if one is near; capital letters do not count."""
    from difflib import get_close_matches

    folded = {other.casefold(): other for other in known}
    close = get_close_matches(name[:200].casefold(), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None
