"""Servers that answer what no server should: each answer is taken, left out, or one typed error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import MeltreproError, SourceError
from meltrepro.store import sessions
from tests.fault.fileserver import FileServer
from tests.fault.sources.bench import COMMIT, HF, HF_PATH, MODEL, TINY, WHEEL, Bench, publish, sha

PAGE = "/simple/tiny-model/"
LISTING = f"/api/models/org/model/revision/{COMMIT}"


@pytest.mark.parametrize("size", [-1, 10**30, "5", 1.5, True, None])
@pytest.mark.parametrize("digest", ["zz", "", "0" * 65, 5, None])
def test_an_index_with_odd_values(bench: Bench, index: FileServer, size: Any, digest: Any) -> None:
    publish(index, {} if digest is None else {"sha256": digest}, size)
    try:
        assert bench.fetcher().pin(TINY, Path()).digest == sha(WHEEL)
        bench.fetcher().estimate(TINY)
    except MeltreproError as error:
        assert "tiny-model" in str(error)


@pytest.mark.parametrize(
    "page",
    [
        b"[" * 100_000,
        b'{"meta": 5}',
        b'{"meta": {"api-version": "1.1"}, "name": 5, "files": {"a": 1}}',
        b'{"meta": {"api-version": "1.1"}, "name": "tiny-model", "files": [5]}',
        b'{"meta": {"api-version": "1.1"}, "name": "tiny-model", "files": [{"filename": 5, "url": [], "hashes": []}]}',
        b'{"meta": {"api-version": "' + b"9" * 5000 + b'.0"}}',
        b"null",
        b"\xff",
    ],
)
def test_an_index_of_another_shape(bench: Bench, index: FileServer, page: bytes) -> None:
    index.files[PAGE] = page
    with pytest.raises(SourceError):
        bench.fetcher().pin(TINY, Path())


@pytest.mark.parametrize(
    "name", [f"tiny_model-{'9' * 5000}-py3-none-any.whl", "tiny_model-1.0-" + "9" * 5000 + "x-py3-none-any.whl"]
)
def test_a_version_that_python_cannot_count(bench: Bench, index: FileServer, name: str) -> None:
    page = json.loads(index.files[PAGE])
    page["files"].append({**page["files"][0], "filename": name})
    index.files[PAGE] = json.dumps(page).encode()
    assert bench.fetcher().pin(TINY, Path()).digest == sha(WHEEL)
    with pytest.raises(SourceError, match="is not a version"):
        bench.fetcher().pin(TINY.model_copy(update={"version": "9" * 5000}), Path())


def test_an_index_names_no_file_of_this_machine(bench: Bench, index: FileServer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    page = json.loads(index.files[PAGE])
    page["files"][0] |= {"url": (tmp_path / "secret").as_uri(), "hashes": {}}
    index.files[PAGE] = json.dumps(page).encode()
    with pytest.raises(SourceError, match="names an address that is none"):
        bench.fetcher().get(TINY, Path())
    assert not bench.store.has(sha(b"secret"))


@pytest.mark.parametrize("length", ["²", "9" * 5000, "-1", "1e3", ""])
def test_a_hub_with_odd_sizes(bench: Bench, hub: FileServer, length: str) -> None:
    hub.headers[HF_PATH] = {"X-Linked-ETag": f'"{sha(MODEL)}"', "X-Linked-Size": length}
    assert bench.fetcher().pin(HF, Path()).size == len(MODEL)
    assert bench.fetcher().estimate(HF) in (0, len(MODEL), None)


@pytest.mark.parametrize(
    "answer",
    [
        b"[" * 100_000,
        b"5",
        b'{"siblings": 5}',
        b'{"siblings": [5]}',
        b'{"siblings": [{"rfilename": "\\ud800"}]}',
        b"\xff",
    ],
)
def test_a_hub_that_lists_something_else(bench: Bench, hub: FileServer, answer: bytes) -> None:
    hub.files[LISTING] = answer
    with pytest.raises(SourceError, match="does not answer like a hub"):
        bench.fetcher().pin(HF.model_copy(update={"file": None}), Path())


@pytest.mark.timeout(60)
def test_an_answer_has_an_end(
    bench: Bench, index: FileServer, hub: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bytes and in time; also where it comes in drops, each of which is in time by itself."""
    monkeypatch.setattr(sessions, "MOST_BYTES", 1000)
    index.files[PAGE] = hub.files[LISTING] = b" " * 5000
    for source in (TINY, HF.model_copy(update={"file": None})):
        with pytest.raises(SourceError, match="the answer has more than"):
            bench.fetcher().pin(source, Path())
    monkeypatch.setattr(sessions, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(sessions, "MOST_S", 0.5)
    index.orders[PAGE] = ["drip 10"]
    with pytest.raises(SourceError, match="the answer has not ended after"):
        bench.fetcher().pin(TINY, Path())
