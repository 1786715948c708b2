"""What a section lacks: each reason once, however many of its figures and tables it explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meltrepro.report.sections import Section
from meltrepro.report.values import NOT_TESTABLE, plain


@dataclass(frozen=True)
class Gap:
    """A reason, and what is not there because of it."""

    word: str
    """`NOT TESTABLE HERE` or what else stands before the reason."""
    reason: str
    titles: tuple[str, ...]
    ids: tuple[str, ...]
    """Of the figures and tables on the page, so that links to them lead here."""


def gaps(part: Section) -> Mapping[str, Gap]:
    """By the id of the first figure or table that a reason explains, which is the place where it stands."""
    missing = [(f"figure-{one.name}", one.title, NOT_TESTABLE, one.reason) for one in part.figures]
    missing += [(f"table-{one.name}", one.title, one.gap, one.reason) for one in part.tables]
    grouped: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for id, title, word, reason in missing:
        if reason is not None:
            grouped.setdefault((word, plain(reason)), []).append((id, title))
    return {
        found[0][0]: Gap(word, reason, tuple(dict.fromkeys(title for _, title in found)), tuple(id for id, _ in found))
        for (word, reason), found in grouped.items()
    }
