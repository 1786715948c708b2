"""`meltrepro schema`: the JSON Schema of manifests, of entries, and of what each command prints with `--json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from meltrepro.cli.json_output import types
from meltrepro.errors import UsageError
from meltrepro.manifest.json_schema import manifest_schema

MANIFEST, ENTRY = "manifest", "entry"


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", help="Of `manifest`, or `entry`, or of what a command prints: `plan`, `devices-probe`."
        ),
    ] = MANIFEST,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
) -> None:
    """Print the JSON Schema of manifests or of a command's `--json`, or write it to a file."""
    text = schema_text(name)
    if output is None:
        typer.echo(text, nl=False)
        return
    from meltrepro.atomic import write_bytes

    write_bytes(output, text.encode())
    typer.echo(f"{output}: written")


class _Generator(GenerateJsonSchema):
    """Without titles made of the names of fields, and with `null` for what is not finite."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def float_schema(self, schema: Any) -> dict[str, Any]:
        return {"type": ["number", "null"]}


def schema_text(name: str) -> str:
    """A schema by name; raises `UsageError` for one that does not exist."""
    if name == MANIFEST:
        return manifest_schema()
    if name == ENTRY:
        from meltrepro.publish.entry import PublicEntry

        return _written(PublicEntry, f"urn:meltrepro:{name}:1", "A public record of a campaign")
    if name not in types():
        raise UsageError(f"there is no schema {name!r}", hint=f"there are: {', '.join([MANIFEST, ENTRY, *types()])}")
    return _written(types()[name], f"urn:meltrepro:output:{name}:1", f"meltrepro {name.replace('-', ' ')} --json")


def _written(kind: Any, id: str, title: str) -> str:
    schema = TypeAdapter(kind).json_schema(mode="serialization", schema_generator=_Generator)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": id, "title": title}
    return json.dumps({**schema, **head}, indent=2, ensure_ascii=False) + "\n"
