"""`meltrepro validate`: read manifests and say what is wrong with them, all at once."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from meltrepro.cli.common import SetOption, load, manifests_of
from meltrepro.errors import ManifestError, Problem
from meltrepro.frameworks import registry
from meltrepro.plan.names import resolve
from meltrepro.spec.data_files import data_problems
from meltrepro.spec.manifest import Manifest
from meltrepro.words import counted


def command(
    specs: Annotated[
        list[Path], typer.Argument(metavar="SPEC", help="Manifests (YAML), and folders of them.", show_default=False)
    ],
    set_: SetOption = [],
) -> None:
    """Check manifests without touching any device, server or store."""
    catalog = registry.catalog(registry.modules())
    problems: list[Problem] = []
    for spec in manifests_of(specs):
        try:
            loaded = load(spec, set_)
            resolve(loaded, catalog)
            if wrong := data_problems(loaded):
                raise ManifestError(wrong)
        except ManifestError as error:
            problems.extend(error.problems)
        else:
            typer.echo(f"ok  {spec}  {loaded.manifest.name}: {_contents(loaded.manifest)}")
    if problems:
        raise ManifestError(problems)


def _contents(manifest: Manifest) -> str:
    parts: dict[str, Collection[str]] = {
        "model": manifest.models,
        "framework": manifest.frameworks,
        "target": manifest.targets,
        "workload": manifest.workloads,
    }
    return ", ".join(counted(len(part), name) for name, part in parts.items())
