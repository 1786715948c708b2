"""`meltrepro model add`: a model by its name, written into a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.console import console
from meltrepro.cli.terminal import typed

app = typer.Typer(rich_markup_mode=None, help="Models of a manifest.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Models of a manifest."""


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What the manifest is to call it.")],
    source: Annotated[
        str,
        typer.Argument(help="hf:OWNER/NAME, hf:OWNER/NAME/FILE, a model's file or folder, or synthetic:NAME."),
    ],
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The manifest; its other lines stay as they are.")],
    quantizations: Annotated[
        str | None, typer.Option("--quantizations", metavar="NAMES", help="Those to make of it, with commas.")
    ] = None,
) -> None:
    """Write a model into a manifest; one on the hub is looked up first. `lock` then pins it."""
    wanted = [each.strip() for each in (quantizations or "").split(",") if each.strip()]
    with console() as sink:
        added = workflow.add_model(spec, name, source, quantizations=wanted, sink=sink)
    typer.echo(f"{added.path}: models.{name} added")
    for line in added.lines:
        typer.echo(f"  {line}")
    if added.entry.found is not None:
        typer.echo(f"the newest commit is {added.entry.found.revision}")
    typer.echo(f"next: {typed('lock', added.path)}, which pins it")
