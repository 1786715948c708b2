"""`meltrepro ui`: MLflow in the browser, and the link that puts the last campaign's cells side by side."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import interrupts, workflow
from meltrepro.cli.common import JsonOption
from meltrepro.cli.documents import UiDocument
from meltrepro.cli.json_output import print_json
from meltrepro.errors import Interrupted, TrackingError

if TYPE_CHECKING:
    from meltrepro.track.places import Place

_MOST_COMPARED = 30
"""Cells that MLflow's page of comparisons still shows well."""


def command(
    campaign: Annotated[
        str,
        typer.Argument(
            metavar="[CAMPAIGN]", help="The campaign to compare: a folder, an id, a part of one, or `last`."
        ),
    ] = "last",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; any free one for 0.")] = 0,
    json: JsonOption = False,
) -> None:
    """Start the MLflow UI, print its address and the link to a comparison; Ctrl-C stops it."""
    try:
        with interrupts.raising(), workflow.browse(campaign, port=port, starts=_starting) as pages:
            if json:
                print_json("ui", _document(pages))
                sys.stdout.flush()  # who reads it waits for this line, and not for the end
            else:
                _announce(pages)
            if pages.server is None:
                return
            typer.echo("Ctrl-C stops it", err=True)
            status = pages.server.wait()
            raise TrackingError(
                f"the MLflow server has ended by itself, with status {status}; its log: {pages.server.log}"
            )
    except Interrupted:
        typer.echo("stopped", err=True)


def _document(pages: workflow.Browsable) -> UiDocument:
    return UiDocument(
        url=pages.url,
        campaign=pages.campaign.document.id if pages.campaign else None,
        experiment_id=pages.experiment_id,
        link=pages.link(_MOST_COMPARED),
    )


def _starting(place: Place) -> None:
    typer.echo(f"starting MLflow on {place.shown} ...", err=True)


def _announce(pages: workflow.Browsable) -> None:
    """Print the address, and the link to the campaign's cells where they are in MLflow."""
    if pages.server is None and not pages.place.trusted:
        typer.echo(f"only the campaign's record names {pages.place.shown}", err=True)
    if pages.campaign is None:
        typer.echo("no campaign yet; run one with: meltrepro run SPEC", err=True)
    elif pages.experiment_id is None:
        name, wanted = pages.campaign.document.id, pages.campaign.document.tracking.enabled
        why = (
            f"is not logged yet; log it with: meltrepro sync {name}"
            if wanted
            else (f"was run without tracking; to log it all the same: meltrepro sync {name}")
        )
        typer.echo(f"{name} {why}", err=True)
    if (cells := len(pages.runs)) > _MOST_COMPARED:
        typer.echo(f"comparing the first {_MOST_COMPARED} of {cells} cells", err=True)
    typer.echo(f"MLflow:  {pages.url}")
    if link := pages.described:
        typer.echo(f"results: {link}")
    if link := pages.results:
        typer.echo(f"charts:  {link}")
    if link := pages.link(_MOST_COMPARED):
        typer.echo(f"{'compare: ' if cells > 1 else 'cell:    '}{link}")
