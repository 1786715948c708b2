"""The journal: every step, whatever came before, and no lie about what could not be written."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import StoreError
from meltrepro.record import journal
from meltrepro.steps import Step


def test_steps_come_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with journal.Journal(path) as sink:
        sink(Step("trial", "begin", "cell r000", done=0, total=2, detail={"cell": "ü", "path": Path("x")}))
        sink(Step("fetch", "progress", "model", done=1, total=2))
        sink(Step("trial", "end", "cell r000"))
        sink.check()
    first, second = journal.read(path)
    assert first["subject"] == "cell r000"
    assert first["detail"] == {"cell": "ü", "path": "x"}
    assert (first["done"], first["total"]) == (0, 2)
    assert (second["name"], second["phase"]) == ("trial", "end")
    assert second["monotonic_ns"] >= first["monotonic_ns"]


@given(keep=st.integers(0, 400), subjects=st.lists(st.text(), min_size=1, max_size=4))
def test_a_line_cut_short_costs_itself_alone(
    tmp_path_factory: pytest.TempPathFactory, keep: int, subjects: list[str]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with journal.Journal(path) as sink:
        for subject in subjects:
            sink(Step("a", "note", subject))
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with journal.Journal(path) as sink:
        sink(Step("b", "note"))
    survived = whole[:keep].count(b"\n")
    names = [entry["name"] for entry in journal.read(path)]
    # The cut may fall right before a line's end; then the line is whole after all.
    assert names in (["a"] * survived + ["b"], ["a"] * (survived + 1) + ["b"])


def test_garbage_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"name": "a"}\n\xff\xfe\n[1]\nnull\n\n{"name": "b"}\n')
    assert [entry["name"] for entry in journal.read(path)] == ["a", "b"]


def test_a_step_that_cannot_be_written_is_told_later(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with journal.Journal(path) as sink:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            sink(Step("trial", "begin"))  # a sink does not raise
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with pytest.raises(StoreError, match="journal.jsonl"):
            sink.check()


def test_a_journal_is_not_written_through_a_link(tmp_path: Path) -> None:
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "journal.jsonl"
    path.symlink_to(elsewhere)
    with pytest.raises(StoreError, match="a symbolic link"):
        journal.Journal(path)
    assert not elsewhere.exists()


def test_a_journal_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="journal"):
        journal.Journal(tmp_path / "no" / "journal.jsonl")


def test_details_of_any_kind_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with journal.Journal(path) as sink:
        sink(Step("a", "note", detail={"error": ValueError("x"), "lone": "\ud800"}))
        sink.check()
    assert json.loads(path.read_bytes())["detail"]["error"] == "x"
