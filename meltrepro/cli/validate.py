"""`meltrepro validate`: read manifests and say what is wrong with them, all at once."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import JsonOption, SetOption
from meltrepro.cli.documents import ManifestDocument, ValidateDocument
from meltrepro.cli.json_output import print_json
from meltrepro.words import counted

if TYPE_CHECKING:
    from meltrepro.manifest.schema import Manifest


def command(
    specs: Annotated[
        list[Path], typer.Argument(metavar="SPEC", help="Manifests (YAML), and folders of them.", show_default=False)
    ],
    set_: SetOption = [],
    json: JsonOption = False,
) -> None:
    """Check manifests, and that the files they name are there, without touching any device, server or store."""
    found = workflow.validate(specs, overrides=set_)
    if json:
        print_json("validate", _document(found))
        if found.error is not None:
            raise found.error
        return
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for path, loaded in found.good:
        typer.echo(f"ok  {path}  {loaded.manifest.name}: {_contents(loaded.manifest)}")
    if found.error is not None:
        raise found.error


def _document(found: workflow.Validated) -> ValidateDocument:
    good = [
        ManifestDocument(
            path=path,
            name=loaded.manifest.name,
            models=list(loaded.manifest.models),
            frameworks=list(loaded.manifest.frameworks),
            targets=list(loaded.manifest.targets),
            workloads=list(loaded.manifest.workloads),
        )
        for path, loaded in found.good
    ]
    problems = list(found.error.problems) if found.error else []
    return ValidateDocument(good=good, warnings=list(found.warnings), problems=problems)


def _contents(manifest: Manifest) -> str:
    parts: dict[str, Collection[str]] = {
        "model": manifest.models,
        "framework": manifest.frameworks,
        "target": manifest.targets,
        "workload": manifest.workloads,
    }
    return ", ".join(counted(len(part), name) for name, part in parts.items())
