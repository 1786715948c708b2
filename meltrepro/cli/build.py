"""`meltrepro build`: make every artifact of a manifest, reuse what exists, write the lock."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from meltrepro.cli.common import EngineOption, LockedOption, OnlyOption, SetOption, SpecArgument
from meltrepro.cli.console import console
from meltrepro.workflow.session import open_session


def command(
    spec: SpecArgument,
    set_: SetOption = [],
    only: OnlyOption = [],
    engine: EngineOption = "docker",
    locked: LockedOption = False,
    json: Annotated[bool, typer.Option("--json", help="Print the artifacts as JSON.")] = False,
) -> None:
    """Build the runner bundles and quantized models of a manifest, and lock their digests."""
    with (
        console(quiet=json) as sink,
        open_session(spec, set_, only, engine=engine, locked=locked, sink=sink) as session,
    ):
        built = session.build()
    if json:
        rows = [
            {
                "id": name,
                "kind": artifact.kind,
                "digest": artifact.digest,
                "size": artifact.size,
                "reused": name in built.reused,
                "path": str(artifact.path),
            }
            for name, artifact in built.artifacts.items()
        ]
        typer.echo(json_module.dumps(rows, indent=2))
        return
    for name, artifact in built.artifacts.items():
        state = "reused" if name in built.reused else "built"
        typer.echo(f"{state:7}{artifact.digest[:16]}  {artifact.size / 1e6:8.1f} MB  {name}")
    typer.echo(f"lock: {session.lock_path}")
