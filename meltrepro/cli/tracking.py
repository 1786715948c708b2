"""Logging a campaign that has just ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from meltrepro.errors import Interrupted, TrackingError

if TYPE_CHECKING:
    from meltrepro.cli.session import Session
    from meltrepro.track.places import Place


def log_campaign(session: Session, folder: Path, *, quiet: bool) -> Place | None:
    """Log a campaign and say so; returns where it is now. A server that does not answer is a debt and no failure."""
    from meltrepro import interrupts
    from meltrepro.cli.console import console
    from meltrepro.track.mlflow_tracker import sync
    from meltrepro.track.places import choose, is_own, is_server

    default = session.settings.tracking_uri
    try:
        place = choose(os.environ, session.loaded.manifest.tracking.uri, default)
    except TrackingError as error:
        typer.echo(f"not logged to MLflow: {error.message}", err=True)
        typer.echo(f"next: {error.hint}", err=True)
        return None
    sync_it = (
        "meltrepro sync"
        if is_own(place, default)
        else f"MLFLOW_TRACKING_URI={place.shown} meltrepro sync {folder.name}"
    )
    if is_server(place.uri) and not place.trusted:
        typer.echo(f"only the manifest names {place.shown}: your login for MLflow is not sent there", err=True)
        typer.echo(f"next: to log in there, name it yourself: MLFLOW_TRACKING_URI={place.shown}", err=True)
    try:
        with interrupts.raising(), console(quiet=quiet) as sink:
            sync(folder, place, sink)
    except TrackingError as error:
        typer.echo(f"not logged to MLflow: {error.message}", err=True)
        typer.echo(f"next: log it when that is mended, with: {sync_it}", err=True)
        return None
    except Interrupted as error:
        raise Interrupted(
            "stopped while logging to MLflow; the records are complete", hint=f"log the rest with: {sync_it}"
        ) from error
    if not quiet:
        typer.echo("compare the cells in MLflow with: meltrepro ui")
    return place
