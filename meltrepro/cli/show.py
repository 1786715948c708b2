"""`meltrepro show`: the results of a campaign again, or which campaigns there are."""

from __future__ import annotations

from typing import Annotated

import typer

from meltrepro import settings, workflow
from meltrepro.cli.common import CampaignArgument, WithInvalidOption
from meltrepro.words import counted


def command(
    campaign: CampaignArgument = "last",
    with_invalid: WithInvalidOption = False,
    list_: Annotated[bool, typer.Option("--list", help="Name every campaign, oldest first.")] = False,
) -> None:
    """Show the results of a campaign: medians, intervals, what is INVALID and why, what is odd, operators."""
    from meltrepro.cli.summary import show_results

    if list_:
        _list()
    else:
        show_results(workflow.load(campaign, with_invalid=with_invalid))


def _list() -> None:
    found = workflow.list_campaigns()
    width = max((len(each.folder.name) for each in found), default=0) + 2
    for each in found:
        if record := each.record:
            state = "finished" if record.finished else "unfinished"
            ended = sum(len(cell.trials) for cell in record.cells)
            marks = [mark for mark in ("virtual", "synthetic") if getattr(record.document, mark)]
            text = ", ".join((f"{state:12}{counted(len(record.cells), 'cell')}", counted(ended, "trial"), *marks))
        else:
            text = f"damaged: {each.problem}"
        typer.echo(f"{each.folder.name:{width}}{text}")
    if not found:
        typer.echo(f"there is no campaign in {settings.load().records}; run one first: meltrepro run SPEC")
