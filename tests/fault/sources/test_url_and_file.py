"""Files behind an address or on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.errors import (
    DigestMismatch,
    SourceError,
)
from meltrepro.manifest.sources import FileSource, UrlSource
from tests.fault.fileserver import FileServer
from tests.fault.sources.bench import MODEL, Bench, sha


def test_a_url_is_pinned_by_its_manifest(bench: Bench, server: FileServer) -> None:
    server.files["/m.gguf"] = MODEL
    source = UrlSource(url=server.url + "/m.gguf?sig=hunter2", digest=sha(MODEL))
    pin = bench.fetcher().pin(source, Path())
    assert (pin.size, pin.filename, pin.url) == (len(MODEL), "m.gguf", server.url + "/m.gguf")
    assert server.gets("/m.gguf") == []
    assert bench.fetcher().get(source).read_bytes() == MODEL
    assert server.gets("/m.gguf")[0].path.endswith("hunter2")


@pytest.mark.parametrize("url", ["ftp://h/x", "x", "javascript://x", "://"])
def test_urls_that_are_not_fetched(bench: Bench, url: str) -> None:
    with pytest.raises(SourceError, match="expected one of|cannot fetch"):
        bench.fetcher().get(UrlSource(url=url, digest="0" * 64))


def test_a_local_file_is_known_until_it_is_touched(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODEL)
    source = FileSource(file="m.gguf")
    fetcher = bench.fetcher(offline=True)
    pin = fetcher.pin(source, tmp_path)
    assert (pin.source, pin.digest, pin.size) == ("file:m.gguf", sha(MODEL), len(MODEL))
    path = fetcher.get(source, tmp_path)
    assert path.read_bytes() == MODEL and path.is_relative_to(bench.store.root)
    (tmp_path / "m.gguf").write_bytes(MODEL[::-1])
    assert fetcher.pin(source, tmp_path).digest == sha(MODEL[::-1])
    assert (
        fetcher.get(source.model_copy(update={"digest": pin.digest})).read_bytes() == MODEL
    )  # what was pinned is what is used
    with pytest.raises(DigestMismatch, match=f"{'0' * 64}.*{sha(MODEL[::-1])}"):
        fetcher.get(FileSource(file="m.gguf", digest="0" * 64), tmp_path)


def test_a_local_file_that_is_not_there(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(MODEL)
    with pytest.raises(SourceError, match="modle.gguf does not exist") as caught:
        bench.fetcher().pin(FileSource(file="modle.gguf"), tmp_path)
    assert caught.value.hint == "did you mean model.gguf?"
    for odd in (".", "/dev/zero"):
        with pytest.raises(SourceError, match="not a regular file"):
            bench.fetcher().pin(FileSource(file=odd), tmp_path)
