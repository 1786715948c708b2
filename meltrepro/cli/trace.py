"""`meltrepro trace`: trials as Perfetto traces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.errors import RecordError

if TYPE_CHECKING:
    from meltrepro.measure.records import CampaignRecord, CellRecord, TrialRecord


def command(
    campaign: Annotated[
        str, typer.Argument(metavar="[CAMPAIGN]", help="A folder, an id, a part of one, or `last`.")
    ] = "last",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Cells to take: a pattern such as '*q4_0*'.", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")] = Path(),
    everything: Annotated[
        bool,
        typer.Option("--all", help="Every trial, not only the first repetition and the profiled one of each cell."),
    ] = False,
) -> None:
    """Write trials as Perfetto traces, to be opened in ui.perfetto.dev: phases, tokens, operators, sensors."""
    from meltrepro.atomic import make_folder, write_bytes
    from meltrepro.measure.perfetto import SUFFIX, perfetto_trace
    from meltrepro.measure.records import read_campaign
    from meltrepro.plan.only import Selection
    from meltrepro.record.reader import find_campaign

    settings = settings_module.load()
    whole, selection = read_campaign(find_campaign(settings.records, campaign)), Selection(only or ())
    found = whole.restricted(selection.wants)
    selection.refuse_idle(next((cell.id for cell in whole.cells), "none"))
    trials = list(_trials(found, everything=everything))
    if not trials:
        raise RecordError(f"{whole.folder}: no trial ended well, so that there is nothing to trace")
    make_folder(output)
    for cell, trial in trials:
        path = output / f"{cell.id.replace('/', ',')},{trial.name}{SUFFIX}"
        write_bytes(path, perfetto_trace(trial.trace(), trial.recordings(), f"{cell.id} {trial.name}"))
        typer.echo(str(path))


def _trials(campaign: CampaignRecord, *, everything: bool) -> Iterator[tuple[CellRecord, TrialRecord]]:
    from meltrepro.record.layout import TrialKind

    for cell in campaign.cells:
        if any(trial.ok and trial.scoring is not None for trial in cell.trials):
            continue  # a scorer leaves no events
        profiled = [trial for trial in cell.trials if trial.kind is TrialKind.profile and trial.ok]
        for trial in [t for t in cell.trials if t.ok] if everything else [*cell.repetitions[:1], *profiled]:
            yield cell, trial
