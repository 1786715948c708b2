"""`meltrepro findings`: which of the paper's claims hold on these campaigns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.errors import TrackingError

if TYPE_CHECKING:
    from meltrepro.track.places import Place

ARTIFACT = "findings.json"
"""Name among the artifacts of a campaign in MLflow."""


def command(
    campaigns: Annotated[
        list[str], typer.Argument(metavar="[CAMPAIGN...]", help="Studies, folders, ids, parts of ids, or `last`.")
    ] = ["last"],
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    virtual_only: Annotated[bool, typer.Option("--virtual-only", help="Decide by virtual devices alone.")] = False,
    with_invalid: Annotated[
        bool, typer.Option("--with-invalid", help="Count repetitions that are INVALID too.")
    ] = False,
) -> None:
    """Decide the paper's findings F1 to F22 from the records of campaigns: HOLDS, FAILS or NOT TESTABLE HERE, and why.

    Several campaigns are one table: what one lacks another may have. A finding that fails is a result, not an error.
    """
    from meltrepro.measure.records import find_campaign
    from meltrepro.record.study import campaigns_meant

    settings = settings_module.load()
    wanted = campaigns_meant(settings.studies, campaigns)
    folders = list(dict.fromkeys(find_campaign(settings.records, name) for name in wanted))
    decided = decide(folders, virtual_only=virtual_only, with_invalid=with_invalid)
    typer.echo(decided.json if json else decided.text, nl=False)


@dataclass(frozen=True)
class Decided:
    """What came out, in the forms in which it is shown."""

    tally: str
    """`4 hold (1 virtual), 1 fails, 17 not testable here`."""
    text: str
    json: str


def decide(folders: Sequence[Path], *, virtual_only: bool = False, with_invalid: bool = False) -> Decided:
    """The findings of campaigns together; raises `RecordError` where a record is damaged."""
    from meltrepro.measure.records import read_campaign
    from meltrepro.report.read import read_results
    from meltrepro.studies.melt.checks import check_scores, scores_of
    from meltrepro.studies.melt.findings.registry import evaluate, tally
    from meltrepro.studies.melt.findings.text import as_json, as_text

    results = read_results([read_campaign(folder, with_invalid=with_invalid) for folder in folders])
    findings = evaluate(results, virtual_only=virtual_only)
    remarks = check_scores(scores_of(results))
    return Decided(tally(findings), as_text(findings, results, remarks), as_json(findings, results, remarks))


def tell(folder: Path, place: Place | None) -> None:
    """One line at the end of a run; where in MLflow its campaign was logged to, the findings go too."""
    decided = decide([folder])
    typer.echo(f"findings: {decided.tally}; see them with: meltrepro findings last")
    if place is None:
        return
    from meltrepro.track.attach import attach

    try:
        attach([folder], {ARTIFACT: decided.json}, place)
    except TrackingError as error:
        typer.echo(f"findings not logged to MLflow: {error.message}", err=True)
