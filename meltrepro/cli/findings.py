"""`meltrepro findings`: which claims of a study hold on its campaigns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import JsonOption, WithInvalidOption, complete_campaigns
from meltrepro.cli.documents import FindingsDocument
from meltrepro.cli.json_output import print_json
from meltrepro.errors import TrackingError

if TYPE_CHECKING:
    from meltrepro.track.places import Place


def command(
    campaigns: Annotated[
        list[str],
        typer.Argument(
            metavar="[CAMPAIGN...]",
            help="Studies, folders, ids, parts of ids, or `last`.",
            autocompletion=complete_campaigns,
        ),
    ] = ["last"],
    study: Annotated[
        str | None,
        typer.Option(
            "--study", help="Decide the claims of this study on all of the campaigns, also on those of no study."
        ),
    ] = None,
    json: JsonOption = False,
    virtual_only: Annotated[bool, typer.Option("--virtual-only", help="Decide by virtual devices alone.")] = False,
    with_invalid: WithInvalidOption = False,
) -> None:
    """Decide the claims of a study from the records of its campaigns, and say why.

    A manifest says which study it belongs to (`study: melt`). Several campaigns are one table: what one lacks another may
    have. A claim that fails is a result, not an error.
    """
    decided = workflow.findings(campaigns, study=study, virtual_only=virtual_only, with_invalid=with_invalid)
    if json:
        print_json("findings", FindingsDocument.model_validate_json(decided.json))
    else:
        typer.echo(decided.text, nl=False)


def tell(folders: Sequence[Path], named: str, place: Place | None = None, *, quiet: bool = False) -> None:
    """A line for each study that campaigns belong to, which `named` means; where in MLflow one was logged to, all of it."""
    for study, decided in workflow.conclusions(folders).items():
        if not quiet:
            typer.echo(f"findings of {study}: {decided.tally}; see them with: meltrepro findings {named}")
        if place is None:
            continue
        try:
            workflow.log_findings(folders, decided, place)
        except TrackingError as error:
            typer.echo(f"findings not logged to MLflow: {error.message}", err=True)
