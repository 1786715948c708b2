"""`meltrepro verify`: check artifacts against the lock, then rebuild them from scratch and compare again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import EngineOption, JsonOption, OnlyOption, SetOption, SpecArgument
from meltrepro.cli.console import console
from meltrepro.cli.json_output import print_json

if TYPE_CHECKING:
    from meltrepro.replay.verify import Verified


def command(
    spec: SpecArgument,
    set_: SetOption = [],
    only: OnlyOption = [],
    engine: EngineOption = "docker",
    rebuild: Annotated[
        bool, typer.Option("--rebuild/--no-rebuild", help="Build everything from scratch, or look at digests alone.")
    ] = True,
    vary: Annotated[
        bool,
        typer.Option(
            "--vary",
            help="Rebuild by the engine process as another user, in other folders, with other jobs, locale and umask.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Say whether the lock's artifacts are here unchanged, and whether a rebuild gives the same bytes."""
    with console(quiet=json) as sink:
        verified = workflow.verify(
            spec,
            overrides=set_,
            only=only,
            engine=engine,
            rebuild=rebuild,
            vary=vary,
            found=(lambda *_: None) if json else _print,  # all of them at the end
            sink=sink,
        )
    if json:
        print_json("verify", list(verified.findings))
    if verified.error is not None:
        raise verified.error


def _print(title: str, findings: Sequence[Verified]) -> None:
    for finding in findings:
        typer.echo(f"{title:8} {finding.status:9} {finding.artifact}  {(finding.found or finding.locked or '')[:16]}")
        for line in finding.explanation.splitlines():
            typer.echo(f"         {line}")
