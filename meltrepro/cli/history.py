"""`meltrepro history`: how metrics move over releases or time, and where their level changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from meltrepro import workflow
from meltrepro.cli.common import JsonOption, WithInvalidOption, complete_campaigns
from meltrepro.cli.json_output import json_text
from meltrepro.words import counted


def command(
    campaigns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CAMPAIGN...]",
            help="Studies, campaign ids, names, folders, or `last`; without any, the newest and all that go with it.",
            autocompletion=complete_campaigns,
        ),
    ] = None,
    metric: Annotated[
        list[str], typer.Option("--metric", metavar="NAME", help="A metric, e.g. generation_tps.", show_default=False)
    ] = [],
    by: Annotated[
        Literal["release", "date"], typer.Option(help="The axis: releases of a framework, or when it was measured.")
    ] = "release",
    only: Annotated[
        list[str], typer.Option("--only", metavar="GLOB", help="Cells whose id matches.", show_default=False)
    ] = [],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write an HTML page; of FILE.svg the figure.")
    ] = None,
    with_invalid: WithInvalidOption = False,
    json: JsonOption = False,
    track: Annotated[
        bool, typer.Option("--track/--no-track", help="Log it to MLflow, where its campaigns are.")
    ] = True,
) -> None:
    """Show how metrics move over releases or time, with intervals, and where their level changed."""
    from meltrepro.atomic import write_bytes
    from meltrepro.history.page import drawing, html
    from meltrepro.history.text import text

    traced = workflow.history(campaigns or (), by=by, metrics=metric, only=only, with_invalid=with_invalid, track=track)
    for problem in traced.unreadable:
        typer.echo(f"passed over: {problem}", err=True)
    if output is not None:
        write_bytes(output, drawing(traced.history) if output.suffix == ".svg" else html(traced.history).encode())
    if json:
        typer.echo(json_text("history", traced.history), nl=False)
    elif output is None:
        typer.echo(text(traced.history), nl=False)
    else:
        changes = sum(len(trend.changes) for course in traced.history.courses for trend in course.trends)
        typer.echo(f"{output}: written, with {counted(changes, 'change')}")
    if traced.problem is not None:
        typer.echo(f"not logged to MLflow: {traced.problem.message}", err=True)
    elif traced.runs and not json:
        typer.echo(f"logged to {counted(traced.runs, 'MLflow run')}")
