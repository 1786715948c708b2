"""`meltrepro verify`: check artifacts against the lock, then rebuild them from scratch and compare again."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro.cli.common import EngineOption, OnlyOption, SetOption, SpecArgument
from meltrepro.cli.console import console
from meltrepro.workflow.session import open_session

if TYPE_CHECKING:
    from meltrepro.replay.verify import Finding


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
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say whether the lock's artifacts are here unchanged, and whether a rebuild gives the same bytes."""
    from meltrepro.build.conditions import VARIED
    from meltrepro.build.pipeline import Builder
    from meltrepro.replay.verify import Status, check_digests, check_recipes, compare_rebuild, error_of

    with (
        console(quiet=json) as sink,
        open_session(spec, set_, only, engine="process" if vary else engine, locked=True, sink=sink) as session,
    ):
        if vary:
            session.tools.conditions = VARIED
        lock = session.require_lock()
        wanted = {bundle.id for bundle in session.plan.bundles} | {model.id for model in session.plan.models}
        stored = check_digests(lock, session.tools.store, wanted)
        if not json:
            _print("stored", stored)
        builder = Builder(session.tools, session.modules)
        check_recipes(lock, builder.recipe_digests(session.plan))
        findings: list[Finding] = list(stored)
        if rebuild:
            rebuilt = compare_rebuild(lock, session.build(rebuild=True), session.tools.store)
            findings = rebuilt + [f for f in stored if f.status == Status.corrupt]
            if not json:
                _print("rebuilt", rebuilt)
    if json:
        typer.echo(json_module.dumps([vars(finding) for finding in findings], indent=2))
    error = error_of(findings)
    if error is not None:
        raise error


def _print(title: str, findings: Sequence[Finding]) -> None:
    for finding in findings:
        typer.echo(f"{title:8} {finding.status:9} {finding.artifact}  {(finding.found or finding.locked or '')[:16]}")
        for line in finding.explanation.splitlines():
            typer.echo(f"         {line}")
