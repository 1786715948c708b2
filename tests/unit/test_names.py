"""A public class has one name: none is shared by two packages, so that a reader never has to ask which one is meant."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import meltrepro

PACKAGE = Path(meltrepro.__file__).parent


@pytest.mark.slow
def test_no_two_packages_share_a_class_name() -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        if "_data" in path.parts:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners[node.name].add(path.relative_to(PACKAGE).parts[0])
    assert not {name: sorted(packages) for name, packages in owners.items() if len(packages) > 1}
