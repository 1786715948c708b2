"""The JSON Schema of manifests, for editors and for other tools."""

from __future__ import annotations

import json

from meltrepro.spec.manifest import Manifest


def manifest_schema() -> str:
    """The schema as JSON text; the same text for the same models."""
    schema = Manifest.model_json_schema(by_alias=True)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:meltrepro:manifest:1",
        "title": "meltrepro manifest",
    }
    return json.dumps({**head, **{k: v for k, v in schema.items() if k != "title"}}, indent=2) + "\n"
