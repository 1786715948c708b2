"""Parameters that several commands share."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from meltrepro.errors import UsageError


def complete_campaigns(incomplete: str) -> list[str]:
    """The ids of campaigns that begin so, newest first, and `last`."""
    from meltrepro import settings
    from meltrepro.record.reader import campaign_folders

    ids = [folder.name for folder in reversed(campaign_folders(settings.load().records))]
    return [name for name in ("last", *ids) if name.startswith(incomplete)]


def _cells(context: typer.Context, incomplete: str) -> list[str]:
    """The ids of cells of the manifest or the campaign that the command line names before; none where it cannot be read."""
    from meltrepro import workflow
    from meltrepro.errors import MeltreproError
    from meltrepro.plan.planner import selected
    from meltrepro.workflow.manifests import read_manifest

    spec, campaign = context.params.get("spec"), context.params.get("campaign")
    cells: list[str] = []
    with suppress(MeltreproError):
        if spec:
            cells = [str(cell) for cell in selected(read_manifest(Path(spec), ()).manifest)]
        else:
            cells = [cell.id for cell in workflow.load(campaign or "last").cells]
    return [cell for cell in cells if cell.startswith(incomplete)]


SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="A manifest (YAML).", show_default=False)]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Override one field, e.g. protocol.repetitions=3.", show_default=False
    ),
]
OnlyOption = Annotated[
    list[str],
    typer.Option(
        "--only",
        metavar="GLOB",
        help="Cells whose id matches, e.g. '*/q4_0/*'.",
        show_default=False,
        autocompletion=_cells,
    ),
]
EngineOption = Annotated[
    Literal["docker", "process"], typer.Option("--engine", help="What executes builds and containers.")
]
CampaignArgument = Annotated[
    str,
    typer.Argument(
        metavar="[CAMPAIGN]", help="A folder, an id, a part of one, or `last`.", autocompletion=complete_campaigns
    ),
]
WithInvalidOption = Annotated[bool, typer.Option("--with-invalid", help="Count repetitions that are INVALID too.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show results alone, no progress.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
WaitOption = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Wait for other campaigns on the devices, first come, first served. (For quiet CPUs: protocol.gates.)",
    ),
]
WaitAtMostOption = Annotated[
    str | None,
    typer.Option("--wait-at-most", metavar="DURATION", help="As --wait, but no longer than that: 90s, 30m, 2h."),
]
LockedOption = Annotated[bool, typer.Option("--locked", help="Fail rather than change the lock.")]


def patience(wait: bool, at_most: str | None) -> float:
    """Seconds to wait for others by `--wait` and `--wait-at-most`; raises `UsageError` for what is no duration."""
    if at_most is None:
        return math.inf if wait else 0.0
    parts = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])", at_most)
    if parts is None:
        raise UsageError(f"--wait-at-most: {at_most!r} is no duration", hint="a number and s, m or h: 90s, 30m, 2h")
    return float(parts[1]) * {"s": 1, "m": 60, "h": 3600}[parts[2]]
