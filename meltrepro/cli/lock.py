"""`meltrepro lock`: pin every input of a manifest by digest, or move one pin and show what that changes."""

from __future__ import annotations

from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import SetOption, SpecArgument
from meltrepro.cli.console import console


def command(
    spec: SpecArgument,
    set_: SetOption = [],
    upgrade: Annotated[
        list[str],
        typer.Option(
            "--upgrade", help="Move this pin: base, toolchain, interpreter, a model, a framework or a source."
        ),
    ] = [],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail where the lock is not current.")] = False,
) -> None:
    """Write the lock of a manifest beside it."""
    with console() as sink:
        change = workflow.lock(spec, overrides=set_, upgrade=upgrade, check=check, sink=sink)
    if change.before:
        for line in change.difference:
            typer.echo(line)
    if change.stale is not None:
        raise change.stale
    typer.echo(f"{change.path}: {'written' if change.after != change.before else 'current'}")
