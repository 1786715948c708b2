"""`meltrepro replay`: repeat a recorded campaign and say whether it was reproduced, and if not, why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import (
    EngineOption,
    JsonOption,
    OnlyOption,
    WaitAtMostOption,
    WaitOption,
    complete_campaigns,
    patience,
)
from meltrepro.cli.console import console
from meltrepro.cli.documents import ProgramDocument
from meltrepro.cli.json_output import print_json, types
from meltrepro.errors import Differs, Inconclusive, MeltreproError
from meltrepro.manifest.schema import Reference
from meltrepro.words import counted

if TYPE_CHECKING:
    from meltrepro.plan.model import Plan
    from meltrepro.replay.claims import Known
    from meltrepro.replay.replay import Replayed


def command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|RECORD|BUNDLE",
            help="An MLflow run id, a campaign or a part of it, or a bundle.",
            autocompletion=complete_campaigns,
        ),
    ],
    only: OnlyOption = [],
    target: Annotated[
        str | None,
        typer.Option(help="Repeat on this target instead: one that the manifest names, a kind, or {kind: ..., ...}."),
    ] = None,
    mac: Annotated[
        str | None, typer.Option(help="Let this Mac build and sign the app for iPhones, as ssh calls it.")
    ] = None,
    engine: EngineOption = "docker",
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Build by today's recipes; recorded artifacts that differ run beside them as a control."
        ),
    ] = False,
    margin: Annotated[float | None, typer.Option(help="Largest relative difference that counts as the same.")] = None,
    reference: Annotated[
        Reference | None,
        typer.Option(
            help="What the trials are held against: the recorded artifacts, run beside them (control), the recorded values "
            "(recorded), or as the device's calibration allows (auto).",
        ),
    ] = None,
    maximum: Annotated[int | None, typer.Option(help="Most trials per cell.")] = None,
    all_cells: Annotated[
        bool, typer.Option("--all-cells", help="Repeat also cells that are INVALID in the record.")
    ] = False,
    track: Annotated[
        bool, typer.Option("--track/--no-track", help="Log the replay and its comparison to MLflow.")
    ] = True,
    wait: WaitOption = False,
    wait_at_most: WaitAtMostOption = None,
    json: JsonOption = False,
) -> None:
    """Verify or rebuild the artifacts, repeat the same trials with the same seeds, compare."""
    from meltrepro.cli.summary import tell_logged
    from meltrepro.replay.show import doubts, text

    wait_s = patience(wait, wait_at_most)
    with console(quiet=json) as sink:
        replayed = workflow.replay(
            what,
            only=only,
            target=target,
            mac=mac,
            engine=engine,
            rebuild=rebuild,
            margin=margin,
            reference=reference,
            maximum=maximum,
            all_cells=all_cells,
            track=track,
            wait_s=wait_s,
            begins=lambda intent, plan: typer.echo("\n".join(announcement(intent, plan)), err=True),
            sink=sink,
        )
    if replayed.logged is not None:
        tell_logged(replayed.logged, quiet=json)
    answer, intent = replayed.answer, replayed.intent
    if json:
        document = types()["replay"](
            verdict=answer.verdict,
            reasons=list(answer.reasons),
            not_repeated=dict(intent.left_out),
            programs=[
                ProgramDocument(name=each.name, sha256=each.digest, built_here=each.own) for each in intent.programs
            ],
            **vars(answer.comparison),
        )
        print_json("replay", document)
    else:
        typer.echo(text(answer.comparison), nl=False)
        for cell in answer.comparison.cells:
            for doubt in doubts(cell):
                typer.echo(f"\n{cell.cell}: {doubt}")
        more = f", {len(intent.left_out)} not repeated" if intent.left_out else ""
        typer.echo(f"\n{answer.verdict} ({counted(len(answer.comparison.cells), 'cell')} compared{more})")
    if error := error_of(answer, replayed.page):
        raise error


def announcement(intent: workflow.Intent, plan: Plan) -> list[str]:
    """What a user must know before a replay begins."""
    lines = [f"not repeated: {cell_id}: {reason}" for cell_id, reason in intent.left_out.items()]
    if intent.unmetered:
        lines.append(
            f"without the meter of {', '.join(intent.unmetered)}: energy is measured as far as the device itself shows it; "
            "name the meter's file with --target '{kind: ..., meter: {...}}'"
        )
    if intent.contained:
        names = ", ".join(intent.contained)
        lines.append(f"{names}: in a sandbox, not bare: what a record brings or names runs nowhere else")
    return [*lines, _whose(intent.foreign, plan, rebuild=intent.rebuild)]


def _whose(foreign: Sequence[Known], plan: Plan, *, rebuild: bool) -> str:
    """Whose programs a replay runs, and where, in one line."""
    if not foreign:
        return "runs programs alone that were built on this machine"
    when = "builds its programs anew; where they come out as other bytes, runs beside them" if rebuild else "runs"
    devices = {cell.target_name: cell.target for cell in plan.cells}
    places = ["in a sandbox without network"] if any(each.here for each in devices.values()) else []
    places += [f"on {name} ({each.kind}) as the user there" for name, each in devices.items() if not each.here]
    return (
        f"{when} programs that came with this record and were not built here: "
        f"{', '.join(map(str, foreign))}, {' and '.join(places)}"
    )


def error_of(answer: Replayed, page: Path) -> MeltreproError | None:
    """`Differs` or `Inconclusive`, where that is the answer."""
    from meltrepro.stats.equivalence import ReplayVerdict

    errors = {ReplayVerdict.differs: Differs, ReplayVerdict.inconclusive: Inconclusive}
    if answer.verdict not in errors:
        return None
    reasons = "\n".join(f"  {reason}" for reason in answer.reasons)
    return errors[answer.verdict](f"{answer.verdict}:\n{reasons}", hint=f"the whole comparison is in {page}")
