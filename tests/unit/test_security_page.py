"""The page on security: each promise in it names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
HOLDS = PAGE.partition("## What holds")[2].partition("## What does not hold")[0]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_promise_names_one() -> None:
    rows = [line for line in HOLDS.splitlines() if line.startswith("| ") and "---" not in line]
    promises = [row for row in rows if row != "| promise | test |"]
    assert len(promises) > 20 and len(NAMED) > len(promises)
    assert [row for row in promises if not re.search(r"`[\w/]+\.py::test_\w+` \|$", row)] == []


def test_it_is_found() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        assert "docs/security.md" in (ROOT / page).read_text(encoding="utf-8"), page
