"""`meltrepro model add`: a model by its name, written into a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import JsonOption
from meltrepro.cli.console import console
from meltrepro.cli.documents import ModelDocument
from meltrepro.cli.json_output import print_json
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
    json: JsonOption = False,
) -> None:
    """Write a model into a manifest; one on the hub is looked up first. `lock` then pins it."""
    wanted = [each.strip() for each in (quantizations or "").split(",") if each.strip()]
    with console(quiet=json) as sink:
        added = workflow.add_model(spec, name, source, quantizations=wanted, sink=sink)
    found = added.entry.found
    if json:
        revision = found.revision if found is not None else None
        print_json("model-add", ModelDocument(path=added.path, name=name, model=dict(added.keys), revision=revision))
        return
    typer.echo(f"{added.path}: models.{name} added")
    for line in added.lines:
        typer.echo(f"  {line}")
    if found is not None:
        typer.echo(f"the newest commit is {found.revision}")
    typer.echo(f"next: {typed('lock', added.path)}, which pins it")
