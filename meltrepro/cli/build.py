"""`meltrepro build`: make every artifact of a manifest, reuse what exists, write the lock."""

from __future__ import annotations

import typer

from meltrepro import workflow
from meltrepro.cli.common import EngineOption, JsonOption, LockedOption, OnlyOption, SetOption, SpecArgument
from meltrepro.cli.console import console
from meltrepro.cli.documents import ArtifactDocument
from meltrepro.cli.json_output import print_json


def command(
    spec: SpecArgument,
    set_: SetOption = [],
    only: OnlyOption = [],
    engine: EngineOption = "docker",
    locked: LockedOption = False,
    json: JsonOption = False,
) -> None:
    """Build the runner bundles and quantized models of a manifest, and lock their digests."""
    with console(quiet=json) as sink:
        made = workflow.build(spec, overrides=set_, only=only, engine=engine, locked=locked, sink=sink)
    artifacts, reused = made.built.artifacts, made.built.reused
    if json:
        rows = [
            ArtifactDocument(
                id=name,
                kind=artifact.kind,
                digest=artifact.digest,
                size=artifact.size,
                reused=name in reused,
                path=artifact.path,
            )
            for name, artifact in artifacts.items()
        ]
        print_json("build", rows)
        return
    for name, artifact in artifacts.items():
        state = "reused" if name in reused else "built"
        typer.echo(f"{state:7}{artifact.digest[:16]}  {artifact.size / 1e6:8.1f} MB  {name}")
    typer.echo(f"lock: {made.lock_path}")
