"""`meltrepro validate`: read manifests and say what is wrong with them, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meltrepro.cli.common import SetOption, load
from meltrepro.errors import ManifestError, Problem


def command(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="Manifests (YAML).", show_default=False)],
    set_: SetOption = [],  # noqa: B006 - typer reads the default, nothing changes it
) -> None:
    """Check manifests without touching any device, server or store."""
    problems: list[Problem] = []
    for spec in specs:
        try:
            manifest = load(spec, set_).manifest
        except ManifestError as error:
            problems.extend(error.problems)
            continue
        counts = (
            f"{len(part)} {name if len(part) != 1 else name.removesuffix('s')}"
            for name, part in (
                ("models", manifest.models),
                ("frameworks", manifest.frameworks),
                ("targets", manifest.targets),
                ("workloads", manifest.workloads),
            )
        )
        typer.echo(f"ok  {spec}  {manifest.name}: {', '.join(counts)}")
    if problems:
        raise ManifestError(problems)
