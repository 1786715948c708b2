"""The JSON Schema of manifests, for editors and for other tools."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.yaml.includes import KEY as INCLUDE

_NAMED = {
    "models": ("Model",),
    "frameworks": ("FrameworkEntry",),
    "workloads": ("Workload", "QuestionWorkload", "TextWorkload", "AnswerWorkload"),
}
"""Sections of named entries, of which a manifest with includes may hold parts, and what an entry may be."""


def _one_of(*names: str) -> dict[str, Any]:
    """That exactly one of these keys is there."""
    return {"oneOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]}


_RELEASE_OR_SOURCE = _one_of("release", "source")


class _Generator(GenerateJsonSchema):
    """Without the titles that Pydantic makes of the names of fields: they say nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def manifest_schema() -> str:
    """The schema as JSON text; the same text for the same models.

    A manifest with `include` may leave out what the included files bring, so nothing is required of it.
    """
    schema = Manifest.model_json_schema(schema_generator=_Generator)
    definitions: dict[str, Any] = schema.pop("$defs")
    definitions["Model"]["properties"]["quantizations"]["uniqueItems"] = True
    definitions["OtherTemplate"] |= _one_of("file", "jinja", "named")
    for node in _nodes([schema, definitions]):
        if "patternProperties" in node:
            node["additionalProperties"] = False
    whole: dict[str, Any] = {"required": schema.pop("required"), "properties": {}}
    (workloads,) = schema["properties"]["workloads"]["patternProperties"].values()
    workloads["anyOf"] = workloads.pop("oneOf")  # a part of one may be a part of another as well
    for section, names in _NAMED.items():
        required = [{"required": definitions[name].pop("required", None)} for name in names]
        entry = _RELEASE_OR_SOURCE if section == "frameworks" else required[0]
        whole["properties"][section] = {"additionalProperties": entry if len(names) == 1 else {"anyOf": required}}
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:meltrepro:manifest:1",
        "title": "meltrepro manifest",
        "description": schema.pop("description"),
    }
    del schema["title"]
    document = {**head, **schema, "if": {"required": [INCLUDE]}, "else": whole, "$defs": definitions}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _nodes(value: Any) -> list[dict[str, Any]]:
    """Every mapping below a value."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict) else []), *(node for inner in below for node in _nodes(inner))]
