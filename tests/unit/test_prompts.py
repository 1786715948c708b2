"""Prompt files: what is read, what is cut, what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import ManifestError, OfflineError
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.pins import prompt_digests
from meltrepro.manifest.prompts import MELT_COMMIT, MELT_SOURCE, load_conversations
from meltrepro.manifest.schema import Workload
from meltrepro.manifest.sources import UrlSource
from meltrepro.settings import Settings
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
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


# -- counted in prompts, and MELT's own ---------------------------------------------------------------------------


def test_prompts_are_counted_from_conversation_to_conversation(tmp_path: Path) -> None:
    write(tmp_path, FILE, "p.yaml")

    def cut(**keys: int) -> tuple[tuple[str, ...], ...]:
        return load_conversations(Workload(conversations="p.yaml", **keys), tmp_path)

    assert cut(prompts=4) == (("a", "1984", "yes"), ("c",))
    assert cut(prompts=3) == (("a", "1984", "yes"),), "no empty conversation at the end"
    assert cut(prompts=6) == cut()
    assert cut(prompts=2, turns=1) == (("a",), ("c",))
    with pytest.raises(ManifestError, match="prompts: 4 prompts are asked for, there are 3"):
        cut(prompts=4, turns=1)


def melt_file(folder: Path, content: Any, monkeypatch: pytest.MonkeyPatch) -> Fetcher:
    """A fetcher for which a file of MELT's format stands where MELT's own set is published."""
    path = folder / "conversations.json"
    path.write_text(json.dumps(content))
    source = UrlSource(url=path.as_uri(), digest=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr("meltrepro.manifest.prompts.MELT_SOURCE", source)
    return fetcher(folder)


def fetcher(folder: Path, *, offline: bool = False) -> Fetcher:
    settings = Settings(home=folder, cache=folder, offline=offline, mirrors=None, jobs=1)
    return Fetcher(Store(folder / "store"), settings, lambda step: None)


def test_melts_own_prompts_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = melt_file(tmp_path, [["One\ntwo", "drei"], ["vier"]], monkeypatch).get
    assert load_conversations(Workload(conversations="melt", prompts=2), tmp_path, fetch) == (("One\ntwo", "drei"),)
    with pytest.raises(ManifestError, match="melt.*first: 3 conversations are asked for, there are 2"):
        load_conversations(Workload(conversations="melt", first=3), tmp_path, fetch)


@pytest.mark.parametrize("content", [{"a": ["b"]}, [["a", 1]], [[]], [["  "]], [], ["a"], None])
def test_a_file_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    fetch = melt_file(tmp_path, content, monkeypatch).get
    with pytest.raises(ManifestError, match="melt"):
        load_conversations(Workload(conversations="melt"), tmp_path, fetch)


def test_melts_prompts_are_pinned_and_need_a_network_or_a_mirror(tmp_path: Path) -> None:
    assert MELT_COMMIT in MELT_SOURCE.url and len(MELT_COMMIT) == 40 and len(MELT_SOURCE.digest) == 64
    with pytest.raises(OfflineError, match="conversations.json"):
        load_conversations(Workload(conversations="melt"), tmp_path, fetcher(tmp_path, offline=True).get)


def test_a_manifest_with_melts_prompts_is_read_without_them(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("[[Hello, Again], [Bye]]", "melt\n    first: 5"))
    loaded = load_manifest(path)
    assert loaded.manifest.conversations["chat"].conversations == "melt"
    assert prompt_digests(loaded) == {}, "they are among the sources"
    outer = write(tmp_path, "include: [sub/spec.yaml]\n", "outer.yaml")
    (tmp_path / "sub").mkdir()
    path.rename(tmp_path / "sub" / "spec.yaml")
    assert load_manifest(outer).manifest.conversations["chat"].conversations == "melt", "no file of that name"
