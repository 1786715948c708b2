"""Prompt files: what is read, what is cut, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.errors import ManifestError
from meltrepro.spec.loader import load_manifest
from meltrepro.spec.manifest import Workload
from meltrepro.spec.prompts import load_conversations
from tests.support.manifests import GOOD, write

FILE = """\
description: Two of each kind
licence: CC0-1.0
conversations:
  - id: one
    turns: [a, 1984, yes]
  - [c, d]
  - {id: three, turns: [e]}
"""


def workload(folder: Path, text: str, first: int | None = None, turns: int | None = None) -> Workload:
    write(folder, text, "p.yaml")
    return Workload(conversations="p.yaml", first=first, turns=turns)


def problems(folder: Path, text: str, first: int | None = None, turns: int | None = None) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load_conversations(workload(folder, text, first, turns), folder)
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_both_ways_to_write_a_conversation(tmp_path: Path) -> None:
    assert load_conversations(workload(tmp_path, FILE), tmp_path) == (("a", "1984", "yes"), ("c", "d"), ("e",))


def test_first_and_turns_cut(tmp_path: Path) -> None:
    assert load_conversations(workload(tmp_path, FILE, first=2, turns=1), tmp_path) == (("a",), ("c",))
    assert load_conversations(workload(tmp_path, FILE, turns=2), tmp_path) == (("a", "1984"), ("c", "d"), ("e",))


def test_conversations_in_the_manifest_itself(tmp_path: Path) -> None:
    inline = Workload(conversations=[["a", "b"], ["c"]], turns=1)
    assert load_conversations(inline, tmp_path) == (("a",), ("c",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("description", "desription", "p.yaml:1:1: unknown key 'desription' (did you mean 'description'?)"),
        ("id: one", "name: one", "p.yaml:4:5: conversations[0]: unknown key 'name'"),
        ("turns: [a, 1984, yes]", "turns: []", "p.yaml:5:5: conversations[0].turns: expected at least 1 entry, got 0"),
        ("turns: [a, 1984, yes]", "turns: hello", "expected a list, got 'hello' (write [hello])"),
        ("[a, 1984, yes]", "[a, '  ']", "p.yaml:5:16: conversations[0].turns[1]: expected a prompt that is not empty"),
        ("[c, d]", "[]", "p.yaml:6:5: conversations[1]: expected at least 1 entry, got 0"),
        ("[c, d]", "[c, [d]]", "p.yaml:6:9: conversations[1][1]: expected text, got a list"),
        ("[c, d]", "just text", "p.yaml:6:5: conversations[1]: expected a mapping or a list, got 'just text'"),
        ("[c, d]", "", "p.yaml:6:4: conversations[1]: expected a mapping or a list, got nothing"),
    ],
)
def test_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert any(message in line for line in problems(tmp_path, FILE.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conversations: []\n", "p.yaml:1:1: conversations: expected at least 1 entry, got 0"),
        ("conversations:\n", "p.yaml:1:15: conversations: expected a list, got nothing"),
        ("- [a]\n", "p.yaml:1:1: expected a mapping, got a list"),
        ("", "p.yaml:1:1: the file is empty"),
    ],
)
def test_no_conversations(tmp_path: Path, text: str, message: str) -> None:
    assert problems(tmp_path, text) == [message]


def test_more_than_there_is(tmp_path: Path) -> None:
    assert problems(tmp_path, FILE, first=4, turns=9) == [
        "p.yaml:1:1: first: 4 conversations are asked for, there are 3",
        "p.yaml:1:1: turns: 9 prompts are asked for, the longest conversation has 3",
    ]


def test_the_manifest_says_what_is_wrong_with_its_prompt_files_once(tmp_path: Path) -> None:
    write(tmp_path, FILE.replace("[c, d]", "[]"), "p.yaml")
    text = GOOD.replace("    conversations: [[Hello, Again], [Bye]]\n", "    conversations: p.yaml\n")
    text += "  more:\n    conversations: p.yaml\n  less:\n    conversations: q.yaml\n    first: none\n"
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(tmp_path, text))
    assert [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [
        "spec.yaml:16:20: workloads.less.conversations: the file q.yaml does not exist",
        "spec.yaml:17:12: workloads.less.first: expected a whole number, got 'none'",
        "p.yaml:6:5: conversations[1]: expected at least 1 entry, got 0",
    ]


def test_a_prompt_file_that_is_too_short_is_told_at_the_manifest(tmp_path: Path) -> None:
    write(tmp_path, FILE, "p.yaml")
    text = GOOD.replace("[[Hello, Again], [Bye]]", "p.yaml\n    first: 5")
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(tmp_path, text))
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.field) == (13, 12, "workloads.chat.first")
