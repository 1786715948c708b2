"""`meltrepro init`: a manifest to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.terminal import typed


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where to; it is made.", show_default=False)
    ] = Path(),
) -> None:
    """Write the quickstart into a folder: manifest, lock and prompts, to run and to change."""
    manifest = workflow.write_quickstart(folder)
    typer.echo(f"{manifest}: written, with its lock and prompts")
    typer.echo(f"next: {typed('doctor')}, then {typed('run', manifest)}; without Docker, both with --engine process")
