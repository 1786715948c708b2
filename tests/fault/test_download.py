"""Servers and networks that fail in every way: what arrives is right or nothing, and nothing is fetched twice."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.errors import DigestMismatch, DownloadError, OfflineError, SourceError, StoreError
from meltrepro.steps import Step, silent
from meltrepro.store.cas import Store
from meltrepro.store.download import Downloader, FileRequest, RetryPolicy
from tests.fault.fileserver import FileServer, file_server

CONTENT = random.Random(1).randbytes(700_001)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HASTY = RetryPolicy(attempts=3, connect_s=2, silence_s=0.5, pause_s=0.01, longest_pause_s=0.02)
FILE = "/model.gguf"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        running.files[FILE] = CONTENT
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def download(store: Store, server: FileServer, digest: str | None = DIGEST, **more: object) -> str:
    steps = more.pop("steps", [])
    assert isinstance(steps, list)
    downloader = Downloader(store, steps.append, retry=HASTY)
    return downloader.download(FileRequest(server.url + FILE, "url:model", digest, **more))  # type: ignore[arg-type]


def parts(store: Store) -> list[int]:
    return [path.stat().st_size for path in (store.root / "partial").iterdir()]


def test_a_file_arrives_whole_and_tells_how_far_it_is(store: Store, server: FileServer) -> None:
    steps: list[Step] = []
    assert download(store, server, steps=steps) == DIGEST
    assert store.verify(DIGEST, full=True).read_bytes() == CONTENT
    assert parts(store) == []
    progress = [step for step in steps if step.phase == "progress"]
    assert [step.phase for step in steps if step.phase != "progress"] == ["begin", "end"]
    assert (progress[-1].done, progress[-1].total, progress[-1].unit) == (len(CONTENT), len(CONTENT), "bytes")


def test_an_empty_file_is_a_file(store: Store, server: FileServer) -> None:
    server.files[FILE] = b""
    assert download(store, server, None) == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("etags", [True, False])
def test_a_broken_transfer_goes_on_where_it_stopped(store: Store, server: FileServer, etags: bool) -> None:
    server.etags = etags
    server.orders[FILE] = ["truncate 300000", "truncate 100000"]
    assert download(store, server) == DIGEST
    first, second, third = server.ranges(FILE)
    assert first is None
    # Nothing that had arrived in whole blocks is asked for again.
    assert second is not None and 300_000 - 65_536 <= int(second[6:-1]) <= 300_000
    assert third is not None and int(third[6:-1]) > int(second[6:-1])
    assert [asked.headers.get("If-Range") is not None for asked in server.gets(FILE)] == [False, etags, etags]


def test_without_digest_and_validator_it_starts_anew(store: Store, server: FileServer) -> None:
    server.etags = False
    server.orders[FILE] = ["truncate 300000"]
    assert download(store, server, None) == DIGEST
    assert server.ranges(FILE) == [None, None]


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_passing_failure_is_tried_again(store: Store, server: FileServer, status: int) -> None:
    server.orders[FILE] = [f"status {status}", f"status {status}"]
    steps: list[Step] = []
    assert download(store, server, steps=steps) == DIGEST
    assert [str(status) in step.detail["status"] for step in steps if step.phase == "note"] == [True, True]


def test_a_stalled_transfer_is_left_and_resumed(store: Store, server: FileServer) -> None:
    server.orders[FILE] = ["stall 200000"]
    assert download(store, server) == DIGEST
    assert len(server.gets(FILE)) == 2 and server.ranges(FILE)[1] is not None


def test_as_long_as_bytes_arrive_it_is_not_given_up(store: Store, server: FileServer) -> None:
    server.orders[FILE] = ["truncate 66000"] * 9
    assert download(store, server) == DIGEST
    assert len(server.gets(FILE)) == 10


def test_a_server_that_always_breaks_off_fails_and_the_next_call_goes_on(store: Store, server: FileServer) -> None:
    server.orders[FILE] = ["truncate 300000"] + ["truncate 0"] * 3
    with pytest.raises(DownloadError, match="broke off.*are kept") as caught:
        download(store, server)
    assert caught.value.transient
    assert caught.value.hint is not None and "again" in caught.value.hint
    (kept,) = parts(store)
    assert kept > 200_000
    assert not store.has(DIGEST)
    server.asked.clear()
    assert download(store, server) == DIGEST
    assert server.ranges(FILE) == [f"bytes={kept}-"]


@pytest.mark.parametrize("order", ["swap", "swap stubborn"])
@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_changes_between_two_tries_is_fetched_anew(
    store: Store, server: FileServer, order: str, known: bool
) -> None:
    server.orders[FILE] = ["truncate 300000", order]
    other = CONTENT[::-1]
    digest = hashlib.sha256(other).hexdigest()
    assert download(store, server, digest if known else None) == digest
    first, second, *third = server.gets(FILE)
    assert (first.headers["Range"], second.headers["If-Range"] is not None) == (None, True)
    assert [asked.headers["Range"] for asked in third] == ([None] if "stubborn" in order else [])


def test_pieces_of_two_files_are_never_taken_for_one(store: Store, server: FileServer) -> None:
    server.etags = False
    server.orders[FILE] = ["truncate 300000", "swap"]
    with pytest.raises(DigestMismatch):
        download(store, server)
    assert parts(store) == []


def test_leftovers_that_do_not_fit_are_thrown_away(store: Store, server: FileServer) -> None:
    store.partial(DIGEST).write_bytes(b"x" * 1000)
    assert download(store, server) == DIGEST
    assert server.ranges(FILE) == ["bytes=1000-", None]


def test_leftovers_longer_than_the_file_are_thrown_away(store: Store, server: FileServer) -> None:
    store.partial(DIGEST).write_bytes(CONTENT + b"more")
    assert download(store, server) == DIGEST


def test_a_part_that_is_already_whole_needs_no_bytes(store: Store, server: FileServer) -> None:
    store.partial(DIGEST).write_bytes(CONTENT)
    assert download(store, server) == DIGEST
    assert server.ranges(FILE) == [f"bytes={len(CONTENT)}-"]


def test_a_server_without_ranges_starts_anew(store: Store, server: FileServer) -> None:
    server.orders[FILE] = ["truncate 300000", "whole"]
    assert download(store, server) == DIGEST


def test_wrong_bytes_name_both_digests_and_leave_nothing(store: Store, server: FileServer) -> None:
    server.orders[FILE] = ["wrong"]
    actual = hashlib.sha256(bytes(byte ^ 1 for byte in CONTENT)).hexdigest()
    with pytest.raises(DigestMismatch, match=f"{DIGEST}.*{actual}"):
        download(store, server)
    assert parts(store) == []
    assert not store.has(DIGEST) and not store.has(actual)


@pytest.mark.parametrize(
    ("status", "words"), [(404, "does not exist"), (403, "refuses access"), (401, "login"), (410, "removed")]
)
def test_a_final_answer_is_not_tried_again(store: Store, server: FileServer, status: int, words: str) -> None:
    server.orders[FILE] = [f"status {status}"]
    with pytest.raises(SourceError, match=words) as caught:
        download(store, server)
    assert not isinstance(caught.value, DownloadError)
    assert len(server.gets(FILE)) == 1


def test_nobody_listening(store: Store, tmp_path: Path) -> None:
    with file_server() as gone:
        url = gone.url
    with pytest.raises(DownloadError, match="no connection to the server"):
        Downloader(store, silent, retry=HASTY).download(FileRequest(url, "url:x", DIGEST))


@pytest.mark.parametrize("url", ["http://", "nonsense://x/y", "http://[::1/x", "http://a b/"])
def test_what_is_no_url(store: Store, url: str) -> None:
    with pytest.raises(SourceError):
        Downloader(store, silent, retry=HASTY).download(FileRequest(url, "url:x", DIGEST))


def test_secrets_of_a_url_are_never_told(store: Store, server: FileServer) -> None:
    url = f"http://user:hunter2@127.0.0.1:{server.port}{FILE}?token=hunter3#hunter4"
    steps: list[Step] = []
    for orders, digest in (
        (["status 404"], DIGEST),
        (["truncate 0"] * 3, DIGEST),
        (["status 500"] * 3, "0" * 64),
        ([], "1" * 64),
    ):
        server.orders[FILE] = orders
        with pytest.raises(SourceError) as caught:
            Downloader(store, steps.append, retry=HASTY).download(FileRequest(url, "url:x", digest))
        assert "hunter" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__} {steps}"
        assert f"127.0.0.1:{server.port}{FILE}" in str(caught.value)


def test_redirects_are_followed_without_taking_the_login_along(store: Store, server: FileServer) -> None:
    with file_server() as other:
        other.files["/elsewhere"] = CONTENT
        server.orders[FILE] = [f"redirect http://localhost:{other.port}/elsewhere"]
        assert download(store, server, auth=("me", "secret")) == DIGEST
        assert "Authorization" in server.gets(FILE)[0].headers
        assert "Authorization" not in other.gets("/elsewhere")[0].headers


def test_a_redirect_in_a_circle(store: Store, server: FileServer) -> None:
    server.orders[FILE] = [f"redirect {FILE}"] * 50
    with pytest.raises(SourceError, match="circle"):
        download(store, server)


def test_a_proxy_of_the_environment_is_used(store: Store, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    server.files["http://models.invalid/x"] = CONTENT  # what a proxy is asked for
    digest = Downloader(store, silent, retry=HASTY).download(FileRequest("http://models.invalid/x", "url:x", DIGEST))
    assert digest == DIGEST


def test_offline_is_offline(store: Store, server: FileServer) -> None:
    downloader = Downloader(store, silent, offline=True, retry=HASTY)
    request = FileRequest(server.url + FILE, "url:model", DIGEST)
    with pytest.raises(OfflineError, match="url:model") as caught:
        downloader.download(request)
    assert caught.value.hint is not None and "MELTREPRO_MIRRORS" in caught.value.hint
    assert downloader.length(request) is None
    assert server.asked == []


def test_a_file_url_is_copied_even_offline(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(CONTENT)
    downloader = Downloader(store, silent, offline=True)
    assert downloader.download(FileRequest((tmp_path / "a b").as_uri(), "url:x", DIGEST)) == DIGEST
    with pytest.raises(SourceError, match="cannot be read"):
        downloader.download(FileRequest((tmp_path / "none").as_uri(), "url:x"))
    with pytest.raises(SourceError, match="this machine"):
        downloader.download(FileRequest("file://server/x", "url:x"))


def test_what_does_not_fit_is_refused_before_a_byte_is_written(store: Store, server: FileServer) -> None:
    server.headers[FILE] = {"Content-Length": str(1 << 60)}
    with pytest.raises(StoreError, match=r"No space left.*1152921504.6 GB needed, .* free"):
        download(store, server)
    assert parts(store) == []


DOWNLOAD = """
import sys
from pathlib import Path
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.download import Downloader, FileRequest
root, url, digest = sys.argv[1:]
print(Downloader(Store(Path(root)), silent).download(FileRequest(url, "url:model", digest)))
"""


def start(store: Store, server: FileServer) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DOWNLOAD, str(store.root), server.url + FILE, DIGEST], stdout=subprocess.PIPE, text=True
    )


def test_killed_in_mid_download_the_next_call_goes_on(store: Store, server: FileServer) -> None:
    server.orders[FILE] = ["drip 70000"]
    process = start(store, server)
    part = store.partial(DIGEST)
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size >= 200_000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = part.stat().st_size
    server.asked.clear()
    assert download(store, server) == DIGEST
    assert server.ranges(FILE) == [f"bytes={kept}-"]
    assert store.verify(DIGEST, full=True).read_bytes() == CONTENT


def test_processes_that_want_the_same_file_fetch_it_once(store: Store, server: FileServer) -> None:
    server.orders[FILE] = ["drip 200000"]
    processes = [start(store, server) for _ in range(4)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [DIGEST] * 4
    assert len(server.gets(FILE)) == 1
