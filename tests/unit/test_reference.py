"""The pages of reference say what the code says, and the pages of help know every error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meltrepro.cli.app import COMMANDS, CRASH_EXIT, PIPE_EXIT
from meltrepro.record.events import EVENTS
from tests.support.reference import DOCS, MADE, kinds_of_error, pages

PAGES = dict(pages())


def test_every_part_that_is_made_has_a_page() -> None:
    text = "\n".join(PAGES.values())
    assert set(re.findall(r"<!-- made: ([a-z-]+) -->", text)) == set(MADE)
    assert set(re.findall(r"^## meltrepro ([a-z]+)$", text, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_made_part_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run: python -m tests.support.reference"


def test_the_contract_of_runners_has_the_events_that_the_reader_knows() -> None:
    text = (DOCS / "runner.md").read_text(encoding="utf-8").partition("| --- | --- | --- |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == EVENTS


def test_troubleshooting_knows_every_error() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    told = {(int(code), name) for code, name in re.findall(r"^### (\d+) (\w+)$", text, re.MULTILINE)}
    assert told == {
        *((kind.exit_code, kind.__name__) for kind in kinds_of_error()),
        (CRASH_EXIT, "Crash"),
        (PIPE_EXIT, "Pipe"),
    }


def test_code_in_a_list_belongs_to_its_item() -> None:
    """With less than four spaces the site ends the list there, and counts from 1 again."""
    for path in DOCS.rglob("*.md"):
        indents = re.findall(r"^( *)```", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert all(len(indent) % 4 == 0 for indent in indents), path


def test_every_page_has_its_place_in_the_site() -> None:
    nav = re.findall(r": (\S+\.md)$", (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(nav) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
