"""The paper's claims and what these results say of them."""

from __future__ import annotations

from collections.abc import Mapping

from meltrepro.report.content import Content
from meltrepro.report.values import NOT_TESTABLE, Column, Table, exact, number


def findings(content: Content) -> Table:
    """One row a claim."""
    columns = (
        *(Column("id", "id"), Column("claim", "claim"), Column("verdict", "verdict")),
        *(Column("reason", "because"), Column("numbers", "figures")),
    )
    rows = tuple((row.id, row.claim, row.verdict, row.reason or "", figures(row.numbers)) for row in content.findings)
    reason = None if rows else "no finding was evaluated for this report"
    return Table("findings", "Findings", columns, rows, reason=reason)


def figures(numbers: Mapping[str, float | int | str]) -> str:
    """`ratio = 3.1, cells = 4`."""
    return ", ".join(f"{name} = {_shown(value)}" for name, value in numbers.items())


def counts(content: Content) -> Mapping[str, int]:
    """How many claims have which verdict."""
    verdicts = [row.verdict for row in content.findings]
    return {name: sum(verdict.startswith(name) for verdict in verdicts) for name in ("HOLDS", "FAILS", NOT_TESTABLE)}


def _shown(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return exact(value) if isinstance(value, int) else number(value)
