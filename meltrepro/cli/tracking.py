"""Logging a campaign that has just ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from meltrepro.errors import Interrupted, TrackingError

if TYPE_CHECKING:
    from meltrepro.cli.session import Session


def log_campaign(session: Session, folder: Path, *, quiet: bool) -> bool:
    """Log a campaign and say so; a server that does not answer is a debt and no failure, and gives `False`."""
    from meltrepro import interrupts
    from meltrepro.cli.console import console
    from meltrepro.track.mlflow_tracker import sync
    from meltrepro.track.places import choose_uri

    try:
        uri = choose_uri(os.environ, session.loaded.manifest.tracking.uri, session.settings.tracking_uri)
        with interrupts.raising(), console(quiet=quiet) as sink:
            sync(folder, uri, sink)
    except TrackingError as error:
        typer.echo(f"not logged to MLflow: {error.message}", err=True)
        typer.echo("next: log it when that is mended, with: meltrepro sync", err=True)
        return False
    except Interrupted as error:
        raise Interrupted(
            "stopped while logging to MLflow; the records are complete", hint="log the rest with: meltrepro sync"
        ) from error
    if not quiet:
        typer.echo("compare the cells in MLflow with: meltrepro ui")
    return True
