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
    from meltrepro.track.places import Place


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
    from meltrepro.record.reader import campaign_folders, find_campaign
    from meltrepro.track import places

    settings = settings_module.load()
    named = [find_campaign(settings.records, wanted) for wanted in campaigns or ()]
    folders = named or campaign_folders(settings.records)
    problems: list[MeltreproError] = []
    dead: set[Place] = set()
    foreign: dict[Place, list[str]] = {}
    logged = 0
    with interrupts.raising(), console(quiet=quiet) as sink:
        for folder in folders:
            place: Place | None = None
            try:
                place = _debt(folder, settings.tracking_uri, named=bool(named), again=everything or detail == "all")
                if place is not None and not places.is_own(place, settings.tracking_uri):
                    foreign.setdefault(place, []).append(folder.name)
                elif place is not None and place not in dead:
                    _log(folder, place, detail, sink)
                    logged += 1
            except (RecordError, TrackingError) as error:
                problems.append(error)
                if isinstance(error, TrackingError) and place is not None:
                    dead.add(place)  # one server is waited for once
    owed = [places.foreign(place, campaigns) for place, campaigns in foreign.items()]
    problems += owed if named else []
    if problems:
        raise _joined(problems)
    for debt in owed:  # somebody else's campaign may name any server, which is no failure of this command
        typer.echo(f"{debt.message}\nnext: {debt.hint}", err=True)
    if not (logged or owed):
        typer.echo(f"nothing to log: {counted(len(folders), 'campaign')} in {settings.records}, all in MLflow")


def _debt(folder: Path, default_uri: str, *, named: bool, again: bool) -> Place | None:
    """Where a campaign is still to be logged; `None` where nothing is owed. Raises `RecordError`."""
    from meltrepro.record.reader import read_folder
    from meltrepro.track import places
    from meltrepro.track.ledger import open_ledger

    tracking = read_folder(folder).document.tracking
    place = places.choose(os.environ, tracking.uri, default_uri)
    if named or (again and tracking.enabled):
        return place
    if not tracking.enabled:
        return None
    note = open_ledger(folder).place(place.shown)
    database = places.local_database(place.uri)
    there = note is not None and note.complete and (database is None or database.path.exists())
    return None if there else place


def _log(folder: Path, place: Place, detail: Literal["first", "all"], sink: Sink) -> None:
    from meltrepro.track.mlflow_tracker import sync

    tracked = sync(folder, place, sink, detail=detail)
    state = "" if tracked.complete else ", unfinished"
    typer.echo(f"logged {folder.name}: {counted(len(tracked.cell_run_ids), 'cell')}{state}, in {tracked.uri}")


def _joined(problems: Sequence[MeltreproError]) -> MeltreproError:
    """The first problem, with the others named in its message."""
    first = problems[0]
    if len(problems) == 1:
        return first
    message = "\n".join(problem.message for problem in problems)
    return type(first)(message, hint=first.hint)
