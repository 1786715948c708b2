"""`meltrepro show`: the results of a campaign again, or which campaigns there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.words import counted

if TYPE_CHECKING:
    from meltrepro.record.campaign import CampaignDocument


def command(
    campaign: Annotated[
        str, typer.Argument(metavar="[CAMPAIGN]", help="A folder, an id, a part of one, or `last`.")
    ] = "last",
    with_invalid: Annotated[
        bool, typer.Option("--with-invalid", help="Count repetitions that are INVALID too.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Name every campaign, oldest first.")] = False,
) -> None:
    """Show the results of a campaign: medians, intervals, what is INVALID and why, what is odd, operators."""
    from meltrepro.cli.summary import show_results
    from meltrepro.record.reader import find_campaign

    settings = settings_module.load()
    if list_:
        _list(settings.records)
    else:
        show_results(find_campaign(settings.records, campaign), with_invalid=with_invalid)


def _list(records: Path) -> None:
    from meltrepro.errors import RecordError
    from meltrepro.measure.records import read_campaign
    from meltrepro.record.reader import campaign_folders

    folders = campaign_folders(records)
    width = max((len(folder.name) for folder in folders), default=0) + 2
    for folder in folders:
        try:
            found = read_campaign(folder)
            state = "finished" if found.finished else "unfinished"
            ended = sum(len(cell.trials) for cell in found.cells)
            text = f"{state:12}{counted(len(found.cells), 'cell')}, {counted(ended, 'trial')}{_marks(found.document)}"
        except RecordError as error:
            text = f"damaged: {error.message}"
        typer.echo(f"{folder.name:{width}}{text}")
    if not folders:
        typer.echo(f"there is no campaign in {records}; run one first: meltrepro run SPEC")


def _marks(document: CampaignDocument) -> str:
    """What a reader must know of all of its numbers."""
    return "".join(f", {mark}" for mark in ("virtual", "synthetic") if getattr(document, mark))
