"""The command line: a table of commands, each imported only when it is used, and one place where errors end.

A command is a module `meltrepro/cli/<name>.py` with a function `command` whose parameters Typer reads, or with a
`typer.Typer` named `app` where it has commands of its own. A new command is one such module and one line in `COMMANDS`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from typing import Any

import click
import typer
from typer.core import TyperGroup

import meltrepro
from meltrepro.errors import Interrupted, MeltreproError

COMMANDS: dict[str, str] = {
    "validate": "Check manifests; report everything that is wrong with them.",
    "schema": "Print the JSON Schema of manifests.",
    "plan": "Show cells, artifacts, sizes, and what will be skipped and why.",
    "lock": "Pin every input of a manifest by digest.",
    "build": "Build the runner bundles and quantized models of a manifest.",
    "verify": "Check artifacts against the lock, and rebuild them from scratch.",
    "run": "Build what is missing, run every cell, log to MLflow.",
    "sync": "Log records to MLflow that are not there yet.",
    "ui": "Start the MLflow UI and print the link to the last comparison.",
    "compare": "Compare campaigns, metric by metric, with a verdict each.",
    "replay": "Repeat a recorded campaign and say whether it was reproduced.",
    "bundle": "Pack, check, unpack everything that a replay needs.",
    "gc": "Free disk space in the store.",
    "doctor": "Say what this machine has, what is missing and how to get it.",
}


class _Lazy(TyperGroup):
    """A group that imports a command when it is asked for, and lists them without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"meltrepro.cli.{cmd_name}")
        if hasattr(module, "app"):
            group = typer.main.get_command(module.app)
            group.name = cmd_name
            return group
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(cmd_name)(module.command)
        return typer.main.get_command(single)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=_Lazy, name="meltrepro", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"meltrepro {meltrepro.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Repeatable measurements of large language models on phones, edge boards and this machine."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code and never lets a traceback through."""
    try:
        result = typer.main.get_command(app).main(arguments, prog_name="meltrepro", standalone_mode=False)
    except click.exceptions.Abort:
        return _report(Interrupted("stopped"))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return _report(Interrupted("stopped", hint="run the same command again to go on"))
    except MeltreproError as error:
        return _report(error)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to tell them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _crash(error)
    return result if isinstance(result, int) else 0


def _report(error: MeltreproError) -> int:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"next: {error.hint}", file=sys.stderr)
    if os.environ.get("MELTREPRO_DEBUG"):
        traceback.print_exception(error)
    return error.exit_code


def _crash(error: Exception) -> int:
    """A fault of ours: one line, and everything else in a file that can be sent to us."""
    import time

    from meltrepro import settings

    if os.environ.get("MELTREPRO_DEBUG"):
        traceback.print_exception(error)
    where: Any = None
    try:
        folder = settings.load().home / "crash"
        folder.mkdir(parents=True, exist_ok=True)
        where = folder / time.strftime("%Y%m%dT%H%M%SZ.txt", time.gmtime())
        where.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except (OSError, MeltreproError):
        where = None
    print(f"error: meltrepro itself failed: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"next: please report it with {where or 'the output of MELTREPRO_DEBUG=1'}", file=sys.stderr)
    return 70


def run() -> None:
    """Entry point of the `meltrepro` program."""
    sys.exit(main())
