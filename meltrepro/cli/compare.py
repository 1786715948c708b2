"""`meltrepro compare`: what differs between campaigns, and whether it matters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from meltrepro import workflow
from meltrepro.cli.common import JsonOption, WithInvalidOption, complete_campaigns
from meltrepro.cli.json_output import json_text


def command(
    campaigns: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [...]", help="Campaign ids, names, folders, or `last`.", autocompletion=complete_campaigns
        ),
    ],
    maps: Annotated[
        list[str],
        typer.Option(
            "--map",
            metavar="BEFORE=AFTER",
            help="Compare cells with BEFORE in their name with those with AFTER, also of one campaign: old=new, or of an option "
            "kv_type=f16:kv_type=q8_0.",
            show_default=False,
        ),
    ] = [],
    output_format: Annotated[
        Literal["text", "json", "html"], typer.Option("--format", help="How to print it.")
    ] = "text",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
    margin: Annotated[float, typer.Option(help="Largest relative difference that counts as the same.")] = 0.05,
    with_invalid: WithInvalidOption = False,
    json: JsonOption = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log the page to the MLflow runs of both.")] = True,
) -> None:
    """Compare campaigns with the first one, or cells of one campaign, metric by metric, with a verdict each."""
    from meltrepro.replay.show import text
    from meltrepro.report.comparison import html

    compared = workflow.compare(campaigns, maps=maps, margin=margin, with_invalid=with_invalid)
    comparisons = [each.comparison for each in compared]
    if json or output_format == "json":
        result = json_text("compare", comparisons)
    else:
        result = html(comparisons) if output_format == "html" else "\n".join(map(text, comparisons))
    if output is None:
        typer.echo(result, nl=False)
    else:
        output.write_text(result, encoding="utf-8")
        typer.echo(f"{output}: written")
    if track:
        workflow.log_comparisons(compared)
