"""Parameters that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from meltrepro.errors import UsageError
from meltrepro.spec.loader import LoadedManifest, load_manifest

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
LockedOption = Annotated[bool, typer.Option("--locked", help="Fail rather than change the lock.")]


def load(spec: Path, overrides: Sequence[str]) -> LoadedManifest:
    """Load a manifest with its overrides."""
    return load_manifest(spec, overrides)


def manifests_of(specs: Sequence[Path]) -> list[Path]:
    """The manifests that are meant, those of a folder by name; raises `UsageError` where there are none."""
    found: list[Path] = []
    for path in specs:
        inside = sorted(each for each in path.glob("*.yaml") if not each.name.endswith(".lock.yaml"))
        if path.is_dir() and not inside:
            raise UsageError(
                f"{path} holds no manifest (*.yaml)", hint="name a folder of manifests, such as specs/paper/smoke"
            )
        found += inside if path.is_dir() else [path]
    return found
