"""`meltrepro validate`: read manifests and say what is wrong with them, all at once."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.cli.common import SetOption
from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.files import missing_files, require_files
from meltrepro.manifest.schema import Manifest
from meltrepro.plan.names import resolve
from meltrepro.store.mirror import load_mirrors
from meltrepro.words import counted
from meltrepro.workflow.manifests import manifests_of, read_manifest


def command(
    specs: Annotated[
        list[Path], typer.Argument(metavar="SPEC", help="Manifests (YAML), and folders of them.", show_default=False)
    ],
    set_: SetOption = [],
) -> None:
    """Check manifests, and that the files they name are there, without touching any device, server or store."""
    mirrors = load_mirrors(settings_module.load().mirrors)
    lost: list[Problem] = []
    problems: list[Problem] = []
    for spec in manifests_of(specs):
        try:
            loaded = read_manifest(spec, set_)
            resolve(loaded)
            missing = missing_files(loaded, mirrors.has)
        except ManifestError as error:
            problems.extend(error.problems)
            continue
        lost.extend(missing)
        for warning in loaded.warnings:
            typer.echo(f"warning: {warning}", err=True)
        if not missing:
            typer.echo(f"ok  {spec}  {loaded.manifest.name}: {_contents(loaded.manifest)}")
    if problems:
        raise ManifestError([*problems, *lost])
    require_files(lost)


def _contents(manifest: Manifest) -> str:
    parts: dict[str, Collection[str]] = {
        "model": manifest.models,
        "framework": manifest.frameworks,
        "target": manifest.targets,
        "workload": manifest.workloads,
    }
    return ", ".join(counted(len(part), name) for name, part in parts.items())
