"""`meltrepro bisect`: which release made a metric worse."""

from __future__ import annotations

from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import (
    EngineOption,
    JsonOption,
    OnlyOption,
    QuietOption,
    SetOption,
    SpecArgument,
    WaitAtMostOption,
    WaitOption,
    patience,
)
from meltrepro.cli.console import console
from meltrepro.cli.json_output import print_json
from meltrepro.cli.terminal import plain_table, result_console, say
from meltrepro.words import shorten


def command(
    spec: SpecArgument,
    good: Annotated[str, typer.Option(metavar="RELEASE", help="A release or commit that is well.")],
    bad: Annotated[str, typer.Option(metavar="RELEASE", help="A later one that is worse.")],
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="In what: speed, memory, energy, any metric with a better side.")
    ] = ("generation_tps"),
    set_: SetOption = [],
    only: OnlyOption = [],
    maximum: Annotated[int, typer.Option(min=5, help="Most pairs of trials a release.")] = 60,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no release after so long; the same command goes on.")
    ] = None,
    engine: EngineOption = "docker",
    new: Annotated[bool, typer.Option("--new", help="Try again what was tried.")] = False,
    wait: WaitOption = False,
    wait_at_most: WaitAtMostOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Find the first release, or commit of a repository here, on which one cell of a manifest is worse, by halving what is between two.

    Each release is built, and measured beside the good one in a campaign of both, until it is decided. One that cannot be built is
    left out. Interrupt it whenever you like; the same command goes on.
    """
    wait_s = patience(wait, wait_at_most)
    with console(quiet=quiet or json) as sink:
        found = workflow.bisect_releases(
            spec,
            good,
            bad,
            metric,
            overrides=set_,
            only=only,
            maximum=maximum,
            minutes=minutes,
            engine=engine,
            new=new,
            wait_s=wait_s,
            sink=sink,
        )
    if json:
        from meltrepro.cli.bisect_documents import BisectDocument

        print_json("bisect", BisectDocument(**{name: getattr(found, name) for name in BisectDocument.model_fields}))
        return
    out = result_console()
    table = plain_table("release", "is", "ratio", "interval", "campaign or reason", texts=2)
    for step in found.steps:
        figures = ("", "") if step.ratio is None else (f"{step.ratio:.3f}", f"{step.low or 0:.3f}–{step.high or 0:.3f}")
        side = step.side if step.sure else f"{step.side}, not sure"
        table.add_row(_shown(step.release), side, *figures, step.campaign or shorten(step.reason, 60))
    out.print(table)
    suspects = ", ".join(map(_shown, found.suspects))
    if not found.ended:
        say(out, f"the time was up: it is one of {suspects}; the same command goes on")
    elif len(found.suspects) == 1:
        say(out, f"{found.metric} is worse from {suspects} on")
    else:
        say(out, f"{found.metric} is worse from one of these on, which could not be tried: {suspects}")


def _shown(release: str) -> str:
    """A commit as git shows it."""
    return release[:12] if len(release) == 40 else release
