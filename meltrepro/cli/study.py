"""`meltrepro study`: several manifests, one after the other, and one report of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import (
    EngineOption,
    JsonOption,
    QuietOption,
    SetOption,
    WaitAtMostOption,
    WaitOption,
    patience,
)
from meltrepro.cli.console import console, describe
from meltrepro.cli.documents import PlanDocument, StudyEntryDocument, StudyResultDocument
from meltrepro.cli.json_output import print_json
from meltrepro.steps import Step
from meltrepro.words import counted


def command(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="Manifests, and folders of manifests.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the study; that of the first folder or manifest if absent.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the report; beside the study if absent.")
    ] = None,
    set_: SetOption = [],
    engine: EngineOption = "docker",
    drop_models: Annotated[
        bool,
        typer.Option(
            "--drop-models",
            help="Remove models from the store as soon as no manifest of the study needs them any more.",
        ),
    ] = False,
    new: Annotated[bool, typer.Option("--new", help="Measure again what has been measured.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan of each manifest; fetch, build and run nothing.")
    ] = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log the results to MLflow.")] = True,
    wait: WaitOption = False,
    wait_at_most: WaitAtMostOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Run manifests one after the other, and make one report of all of them.

    Interrupt it whenever you like; the same command goes on. A campaign that has ended is not measured again, and a
    manifest that this machine cannot run is left out, with the reason in the report.

    Models that do not fit the store's disk together can be measured one after the other, where each has a manifest of
    its own: --drop-models. What was fetched stays, and so does what locks of other manifests name.
    """
    if dry_run:
        _show_plans(specs, set_, json=json)
        return
    from meltrepro.cli.findings import tell
    from meltrepro.cli.report import document, tell_report
    from meltrepro.cli.run import run_shown
    from meltrepro.cli.summary import ended

    wait_s = patience(wait, wait_at_most)

    def measured(path: Path) -> workflow.Ran:
        ran = run_shown(partial(run, path), quiet=quiet, json=json)
        if not json:
            typer.echo(ended(workflow.load(ran.folder)))
        return ran

    with console(quiet=quiet or json) as sink:
        run = partial(workflow.run, overrides=set_, engine=engine, new=new, track=track, wait_s=wait_s, sink=sink)
        studied = workflow.study(
            specs,
            name=name,
            overrides=set_,
            new=new,
            drop_models=drop_models,
            measure=measured,
            sink=_trouble if quiet or json else sink,
        )
    made = workflow.report([studied.path], output or studied.path.parent / "report", track=track)
    if json:
        entries = [StudyEntryDocument(**entry.model_dump()) for entry in studied.entries]
        print_json("study", StudyResultDocument(path=studied.path, entries=entries, report=document(made)))
        return
    tell_report(made)
    tell(studied.campaigns, studied.path.parent.name)


def _show_plans(specs: Sequence[Path], overrides: Sequence[str], *, json: bool) -> None:
    """Show what would run of each manifest, or why nothing of it would."""
    from meltrepro.cli.plan import show
    from meltrepro.workflow.manifests import manifests_of

    planned = {path: workflow.plan(path, overrides=overrides) for path in manifests_of(specs)}
    if json:
        documents = [PlanDocument.model_validate(each.as_json()) for each in planned.values()]
        print_json("study-plans", documents)
        return
    for path, each in planned.items():
        typer.echo(f"== {path}\n")
        show(each, path)
        typer.echo()
    cells, trials = (
        sum(len(each.plan.cells) for each in planned.values()),
        sum(each.trials for each in planned.values()),
    )
    typer.echo(f"{counted(len(planned), 'manifest')}: {counted(cells, 'cell')}, {counted(trials, 'trial')}")


def _trouble(step: Step) -> None:
    """What is said of a manifest even to those who want to see no progress."""
    if step.phase == "fail" or step.detail.get("failed"):
        typer.echo(describe(step), err=True)
