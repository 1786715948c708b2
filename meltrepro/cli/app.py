"""The command line: a table of commands, each imported only when it is used, and the one place where errors end.

A command is a module `meltrepro/cli/<name>.py` with a function `command` whose annotated parameters Typer reads, or,
where it has commands of its own, with a `typer.Typer` named `app`. It calls a function of `workflow`, which does the work,
and shows what that returns. It lets `MeltreproError` pass, which is everything that a user can mend, and prints nothing
about it. A new command is such a module and one line in `COMMANDS`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from meltrepro import __version__, settings
from meltrepro.cli.terminal import safe_streams
from meltrepro.errors import Interrupted, ManifestError, MeltreproError, ModelError, Problem, UsageError

PROGRAM = "meltrepro"
CRASH_EXIT = 70
PIPE_EXIT = 141


COMMANDS = {
    "init": "Write a manifest to run and to change.",
    "model": "Write a model into a manifest by its name.",
    "validate": "Check manifests and report every problem.",
    "schema": "Print the JSON Schema of manifests.",
    "plan": "Show cells, artifacts, sizes, and what is skipped.",
    "lock": "Pin every input of a manifest by digest.",
    "build": "Build runner bundles and quantized models.",
    "verify": "Check artifacts against the lock; rebuild them.",
    "run": "Build what is missing and run every cell.",
    "study": "Run several manifests and report on all of them.",
    "tune": "Find threads, batch and options that do best.",
    "show": "Show the results of an earlier campaign.",
    "sync": "Log records to MLflow that are not there yet.",
    "ui": "Start the MLflow UI on a free local port.",
    "findings": "Decide the claims of a study from its campaigns.",
    "compare": "Compare campaigns metric by metric.",
    "gate": "Say whether a change makes anything worse, for CI.",
    "history": "Show metrics over releases or time, with changes.",
    "bisect": "Find the release that made a metric worse.",
    "report": "Make a page with tables and figures from records.",
    "export": "Write what campaigns measured as a tidy table.",
    "trace": "Write trials as Perfetto traces.",
    "replay": "Repeat a campaign; say whether it reproduces.",
    "bundle": "Pack, verify and import campaigns as one file.",
    "calibrate": "Find out how steady a device is.",
    "publish": "Make a small public record of a campaign.",
    "gallery": "Make a site of many public records.",
    "devices": "Say what is attached and in which state; probe it.",
    "lab": "Start and stop virtual devices.",
    "gc": "Free space in the store.",
    "doctor": "Say what this machine has and what is missing.",
}
"""The line in the help of each, by its name."""


class _Deferred(TyperCommand):
    """A command that shows its line of help, and is imported when its arguments are to be parsed."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return load_command(str(self.name)).make_context(info_name, args, parent, **extra)


class _Group(TyperGroup):
    """The program itself; Ctrl-C anywhere below becomes an error like any other."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Interrupted("stopped") from interrupt


def load_command(name: str) -> Any:
    """Import a command; raises `UsageError` where this build lacks it."""
    module_name = f"meltrepro.cli.{name}"
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise UsageError(f"this build of meltrepro has no command {name!r}") from error
    app = getattr(module, "app", None)
    if app is None:
        app = _typer(add_completion=False)
        app.command(name)(module.command)
    return typer.main.get_command(app)


@cache
def program() -> TyperGroup:
    """The whole command line."""
    app = _typer(cls=_Group, add_completion=True, context_settings={"help_option_names": ["-h", "--help"]})
    app.callback()(_root)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, line in COMMANDS.items():
        group.add_command(_Deferred(name, help=line, add_help_option=False, rich_markup_mode=None))
    return group


def _typer(**options: Any) -> typer.Typer:
    """Without rich's help and tracebacks: they cost more time at the start than everything else together."""
    return typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, **options)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Repeatable measurements of large language models on phones, edge boards and this machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no error leaves as a traceback unless MELTREPRO_DEBUG asks for it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with safe_streams():
        return _run(given)


def _run(given: list[str]) -> int:
    try:
        code = program().main(given or ["--help"], prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except MeltreproError as error:
        return _report(error, given)
    except typer.TyperException as error:
        return _report_usage(error, given)
    except (typer.Abort, KeyboardInterrupt):
        return _report(Interrupted("stopped"), given)
    except BrokenPipeError:
        return _unread()
    except SystemExit as end:  # of Typer, which takes a closed pipe for an error of its own
        if isinstance(end.__context__, BrokenPipeError):
            return _unread()
        raise
    except Exception as error:
        return _report_crash(error, given)
    return code if isinstance(code, int) else 0


def _unread() -> int:
    """Whoever read our output has gone; the interpreter's own flush at exit must not complain about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_EXIT


def _report(error: MeltreproError, given: Sequence[str]) -> int:
    """An error that a user can mend: what is wrong and what to do next."""
    if settings.debug():
        traceback.print_exception(error)
    problems = error.problems if isinstance(error, ManifestError | ModelError) else ()
    return _end(given, type(error).__name__, error.message, error.hint, error.exit_code, problems)


def _report_usage(error: typer.TyperException, given: Sequence[str]) -> int:
    """A command line that Typer refuses."""
    message = error.format_message()
    if message.startswith("Usage:"):  # a group that was given no command shows its help
        typer.echo(message, err=True)
        return error.exit_code
    context = getattr(error, "ctx", None)
    hint = f"see {context.command_path if context else PROGRAM} --help"
    return _end(given, UsageError.__name__, message, hint, error.exit_code)


def _report_crash(error: Exception, given: Sequence[str]) -> int:
    """A fault of ours: one line, and everything else in a file."""
    if settings.debug():
        traceback.print_exception(error)
    whose = _plugin_of(error)
    who, to = ("meltrepro itself", "") if whose is None else (f"the plug-in {whose}", " to those who made it")
    try:
        where = f"the traceback in {_save_crash(error)}"
    except Exception as failure:  # whatever is wrong with the place or the settings: the fault itself must be told
        where = f"what MELTREPRO_DEBUG=1 shows (no traceback saved: {failure})"
    message = f"{who} failed: {type(error).__name__}: {' '.join(str(error).split())}"
    return _end(given, "Crash", message, f"please report this{to}, with {where}", CRASH_EXIT)


def _end(
    given: Sequence[str], name: str, message: str, hint: str | None, code: int, problems: Sequence[Problem] = ()
) -> int:
    """Say why a command ends, on stderr: in lines for people, or as the last line for programs that asked for JSON."""
    if "--json" in given:
        from meltrepro.cli.documents import ErrorDocument

        document = ErrorDocument(error=name, exit_code=code, message=message, hint=hint, problems=list(problems))
        _say(document.model_dump_json())
        return code
    for line in map(str, problems) if problems else [message]:
        _say(f"error: {line}")
    if hint:
        _say(f"next: {hint}")
    return code


def _plugin_of(error: Exception) -> str | None:
    """The package of a plug-in in whose code an error was raised."""
    from meltrepro.registry import FRAMEWORKS, STUDIES, TARGETS

    brought = set[str]().union(*(each.packages() for each in (FRAMEWORKS, TARGETS, STUDIES)))
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((name for module in reversed(modules) if (name := module.partition(".")[0]) in brought), None)


def _save_crash(error: Exception) -> str:
    import time

    folder = settings.load().crashes
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
    head = f"meltrepro {__version__}, Python {sys.version}\n"
    path.write_text(head + "".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
    return str(path)


def _say(text: str) -> None:
    """A message for people, on stderr."""
    print(text, file=sys.stderr)
