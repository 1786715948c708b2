"""`meltrepro schema`: the JSON Schema of manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meltrepro.manifest.json_schema import manifest_schema


def command(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
) -> None:
    """Print the JSON Schema of manifests, or write it to a file."""
    text = manifest_schema()
    if output is None:
        typer.echo(text, nl=False)
        return
    from meltrepro.atomic import write_bytes

    write_bytes(output, text.encode())
    typer.echo(f"{output}: written")
