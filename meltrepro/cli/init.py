"""`meltrepro init`: a manifest to begin with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.terminal import typed
from meltrepro.errors import UsageError

_MODEL = "hf:OWNER/NAME, hf:OWNER/NAME/FILE, a model's file or folder, or synthetic:NAME"
_COMPARED: tuple[workflow.Compared, ...] = ("quantizations", "frameworks", "devices")


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where to; it is made.", show_default=False)
    ] = Path(),
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help=f"{_MODEL}; the quickstart's where absent.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="DEVICE", help="As `meltrepro devices` shows it; this machine where absent."),
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="WHAT", help=f"{', '.join(_COMPARED)}; the first where absent.")
    ] = None,
) -> None:
    """Write a manifest into a folder, to run and to change.

    On a terminal it asks for what no option says. Without any answer it is the quickstart, with lock and prompts.
    """
    if sys.stdin.isatty() and sys.stdout.isatty():
        model, device, compare = _asked(model, device, compare)
    if model is None and device is None and compare is None:
        manifest = workflow.write_quickstart(folder)
        typer.echo(f"{manifest}: written, with its lock and prompts")
        typer.echo(
            f"next: {typed('doctor')}, then {typed('run', manifest)}; without Docker, both with --engine process"
        )
        return
    manifest, found = workflow.begin(folder, model=model, device=device, compare=_compared(compare or _COMPARED[0]))
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{manifest}: written")
    typer.echo(f"next: {typed('plan', manifest)}, then {typed('run', manifest)}; without Docker, with --engine process")


def _asked(model: str | None, device: str | None, compare: str | None) -> tuple[str | None, str | None, str | None]:
    """The answers to what no option says; `None` for the usual one."""
    from meltrepro.workflow.beginnings import HOST, entry_of, measurable

    if model is None:
        from meltrepro import settings

        def known(text: str) -> str:
            entry_of(text, Path().absolute(), settings.load())
            return text

        model = _ask(f"model ({_MODEL}; Enter for a small real one)", known)
    rows = measurable() if device is None or compare is None else []
    offered = _COMPARED if len(rows) > 1 and device is None else _COMPARED[:2]
    if compare is None:
        compare = _ask(f"compare ({', '.join(offered)}; Enter for {offered[0]})", _compared)
    if device is None and len(rows) > 1 and compare != "devices":
        for number, row in enumerate(rows, 1):
            typer.echo(f"  {number}  {row.serial or row.kind}  {row.device}")
        names = {str(number): row.serial or row.kind for number, row in enumerate(rows, 1)}

        def one(text: str) -> str:
            if names.get(text, text) not in names.values():
                raise UsageError(f"{text!r} is none of them")
            return names.get(text, text)

        device = _ask(f"device (1 to {len(rows)}; Enter for {HOST})", one)
    return model, device, compare


def _ask(question: str, check: Callable[[str], str]) -> str | None:
    """An answer that `check` takes, asked for until there is one; `None` for none at all."""
    from meltrepro.errors import SourceError

    while answer := typer.prompt(question, default="", show_default=False).strip():
        try:
            return check(answer)
        except (UsageError, SourceError) as error:
            typer.echo(f"{error.message}; {error.hint}" if error.hint else error.message, err=True)
    return None


def _compared(text: str) -> workflow.Compared:
    for each in _COMPARED:
        if each.startswith(text):
            return each
    raise UsageError(f"{text!r} cannot be compared", hint=f"one of {', '.join(_COMPARED)}")
