"""Counts in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import meltrepro
from meltrepro.words import counted, plural


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 cells"), (1, "1 cell"), (1.0, "1 cell"), (2, "2 cells"), (10, "10 cells")]
)
def test_one_is_singular(number: float, shown: str) -> None:
    assert counted(number, "cell") == shown


def test_plurals_that_need_no_s() -> None:
    assert counted(2, "entry", "entries") == "2 entries"
    assert plural(1, "was", "were") == "was"
    assert plural(3, "was", "were") == "were"


def test_the_command_line_counts_with_them() -> None:
    """A length that stands before a plural would say `1 cells`."""
    found = []
    for path in (Path(meltrepro.__file__).parent / "cli").glob("*.py"):
        for match in re.finditer(r"(?<!of )\{len\([^{}]*\)\} [a-z ]+s\b", path.read_text(encoding="utf-8")):
            found.append(f"{path.name}: {match[0]}")
    assert found == []
