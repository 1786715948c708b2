"""Packages from a real index: right, wrong, gone, replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meltrepro.errors import (
    DigestMismatch,
    DownloadError,
    MeltreproError,
    SourceError,
)
from meltrepro.manifest.sources import PypiSource
from meltrepro.store import pypi
from meltrepro.store.source import Pin
from tests.fault.fileserver import FileServer
from tests.fault.sources.bench import MEMBER, MODEL, TINY, WHEEL, WHEEL_NAME, WHEEL_URL, Bench, publish, sha


def test_a_wheel_is_pinned_from_the_index_alone(bench: Bench, index: FileServer) -> None:
    fetcher = bench.fetcher()
    assert fetcher.estimate(TINY) == len(WHEEL)
    pin = fetcher.pin(TINY, Path())
    assert pin == Pin(source="pypi:tiny-model==1.0:wheel", digest=sha(WHEEL), size=len(WHEEL), filename=WHEEL_NAME)
    assert index.gets(WHEEL_URL) == []
    assert fetcher.get(TINY).read_bytes() == WHEEL
    assert fetcher.get(TINY).read_bytes() == WHEEL
    assert len(index.gets(WHEEL_URL)) == 1
    assert fetcher.estimate(TINY) == 0
    assert "127.0.0.1" not in json.dumps(pin.to_json())


@pytest.mark.parametrize("listed", [True, False])
def test_a_member_is_taken_out_of_the_wheel(bench: Bench, index: FileServer, listed: bool) -> None:
    if not listed:
        publish(index, {}, None)
    fetcher = bench.fetcher()
    assert fetcher.estimate(MEMBER) == len(WHEEL)
    pin = fetcher.pin(MEMBER, Path())
    assert (pin.digest, pin.size, pin.filename) == (sha(MODEL), len(MODEL), WHEEL_NAME)
    assert (pin.archive_digest, pin.archive_size) == (sha(WHEEL), len(WHEEL))
    assert fetcher.get(MEMBER).read_bytes() == MODEL
    # A lost member comes out of the archive again, without network.
    bench.store.delete(pin.digest)
    index.asked.clear()
    assert bench.fetcher(offline=True).get(MEMBER).read_bytes() == MODEL
    assert index.asked == []


def test_a_pin_from_a_lock_fetches_on_a_fresh_machine(bench: Bench, index: FileServer, tmp_path: Path) -> None:
    digests = {source: bench.fetcher().pin(source, Path()).digest for source in (TINY, MEMBER)}
    other = Bench(tmp_path / "fresh")
    (tmp_path / "fresh").mkdir()
    locked = [source.model_copy(update={"digest": digest}) for source, digest in digests.items()]
    assert [other.fetcher().get(source).read_bytes() for source in locked] == [WHEEL, MODEL]


def test_a_digest_in_the_manifest_is_checked_against_the_index(bench: Bench, index: FileServer) -> None:
    wrong = "0" * 64
    with pytest.raises(DigestMismatch, match=f"{wrong}.*{sha(WHEEL)}"):
        bench.fetcher().pin(TINY.model_copy(update={"digest": wrong}), Path())
    assert index.gets(WHEEL_URL) == []
    with pytest.raises(DigestMismatch, match=f"{wrong}.*{sha(MODEL)}"):
        bench.fetcher().pin(MEMBER.model_copy(update={"digest": wrong}), Path())
    assert not bench.store.has(sha(MODEL))


def test_a_replaced_file_of_the_same_name_is_refused(bench: Bench, index: FileServer) -> None:
    pin = bench.fetcher().pin(MEMBER, Path())
    other = WHEEL + b"\0"
    index.files[WHEEL_URL] = other
    publish_other = {"sha256": sha(other)}
    page = json.loads(index.files["/simple/tiny-model/"])
    page["files"][0]["hashes"] = publish_other
    index.files["/simple/tiny-model/"] = json.dumps(page).encode()
    for digest in (pin.digest, pin.archive_digest):
        assert digest is not None
        bench.store.delete(digest)
    with pytest.raises(DigestMismatch, match=f"{sha(WHEEL)}.*{sha(other)}"):
        bench.fetcher().get(MEMBER)


def test_wrong_bytes_behind_a_right_index(bench: Bench, index: FileServer) -> None:
    index.orders[WHEEL_URL] = ["wrong"]
    with pytest.raises(DigestMismatch, match=sha(WHEEL)):
        bench.fetcher().get(TINY)
    assert bench.fetcher().get(TINY).read_bytes() == WHEEL


def test_an_html_index_serves_too(bench: Bench, index: FileServer) -> None:
    page = f'<!DOCTYPE html><a href="../..{WHEEL_URL}#sha256={sha(WHEEL)}">{WHEEL_NAME}</a>'
    index.files["/simple/tiny-model/"] = page.encode()
    index.headers["/simple/tiny-model/"] = {"Content-Type": "text/html"}
    assert bench.fetcher().estimate(TINY) == len(WHEEL)
    assert bench.fetcher().pin(TINY, Path()).digest == sha(WHEEL)
    assert bench.fetcher().get(MEMBER).read_bytes() == MODEL


def test_the_login_of_an_index_goes_to_its_files_and_into_no_message(
    bench: Bench, index: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:hunter2@127.0.0.1:{index.port}/simple")
    bench.fetcher().get(TINY)
    assert all("Authorization" in asked.headers for asked in index.asked)
    index.orders["/simple/other/"] = ["status 401"]
    with pytest.raises(SourceError) as caught:
        bench.fetcher().get(PypiSource(pypi="other", version="1"))
    texts = [str(caught.value), str(caught.value.hint), str(bench.steps)]
    texts += [path.read_text(errors="replace") for path in bench.store.root.rglob("*.json")]
    assert not any("hunter2" in text for text in texts)


@pytest.mark.parametrize(
    ("page", "kind", "error", "words"),
    [
        (None, "", SourceError, "has no project 'tiny.model'"),
        (b"{", "application/vnd.pypi.simple.v1+json", SourceError, "does not answer like a package index"),
        (b"{}", "application/vnd.pypi.simple.v1+json", SourceError, "does not answer like a package index"),
        (b"[]", "application/vnd.pypi.simple.v1+json", SourceError, "does not answer like a package index"),
        (b"welcome", "text/plain", SourceError, "does not answer like a package index"),
        (
            b'{"meta":{"api-version":"9.0"},"name":"x","files":[]}',
            "application/vnd.pypi.simple.v1+json",
            SourceError,
            "index",
        ),
        (b"", "text/html", SourceError, "no version 1.0"),
    ],
)
def test_an_index_that_is_none(
    bench: Bench, index: FileServer, page: bytes | None, kind: str, error: type[MeltreproError], words: str
) -> None:
    index.headers["/simple/tiny-model/"] = {"Content-Type": kind}
    if page is None:
        del index.files["/simple/tiny-model/"]
    else:
        index.files["/simple/tiny-model/"] = page
    with pytest.raises(error, match=words):
        bench.fetcher().pin(TINY, Path())
    assert bench.fetcher().estimate(TINY) is None


def test_an_index_that_is_down_for_a_moment(bench: Bench, index: FileServer) -> None:
    index.orders["/simple/tiny-model/"] = ["status 503"]
    assert bench.fetcher().pin(TINY, Path()).digest == sha(WHEEL)
    index.orders["/simple/tiny-model/"] = ["status 503"] * 2
    bench.fetcher().forget("pypi:tiny-model==1.0:wheel")
    with pytest.raises(DownloadError, match="status 503"):
        bench.fetcher().pin(TINY, Path())


def test_the_configuration_of_pip_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://index.example/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    pypi._pip_index_url.cache_clear()
    try:
        assert pypi.index_url({}) == "https://index.example/simple"
    finally:
        pypi._pip_index_url.cache_clear()
