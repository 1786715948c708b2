"""`meltrepro trace`: trials as Perfetto traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import CampaignArgument, JsonOption
from meltrepro.cli.json_output import print_json


def command(
    campaign: CampaignArgument = "last",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Cells to take: a pattern such as '*q4_0*'.", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")] = Path(),
    everything: Annotated[
        bool,
        typer.Option("--all", help="Every trial, not only the first repetition and the profiled one of each cell."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write trials as Perfetto traces, to be opened in ui.perfetto.dev: phases, tokens, operators, sensors."""
    written = workflow.trace(campaign, output, only=only or (), everything=everything)
    if json:
        print_json("trace", written)
        return
    for path in written:
        typer.echo(str(path))
