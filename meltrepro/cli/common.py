"""Parameters that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="A manifest (YAML).", show_default=False)]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Override one field, e.g. protocol.repetitions=3.", show_default=False
    ),
]
OnlyOption = Annotated[
    list[str],
    typer.Option("--only", metavar="GLOB", help="Cells whose id matches, e.g. '*/q4_0/*'.", show_default=False),
]
EngineOption = Annotated[
    Literal["docker", "process"], typer.Option("--engine", help="What executes builds and containers.")
]
CampaignArgument = Annotated[
    str, typer.Argument(metavar="[CAMPAIGN]", help="A folder, an id, a part of one, or `last`.")
]
WithInvalidOption = Annotated[bool, typer.Option("--with-invalid", help="Count repetitions that are INVALID too.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show results alone, no progress.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
LockedOption = Annotated[bool, typer.Option("--locked", help="Fail rather than change the lock.")]
