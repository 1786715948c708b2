"""`meltrepro compare`: what differs between campaigns, and whether it matters."""

from __future__ import annotations

import json as json_module
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from meltrepro.errors import UsageError


def command(
    campaigns: Annotated[
        list[str], typer.Argument(metavar="A B [...]", help="Campaign ids, names, folders, or `last`.")
    ],
    output_format: Annotated[
        Literal["text", "json", "html"], typer.Option("--format", help="How to print it.")
    ] = "text",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
    margin: Annotated[float, typer.Option(help="Largest relative difference that counts as the same.")] = 0.05,
    with_invalid: Annotated[
        bool, typer.Option("--with-invalid", help="Count repetitions that are INVALID too.")
    ] = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log the page to the MLflow runs of both.")] = True,
) -> None:
    """Compare campaigns with the first one, metric by metric, with a verdict each."""
    from meltrepro import settings as settings_module
    from meltrepro.measure.records import read_campaign
    from meltrepro.record.reader import find_campaign
    from meltrepro.replay.compare import compare, require_common
    from meltrepro.replay.show import html, text
    from meltrepro.stats.equivalence import Design

    if len(campaigns) < 2:
        raise UsageError("expected at least two campaigns", hint="for example: meltrepro compare last ID")
    settings = settings_module.load()
    folders = [find_campaign(settings.records, name) for name in campaigns]
    first, *others = (read_campaign(folder, with_invalid=with_invalid) for folder in folders)
    comparisons = [compare(first, other, Design(margin=margin), once=True) for other in others]
    for comparison in comparisons:
        require_common(comparison)
    if output_format == "json":
        result = json_module.dumps([comparison.as_json() for comparison in comparisons], indent=2) + "\n"
    else:
        result = "\n".join(map(html if output_format == "html" else text, comparisons))
    if output is None:
        typer.echo(result, nl=False)
    else:
        output.write_text(result, encoding="utf-8")
        typer.echo(f"{output}: written")
    if track:
        from meltrepro.track.logged import attach
        from meltrepro.track.places import choose

        place = choose(os.environ, None, settings.tracking_uri)
        for comparison, folder in zip(comparisons, folders[1:], strict=True):
            name = f"comparison/{comparison.first}--{comparison.second}.html"
            attach([folders[0], folder], {name: html(comparison)}, place)
