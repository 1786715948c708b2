"""What commands print with `--json`, checked by the published schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import pytest
from jsonschema import Draft202012Validator

from meltrepro.cli import app

SCHEMAS = Path(__file__).parents[2] / "docs" / "schema"


class Said(Protocol):
    def __call__(self, name: str, *arguments: object, code: int | None = 0) -> Any: ...


def schema(name: str) -> Draft202012Validator:
    """The published schema, which is one."""
    document = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def checked(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command with `--json`; the document that it prints, which is as its schema says. `code` is its exit code."""

    def run(name: str, *arguments: object, code: int | None = 0) -> Any:
        capsys.readouterr()
        ended = app.main([*map(str, arguments), "--json"])
        said = capsys.readouterr()
        assert code in (None, ended), said.err
        document = json.loads(said.out)
        schema(name).validate(document)
        return document

    return run
