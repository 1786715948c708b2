"""`meltrepro sync`: log to MLflow what is on disk and not there yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meltrepro import settings, workflow
from meltrepro.cli.common import JsonOption, complete_campaigns
from meltrepro.cli.console import console
from meltrepro.cli.documents import SyncDocument, TrackedDocument
from meltrepro.cli.json_output import print_json
from meltrepro.words import counted

if TYPE_CHECKING:
    from meltrepro.track.mlflow_tracker import TrackedCampaign


def command(
    campaigns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CAMPAIGN]...",
            help="Folders, ids or parts of ids, or `last`, also of campaigns that were run with --no-track; if none is named, "
            "every campaign that is not logged yet and was to be.",
            show_default=False,
            autocompletion=complete_campaigns,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Check campaigns too that are logged already.")] = False,
    detail: Annotated[
        Literal["first", "all"], typer.Option(help="Trace and token times of each cell's first repetition, or of all.")
    ] = "first",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: JsonOption = False,
) -> None:
    """Log campaigns to MLflow that are not there yet; nothing is ever logged twice."""
    tracked: dict[str, TrackedCampaign] = {}
    with console(quiet=quiet or json) as sink:
        run = partial(workflow.sync, campaigns or (), everything=everything, detail=detail, sink=sink)
        if json:
            synced = run(logged=lambda folder, found: tracked.update({folder.name: found}))
            print_json("sync", _document(synced, tracked))
            return
        synced = run(logged=_say, unwanted=_tell_unwanted)
    for debt in synced.owed:  # somebody else's campaign may name any server, which is no failure of this command
        typer.echo(f"{debt.message}\nnext: {debt.hint}", err=True)
    if not (synced.logged or synced.owed):
        folder, kept = settings.load().records, len(synced.unwanted)
        there = f"{synced.campaigns - kept} in MLflow, {kept} not wanted there" if kept else "all in MLflow"
        typer.echo(f"nothing to log: {counted(synced.campaigns, 'campaign')} in {folder}, {there}")


def _document(synced: workflow.Synced, tracked: Mapping[str, TrackedCampaign]) -> SyncDocument:
    logged = [
        TrackedDocument(
            campaign=name,
            uri=found.uri,
            experiment_id=found.experiment_id,
            run_id=found.parent_run_id,
            cells=dict(found.cell_run_ids),
            complete=found.complete,
        )
        for name, found in tracked.items()
    ]
    owed = [debt.message for debt in synced.owed]
    return SyncDocument(campaigns=synced.campaigns, logged=logged, owed=owed, unwanted=list(synced.unwanted))


def _tell_unwanted(campaigns: Sequence[str]) -> None:
    """Say what is not logged because it was run so, and how to have it logged all the same."""
    typer.echo(f"not logged, as they were run without tracking: {', '.join(campaigns)}")
    typer.echo(f"to log them all the same: meltrepro sync {' '.join(campaigns)}", err=True)


def _say(campaign: Path, tracked: TrackedCampaign) -> None:
    state = "" if tracked.complete else ", unfinished"
    typer.echo(f"logged {campaign.name}: {counted(len(tracked.cell_run_ids), 'cell')}{state}, in {tracked.uri}")
