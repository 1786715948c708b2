"""`meltrepro run`: build what is missing, run every trial that is left, log to MLflow, show what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import EngineOption, LockedOption, OnlyOption, SetOption, SpecArgument
from meltrepro.cli.console import console
from meltrepro.errors import TrialFailed
from meltrepro.words import counted, plural

if TYPE_CHECKING:
    from meltrepro.build.tools import EngineName
    from meltrepro.steps import Sink


def command(
    spec: SpecArgument,
    set_: SetOption = [],
    only: OnlyOption = [],
    engine: EngineOption = "docker",
    new: Annotated[
        bool, typer.Option("--new", help="Begin a new campaign, even if one like it is unfinished.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; fetch, build and run nothing.")] = False,
    fail_fast: Annotated[
        bool,
        typer.Option("--fail-fast/--keep-going", help="Stop at the first trial that fails, or go on with the rest."),
    ] = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log the results to MLflow.")] = True,
    locked: LockedOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show results alone, no progress.")] = False,
) -> None:
    """Run a manifest: build what is missing, run its trials, log them to MLflow.

    An unfinished campaign of the same manifest and the same artifacts goes on where it stopped.
    """
    if dry_run:
        from meltrepro.cli.plan import command as plan_command

        plan_command(spec, set_, only)
        return
    from meltrepro.cli.summary import tell_next

    with console(quiet=quiet) as sink:
        ran = run_manifest(spec, set_, only, RunOptions(engine, new, fail_fast, track, locked, quiet), sink)
    if left := ran.tally.left:
        typer.echo(
            f"{counted(left, 'trial')} {plural(left, 'was', 'were')} not run; the same command goes on with {plural(left, 'it', 'them')}",
            err=True,
        )
    if not quiet:
        tell_next(workflow.load(ran.folder))
    if ran.tally.failed:
        raise _failed(ran)


@dataclass(frozen=True)
class RunOptions:
    """How campaigns are run, whatever their manifest."""

    engine: EngineName = "docker"
    new: bool = False
    fail_fast: bool = False
    track: bool = True
    locked: bool = False
    quiet: bool = False


def run_manifest(spec: Path, set_: Sequence[str], only: Sequence[str], options: RunOptions, sink: Sink) -> workflow.Ran:
    """Run one manifest to its end, show what came out and log it; trials that failed are in the result."""
    from meltrepro.cli import findings
    from meltrepro.cli.summary import show_results, tell_logged

    def show(campaign: Path) -> None:
        show_results(workflow.load(campaign))
        typer.echo(f"records: {campaign}")

    ran = workflow.run(
        spec,
        overrides=set_,
        only=only,
        engine=options.engine,
        new=options.new,
        fail_fast=options.fail_fast,
        locked=options.locked,
        track=options.track,
        measured=show,
        sink=sink,
    )
    if ran.logged is not None:
        tell_logged(ran.logged, quiet=options.quiet)
    findings.tell([ran.folder], "last", ran.logged.there if ran.logged else None)
    return ran


def _failed(ran: workflow.Ran) -> TrialFailed:
    failed = ran.tally.failed
    shown = [f"  {trial}: {failure.line}" for trial, failure in failed[:5]]
    more = [f"  and {len(failed) - 5} more"] if len(failed) > 5 else []
    return TrialFailed(
        "\n".join([f"{counted(len(failed), 'trial')} failed:", *shown, *more]),
        hint=f"what each runner said last is in outcome.json and stderr.log below {ran.folder}",
    )
