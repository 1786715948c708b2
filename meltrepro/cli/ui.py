"""`meltrepro ui`: MLflow in the browser, and the link that puts the last campaign's cells side by side."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.errors import Interrupted, TrackingError

if TYPE_CHECKING:
    from meltrepro.measure.records import CampaignRecord
    from meltrepro.settings import Settings
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
) -> None:
    """Start the MLflow UI, print its address and the link to a comparison; Ctrl-C stops it."""
    from meltrepro import interrupts
    from meltrepro.track import places
    from meltrepro.track.server import serve

    settings = settings_module.load()
    record = _campaign(settings, campaign)
    wished = record.document.tracking.uri if record else None
    place = places.choose(os.environ, wished, settings.tracking_uri)
    if places.is_server(place.uri):
        if not place.trusted:
            typer.echo(f"only the campaign's record names {place.shown}", err=True)
        _announce(place.shown, place, record)
        return
    if record is not None and not places.is_own(place, settings.tracking_uri):
        raise places.foreign(place, [record.id])
    typer.echo(f"starting MLflow on {place.shown} ...", err=True)
    try:
        with interrupts.raising(), serve(place.uri, settings.run, port=port) as server:
            _announce(server.url, place, record)
            typer.echo("Ctrl-C stops it", err=True)
            status = server.wait()
            raise TrackingError(f"the MLflow server has ended by itself, with status {status}; its log: {server.log}")
    except Interrupted:
        typer.echo("stopped", err=True)


def _campaign(settings: Settings, wanted: str) -> CampaignRecord | None:
    """The campaign that is meant; `None` where there is none at all yet."""
    from meltrepro.measure.records import read_campaign
    from meltrepro.record.reader import campaign_folders, find_campaign

    if wanted == "last" and not campaign_folders(settings.records):
        return None
    return read_campaign(find_campaign(settings.records, wanted))


def _announce(url: str, where: Place, campaign: CampaignRecord | None) -> None:
    """Print the address, and the link to the campaign's cells where they are in MLflow."""
    from meltrepro.track import places
    from meltrepro.track.ledger import open_ledger

    lines = [f"MLflow:  {url}"]
    place = open_ledger(campaign.folder).place(where.shown) if campaign else None
    if campaign is None:
        typer.echo("no campaign yet; run one with: meltrepro run SPEC", err=True)
    elif place is None:
        typer.echo(f"{campaign.id} is not logged yet; log it with: meltrepro sync", err=True)
    else:
        runs = [place.cells[cell.id].run_id for cell in campaign.cells if cell.id in place.cells]
        if len(runs) > _MOST_COMPARED:
            typer.echo(f"comparing the first {_MOST_COMPARED} of {len(runs)} cells", err=True)
        if len(runs) > 1:
            lines.append(f"compare: {places.compare_link(url, place.experiment_id, runs[:_MOST_COMPARED])}")
        elif runs:
            lines.append(f"run:     {places.run_link(url, place.experiment_id, runs[0])}")
    typer.echo("\n".join(lines))
