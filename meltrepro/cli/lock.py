"""`meltrepro lock`: pin every input of a manifest by digest, or move one pin and show what that changes."""

from __future__ import annotations

from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import JsonOption, SetOption, SpecArgument
from meltrepro.cli.console import console
from meltrepro.cli.documents import LockDocument
from meltrepro.cli.json_output import print_json


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
    json: JsonOption = False,
) -> None:
    """Write the lock of a manifest beside it."""
    with console(quiet=json) as sink:
        change = workflow.lock(spec, overrides=set_, upgrade=upgrade, check=check, sink=sink)
    changed = change.after != change.before
    if json:
        print_json("lock", _document(change))
    elif change.before:
        for line in change.difference:
            typer.echo(line)
    if change.stale is not None:
        raise change.stale
    if not json:
        for name, each in change.names.items():
            typer.echo(f"{name} is at {each.revision}, licence {each.licence or 'not named'}")
        typer.echo(f"{change.path}: {'written' if changed else 'current'}")


def _document(change: workflow.LockChange) -> LockDocument:
    return LockDocument(
        path=change.path,
        changed=change.after != change.before,
        difference=change.difference if change.before else [],
        names={name: each.model_dump(mode="json", exclude_none=True) for name, each in change.names.items()},
    )
