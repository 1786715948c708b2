"""`meltrepro show`: the results of a campaign again."""

from __future__ import annotations

from typing import Annotated

import typer

from meltrepro import settings as settings_module


def command(
    campaign: Annotated[
        str, typer.Argument(metavar="[CAMPAIGN]", help="A folder, an id, a part of one, or `last`.")
    ] = "last",
    with_invalid: Annotated[
        bool, typer.Option("--with-invalid", help="Count repetitions that are INVALID too.")
    ] = False,
) -> None:
    """Show the results of a campaign: medians, intervals, what is INVALID and why, what is odd, operators."""
    from meltrepro.cli.summary import show_results
    from meltrepro.measure.records import find_campaign

    settings = settings_module.load()
    show_results(find_campaign(settings.records, campaign), with_invalid=with_invalid)
