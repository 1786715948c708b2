"""`meltrepro sync`: log to MLflow what is on disk and not there yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meltrepro import settings as settings_module
from meltrepro.errors import MeltreproError, RecordError, TrackingError
from meltrepro.words import counted

if TYPE_CHECKING:
    from meltrepro.steps import Sink


def command(
    campaigns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CAMPAIGN]...",
            help="Folders, ids or parts of ids, or `last`; every campaign that is not logged yet, if none is named.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Check campaigns too that are logged already.")] = False,
    detail: Annotated[
        Literal["first", "all"], typer.Option(help="Trace and token times of each cell's first repetition, or of all.")
    ] = "first",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Log campaigns to MLflow that are not there yet; nothing is ever logged twice."""
    from meltrepro import interrupts
    from meltrepro.cli.console import console
    from meltrepro.measure.records import campaign_folders, find_campaign

    settings = settings_module.load()
    named = [find_campaign(settings.records, wanted) for wanted in campaigns or ()]
    folders = named or campaign_folders(settings.records)
    problems: list[MeltreproError] = []
    dead: set[str] = set()
    logged = 0
    with interrupts.raising(), console(quiet=quiet) as sink:
        for folder in folders:
            uri: str | None = None
            try:
                uri = _debt(folder, settings.tracking_uri, named=bool(named), again=everything or detail == "all")
                if uri is not None and uri not in dead:
                    _log(folder, uri, detail, sink)
                    logged += 1
            except (RecordError, TrackingError) as error:
                problems.append(error)
                if isinstance(error, TrackingError) and uri is not None:
                    dead.add(uri)  # one server is waited for once
    if problems:
        raise _joined(problems)
    if not logged:
        typer.echo(f"nothing to log: {counted(len(folders), 'campaign')} in {settings.records}, all in MLflow")


def _debt(folder: Path, default_uri: str, *, named: bool, again: bool) -> str | None:
    """Where a campaign is still to be logged; `None` where nothing is owed. Raises `RecordError`."""
    from meltrepro.measure.records import read_campaign
    from meltrepro.track import places
    from meltrepro.track.ledger import open_ledger

    tracking = read_campaign(folder).document.tracking
    uri = places.choose_uri(os.environ, tracking.uri, default_uri)
    if named or (again and tracking.enabled):
        return uri
    if not tracking.enabled:
        return None
    place = open_ledger(folder).place(places.shown(uri))
    database = places.local_database(uri)
    there = place is not None and place.complete and (database is None or database.path.exists())
    return None if there else uri


def _log(folder: Path, uri: str, detail: Literal["first", "all"], sink: Sink) -> None:
    from meltrepro.track.mlflow_tracker import sync

    tracked = sync(folder, uri, sink, detail=detail)
    state = "" if tracked.complete else ", unfinished"
    typer.echo(f"logged {folder.name}: {counted(len(tracked.cell_run_ids), 'cell')}{state}, in {tracked.uri}")


def _joined(problems: Sequence[MeltreproError]) -> MeltreproError:
    """The first problem, with the others named in its message."""
    first = problems[0]
    if len(problems) == 1:
        return first
    message = "\n".join(problem.message for problem in problems)
    return type(first)(message, hint=first.hint)
