"""`meltrepro run`: build what is missing, run every trial that is left, log to MLflow, show what came out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import (
    EngineOption,
    JsonOption,
    LockedOption,
    OnlyOption,
    QuietOption,
    SetOption,
    SpecArgument,
    WaitAtMostOption,
    WaitOption,
    patience,
)
from meltrepro.cli.console import console
from meltrepro.cli.documents import FailureDocument, LoggedDocument, RunDocument
from meltrepro.cli.json_output import print_json
from meltrepro.errors import TrialFailed
from meltrepro.words import counted, plural


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
    wait: WaitOption = False,
    wait_at_most: WaitAtMostOption = None,
    locked: LockedOption = False,
    lab: Annotated[
        str | None,
        typer.Option(
            "--lab",
            metavar="HEAD",
            help="Run it on the devices of a lab of many hosts: tls://HOST.",
            show_default=False,
        ),
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", metavar="FILE", help="The file with the lab's token.", show_default=False)
    ] = None,
    priority: Annotated[int, typer.Option("--priority", help="On a lab: campaigns with a higher one come first.")] = 0,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Run a manifest: build what is missing, run its trials, log them to MLflow.

    An unfinished campaign of the same manifest and the same artifacts goes on where it stopped. Of a model's file, or the folder
    of a checkpoint, a manifest is made beside it, kept, and run; one of that name which is of another model is not.
    """
    from meltrepro.workflow import beginnings

    if beginnings.is_model(spec):
        spec = beginnings.beside(spec)
        typer.echo(f"manifest: {spec}", err=True)
    if dry_run:
        from meltrepro.cli.plan import command as plan_command

        plan_command(spec, set_, only, json)
        return
    from meltrepro.cli.summary import tell_next

    wait_s = patience(wait, wait_at_most or ("10m" if lab and not wait else None))
    with console(quiet=quiet or json) as sink:
        here = workflow.run if lab is None else partial(workflow.run_on_lab, head=lab, token=token, priority=priority)
        run = partial(here, spec, overrides=set_, only=only, engine=engine, locked=locked, sink=sink)
        run = partial(run, new=new, fail_fast=fail_fast, track=track, wait_s=wait_s)
        ran = run_shown(run, quiet=quiet, json=json)
    if left := ran.tally.left:
        typer.echo(
            f"{counted(left, 'trial')} {plural(left, 'was', 'were')} not run; the same command goes on with {plural(left, 'it', 'them')}",
            err=True,
        )
    for reason in ran.missing.values():
        typer.echo(f"not measured: {reason}", err=True)
    if ran.missing:
        what = f"the cells of {plural(len(ran.missing), 'this device', 'these devices')} wait"
        typer.echo(f"next: {what}: the same command goes on with them, --new begins anew", err=True)
    if json:
        print_json("run", _document(ran))
    elif not quiet:
        tell_next(workflow.load(ran.folder))
    if ran.tally.failed:
        raise _failed(ran)


def run_shown(run: Callable[..., workflow.Ran], *, quiet: bool, json: bool = False) -> workflow.Ran:
    """Run one manifest by `workflow.run` and show what it measured, unless as JSON; trials that failed are in the result."""
    from meltrepro.cli import findings
    from meltrepro.cli.summary import show_results, tell_logged

    def show(campaign: Path) -> None:
        show_results(workflow.load(campaign))

    ran = run() if json else run(measured=show)
    if ran.logged is not None:
        tell_logged(ran.logged, quiet=quiet or json)
    findings.tell([ran.folder], "last", ran.logged.there if ran.logged else None, quiet=json)
    return ran


def _document(ran: workflow.Ran) -> RunDocument:
    tally, logged = ran.tally, ran.logged
    return RunDocument(
        campaign=ran.folder.name,
        folder=ran.folder,
        ok=tally.ok,
        failed=[FailureDocument(trial=str(trial), kind=each.kind, reason=each.line) for trial, each in tally.failed],
        earlier=tally.earlier,
        left=tally.left,
        missing=dict(ran.missing),
        logged=LoggedDocument(
            uri=logged.place.shown if logged.place else None, problem=logged.problem.message if logged.problem else None
        )
        if logged
        else None,
    )


def _failed(ran: workflow.Ran) -> TrialFailed:
    failed = ran.tally.failed
    shown = [f"  {trial}: {failure.line}" for trial, failure in failed[:5]]
    more = [f"  and {len(failed) - 5} more"] if len(failed) > 5 else []
    return TrialFailed(
        "\n".join([f"{counted(len(failed), 'trial')} failed:", *shown, *more]),
        hint=f"what each runner said last is in outcome.json and stderr.log below {ran.folder}",
    )
