"""The tree of errors: every kind can happen, and says what to do in words of its own."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import meltrepro
from meltrepro import errors

PACKAGE = Path(meltrepro.__file__).parent
BASES = {"MeltreproError"}


@pytest.mark.slow
def test_every_kind_is_raised_somewhere() -> None:
    """One that is not is a promise of the documentation that nothing keeps."""
    kinds = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}
    used = {
        node.id
        for path in PACKAGE.rglob("*.py")
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name)
    }
    assert kinds - used - BASES == set()
