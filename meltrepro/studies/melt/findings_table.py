"""The paper's claims and what these results say of them."""

from __future__ import annotations

from collections.abc import Mapping

from meltrepro.report.content import Content
from meltrepro.report.values import Column, Table, Tags
from meltrepro.studies.melt.findings.model import Finding, Verdict


def findings(content: Content) -> Table:
    """One row a claim."""
    columns = (
        *(
            Column("id", "id"),
            Column("verdict", "verdict"),
            Column("tags", "tags", "tags"),
            Column("claim", "claim", "prose"),
        ),
        *(Column("reason", "because", "prose"), Column("numbers", "figures", "prose", "reason")),
        *(Column("threshold", "holds when", "prose", "claim"), Column("paper_figures", "paper", "prose", "claim")),
        Column("notes", "notes", "prose", "reason"),
    )
    rows = tuple(
        (
            *(row.id, row.verdict.value, Tags(_tags(row)), row.claim, row.reason),
            ", ".join(f"{name} = {quantity}" for name, quantity in row.numbers.items()),
            *(row.threshold, _reference(row), "; ".join(row.notes)),
        )
        for row in content.findings
    )
    notes = (
        (
            "Verdicts tagged virtual rest on virtual devices and say nothing of real ones; thresholds are this project's, fixed before"
            " anything was measured."
        ),
    )
    reason = None if rows else "no finding was evaluated for this report"
    return Table("findings", "Findings", columns, rows, notes if rows else (), reason)


def counts(content: Content) -> Mapping[str, int]:
    """How many claims have which verdict."""
    verdicts = [row.verdict for row in content.findings]
    return {verdict.value: verdicts.count(verdict) for verdict in Verdict}


def _tags(row: Finding) -> tuple[str, ...]:
    return tuple(name for name, holds in (("virtual", row.virtual), ("synthetic", row.synthetic)) if holds)


def _reference(row: Finding) -> str:
    return "; ".join(
        f"{one.name}: {one.quantity}{' (secondhand, rough)' if one.secondhand else ''}" for one in row.reference
    )
