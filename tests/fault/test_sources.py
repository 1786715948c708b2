"""Every kind of source against a real server, repository or file: right, wrong, gone, offline and mirrored."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from meltrepro.errors import (
    CorruptStore,
    DigestMismatch,
    DownloadError,
    MeltreproError,
    OfflineError,
    SourceError,
)
from meltrepro.settings import Settings
from meltrepro.spec.sources import FileSource, GitSource, HuggingFaceSource, PypiSource, Source, UrlSource
from meltrepro.steps import Step
from meltrepro.store import pypi
from meltrepro.store.cas import Store
from meltrepro.store.download import Patience
from meltrepro.store.fetch import Fetcher
from meltrepro.store.source import Pin
from tests.fault.fileserver import FileServer, file_server

HASTY = Patience(attempts=2, connect_s=2, silence_s=1, pause_s=0.01, longest_pause_s=0.02)
MODEL = b"GGUF" + bytes(range(256)) * 500
WHEEL_NAME = "tiny_model-1.0-py3-none-any.whl"
WHEEL_URL = f"/files/{WHEEL_NAME}"
COMMIT = "c0ffee0000" * 4
BARE = ("HF_TOKEN", "HF_ENDPOINT", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "http_proxy", "HTTP_PROXY")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("tiny_model/__init__.py", b""), ("tiny_model/tiny.gguf", MODEL)):
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


WHEEL = wheel()


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in BARE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


@pytest.fixture
def index(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A package index with one wheel, in the form that has sizes and digests."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
    publish(server, {"sha256": sha(WHEEL)}, len(WHEEL))
    return server


def publish(server: FileServer, hashes: dict[str, str], size: int | None) -> None:
    file: dict[str, object] = {"filename": WHEEL_NAME, "url": f"../..{WHEEL_URL}", "hashes": hashes}
    if size is not None:
        file["size"] = size
    page = {"meta": {"api-version": "1.1"}, "name": "tiny-model", "versions": ["1.0"], "files": [file]}
    server.files["/simple/tiny-model/"] = json.dumps(page).encode()
    server.headers["/simple/tiny-model/"] = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
    server.files[WHEEL_URL] = WHEEL


class Bench:
    """A fetcher and everything that it said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps: list[Step] = []
        self.store = Store(root / "store")

    def fetcher(self, *, offline: bool = False, mirrors: dict[str, str] | None = None) -> Fetcher:
        file = None
        if mirrors is not None:
            file = self.root / "mirrors.yaml"
            file.write_text(yaml.safe_dump({"mirrors": mirrors}))
        settings = Settings(cache=self.root, home=self.root, offline=offline, mirrors=file, jobs=1)
        return Fetcher(self.store, settings, self.steps.append, patience=HASTY)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


TINY = PypiSource(pypi="tiny.model", version="1.0")
MEMBER = PypiSource(pypi="tiny.model", version="1.0", member="**/*.gguf")


# -- pypi ---------------------------------------------------------------------------------------------------------


def test_a_wheel_is_pinned_from_the_index_alone(bench: Bench, index: FileServer) -> None:
    fetcher = bench.fetcher()
    assert fetcher.estimate(TINY) == len(WHEEL)
    pin = fetcher.pin(TINY, Path())
    assert pin == Pin(source="pypi:tiny-model==1.0:wheel", digest=sha(WHEEL), size=len(WHEEL), filename=WHEEL_NAME)
    assert index.gets(WHEEL_URL) == []
    assert fetcher.get(TINY).read_bytes() == WHEEL
    assert fetcher.get(pin) == fetcher.get(TINY)
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
    assert bench.fetcher(offline=True).get(pin).read_bytes() == MODEL
    bench.store.delete(pin.digest)
    assert bench.fetcher(offline=True).get(MEMBER).read_bytes() == MODEL
    assert index.asked == []


def test_a_pin_from_a_lock_fetches_on_a_fresh_machine(bench: Bench, index: FileServer, tmp_path: Path) -> None:
    pins = [bench.fetcher().pin(source, Path()) for source in (TINY, MEMBER)]
    other = Bench(tmp_path / "fresh")
    (tmp_path / "fresh").mkdir()
    assert [other.fetcher().get(pin).read_bytes() for pin in pins] == [WHEEL, MODEL]


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


# -- huggingface --------------------------------------------------------------------------------------------------

HF = HuggingFaceSource(huggingface="org/model", revision=COMMIT, file="sub/model.gguf")
HF_PATH = f"/org/model/resolve/{COMMIT}/sub/model.gguf"


@pytest.fixture
def hub(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.files[HF_PATH] = MODEL
    return server


def test_a_large_file_of_the_hub_is_pinned_without_its_bytes(bench: Bench, hub: FileServer) -> None:
    hub.headers[HF_PATH] = {"X-Linked-ETag": f'"{sha(MODEL)}"', "X-Linked-Size": str(len(MODEL))}
    fetcher = bench.fetcher()
    pin = fetcher.pin(HF, Path())
    assert pin == Pin(
        source=f"huggingface:org/model@{COMMIT}:sub/model.gguf",
        digest=sha(MODEL),
        size=len(MODEL),
        filename="model.gguf",
    )
    assert hub.gets(HF_PATH) == []
    assert fetcher.get(pin).read_bytes() == MODEL


def test_a_small_file_of_the_hub_is_transferred(bench: Bench, hub: FileServer) -> None:
    assert bench.fetcher().estimate(HF) == len(MODEL)
    assert bench.fetcher().get(HF).read_bytes() == MODEL


def test_what_the_hub_announces_is_not_trusted(bench: Bench, hub: FileServer) -> None:
    hub.headers[HF_PATH] = {"X-Linked-ETag": f'"{"0" * 64}"', "X-Linked-Size": "5"}
    with pytest.raises(DigestMismatch, match=f"{'0' * 64}.*{sha(MODEL)}"):
        bench.fetcher().get(HF)
    with pytest.raises(DigestMismatch, match=f"{sha(MODEL)}.*{'0' * 64}"):
        bench.fetcher().get(HF.model_copy(update={"digest": sha(MODEL)}))


def test_the_token_goes_to_the_hub_and_nowhere_else(
    bench: Bench, hub: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    with file_server() as elsewhere:
        elsewhere.files["/blob"] = MODEL
        hub.orders[HF_PATH] = [f"redirect http://localhost:{elsewhere.port}/blob"]
        bench.fetcher().get(HF)
        assert hub.gets(HF_PATH)[0].headers["Authorization"] == "Bearer hf_hunter2"
        assert "Authorization" not in elsewhere.gets("/blob")[0].headers
    files = [path.read_text(errors="replace") for path in bench.store.root.rglob("*.json")]
    assert "hunter2" not in f"{bench.steps} {files}"


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("token", ["", "hf_hunter2"])
def test_a_gated_model_is_explained(
    bench: Bench, hub: FileServer, monkeypatch: pytest.MonkeyPatch, status: int, token: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.files.pop(HF_PATH)
    hub.orders[HF_PATH] = [f"status {status}"]
    with pytest.raises(SourceError, match="org/model") as caught:
        bench.fetcher().get(HF)
    hint = caught.value.hint or ""
    assert f"{hub.url}/org/model" in hint and "terms" in hint and ("HF_TOKEN" in hint) == (not token)
    assert "hunter2" not in f"{caught.value}{hint}{bench.steps}"


# -- git ----------------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    identity = (
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgsign=false",
    )
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A repository whose tree asks for special treatment, and its first commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "src").mkdir()
    (folder / "src" / "main.c").write_text("int main;\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "version").write_text("$Format:%h$ $Id$\n")
    (folder / "secret").write_text("kept\n")
    (folder / "link").symlink_to("src/main.c")
    (folder / ".gitattributes").write_text("version export-subst ident\nsecret export-ignore\n*.c text eol=crlf\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=one")
    commit = git(folder, "rev-parse", "HEAD")
    (folder / "later").write_text("x")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=two")
    return folder, commit


def test_a_commit_is_a_deterministic_tar(bench: Bench, repository: tuple[Path, str], tmp_path: Path) -> None:
    folder, commit = repository
    pin = bench.fetcher().pin(GitSource(git=folder.as_uri(), commit=commit), Path())
    with tarfile.open(bench.fetcher().get(pin)) as tar:
        files = {m.name: (oct(m.mode), m.linkname or (tar.extractfile(m) or io.BytesIO()).read()) for m in tar}
        assert {(m.uid, m.gid, m.uname, m.mtime, bool(m.pax_headers)) for m in tar.getmembers()} == {
            (0, 0, "", 1735689600, False)
        }
    assert files["source/src/main.c"] == ("0o644", b"int main;\n")
    assert files["source/run.sh"][0] == "0o755"
    assert files["source/version"][1] == b"$Format:%h$ $Id$\n"
    assert files["source/secret"][1] == b"kept\n"
    assert files["source/link"][1] == "src/main.c"
    assert "source/later" not in files
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(folder), str(clone)], check=True)
    fresh = Bench(tmp_path / "fresh")
    fresh.root.mkdir()
    assert fresh.fetcher().pin(GitSource(git=str(clone), commit=commit), Path()).digest == pin.digest


def test_nothing_of_the_machine_reaches_git(
    bench: Bench, repository: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, commit = repository
    source = GitSource(git=folder.as_uri(), commit=commit)
    plain = bench.fetcher().pin(source, Path()).digest
    touched = tmp_path / "touched"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-update"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {touched}\n")
        (hooks / name).chmod(0o755)
    (tmp_path / ".gitconfig").write_text(
        f'[core]\nhooksPath = {hooks}\nautocrlf = true\n[tar]\numask = 0077\n[url "file:///nowhere/"]\ninsteadOf = file://\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / ".gitconfig"))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_TRACE", str(touched))
    (tmp_path / "fresh").mkdir()
    assert Bench(tmp_path / "fresh").fetcher().pin(source, Path()).digest == plain
    assert not touched.exists()


def test_a_commit_that_is_not_there(bench: Bench, repository: tuple[Path, str]) -> None:
    with pytest.raises(SourceError, match=f"does not hand out commit {COMMIT}") as caught:
        bench.fetcher().pin(GitSource(git=repository[0].as_uri(), commit=COMMIT), Path())
    assert not isinstance(caught.value, DownloadError)
    assert not any((bench.store.root / "tmp").iterdir())


@pytest.mark.parametrize(
    "address",
    ["ext::sh -c touch% /tmp/x", "--upload-pack=touch", "http://h/x", "git://h/x", "/nowhere/at/all", "ftp://h", ""],
)
def test_addresses_that_are_not_allowed(bench: Bench, address: str) -> None:
    with pytest.raises(SourceError, match="not a repository that may be fetched|git: "):
        bench.fetcher().pin(GitSource(git=address, commit=COMMIT), Path())


def test_a_folder_that_is_no_repository(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(SourceError, match="git: fatal"):
        bench.fetcher().pin(GitSource(git="plain", commit=COMMIT), tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="giving files away needs root")
def test_a_repository_of_another_user(bench: Bench, repository: tuple[Path, str]) -> None:
    folder, commit = repository
    for path in (folder, folder / ".git"):
        os.chown(path, 65534, 65534)
    with pytest.raises(SourceError, match="belongs to another user") as caught:
        bench.fetcher().pin(GitSource(git=folder.as_uri(), commit=commit), Path())
    assert "git clone" in (caught.value.hint or "")


def test_a_tree_that_is_not_the_pinned_one(bench: Bench, repository: tuple[Path, str]) -> None:
    folder, commit = repository
    with pytest.raises(DigestMismatch, match="0" * 64):
        bench.fetcher().pin(GitSource(git=folder.as_uri(), commit=commit, digest="0" * 64), Path())


def test_a_machine_without_git(bench: Bench, repository: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceError, match="needs git, which is not installed") as caught:
        bench.fetcher().pin(GitSource(git=repository[0].as_uri(), commit=repository[1]), Path())
    assert caught.value.hint is not None


def test_secrets_in_a_repository_address_stay_secret(bench: Bench) -> None:
    with file_server() as gone:
        port = gone.port
    source = GitSource(git=f"https://me:hunter2@127.0.0.1:{port}/x.git", commit=COMMIT)
    with pytest.raises(SourceError) as caught:
        bench.fetcher().pin(source, Path())
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {bench.steps}"


# -- url and file -------------------------------------------------------------------------------------------------


def test_a_url_is_pinned_by_its_manifest(bench: Bench, server: FileServer) -> None:
    server.files["/m.gguf"] = MODEL
    source = UrlSource(url=server.url + "/m.gguf?sig=hunter2", digest=sha(MODEL))
    pin = bench.fetcher().pin(source, Path())
    assert (pin.size, pin.filename, pin.url) == (len(MODEL), "m.gguf", server.url + "/m.gguf")
    assert server.gets("/m.gguf") == []
    assert bench.fetcher().get(source).read_bytes() == MODEL
    assert server.gets("/m.gguf")[0].path.endswith("hunter2")
    assert bench.fetcher().get(pin).read_bytes() == MODEL


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
    assert fetcher.get(pin).read_bytes() == MODEL  # what was pinned is what is used
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


# -- offline, mirrors, damage -------------------------------------------------------------------------------------

EVERY: list[Source] = [
    TINY,
    MEMBER,
    HF,
    GitSource(git="https://git.example/x.git", commit=COMMIT),
    UrlSource(url="https://files.example/m.gguf", digest=sha(MODEL)),
]


@pytest.mark.parametrize("source", EVERY, ids=lambda source: type(source).__name__)
def test_offline_names_what_is_missing_and_asks_nobody(bench: Bench, index: FileServer, source: Source) -> None:
    fetcher = bench.fetcher(offline=True)
    wanted: list[Source | Pin] = [source, Pin(source="url:https://x/y", digest="0" * 64, size=1)]
    for one in wanted:
        with pytest.raises(OfflineError, match="offline, and the store does not hold") as caught:
            fetcher.get(one)
        assert "MELTREPRO_MIRRORS" in (caught.value.hint or "")
    assert fetcher.estimate(source) is None
    assert index.asked == []


def test_offline_the_store_is_enough(bench: Bench, index: FileServer) -> None:
    for source in (TINY, MEMBER):
        bench.fetcher().get(source)
    index.asked.clear()
    offline = bench.fetcher(offline=True)
    assert offline.get(MEMBER).read_bytes() == MODEL
    assert offline.pin(TINY, Path()).filename == WHEEL_NAME
    # Known by digest alone, as after importing a bundle.
    offline.forget("pypi:tiny-model==1.0:wheel")
    pinned = TINY.model_copy(update={"digest": sha(WHEEL)})
    assert offline.pin(pinned, Path()) == Pin(source="pypi:tiny-model==1.0:wheel", digest=sha(WHEEL), size=len(WHEEL))
    assert offline.get(pinned).read_bytes() == WHEEL
    assert index.asked == []


def test_mirrors_stand_in_for_every_source(bench: Bench, repository: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / WHEEL_NAME).write_bytes(WHEEL)
    (tmp_path / "m.gguf").write_bytes(MODEL)
    folder, commit = repository
    fetcher = bench.fetcher(
        offline=True,
        mirrors={
            "pypi:Tiny_Model==1.0": WHEEL_NAME,
            f"huggingface:org/model@{COMMIT}:sub/model.gguf": str(tmp_path / "m.gguf"),
            "https://git.example/x.git": str(folder),
            "https://files.example/m.gguf": "m.gguf",
        },
    )
    sources: list[Source] = [*EVERY[:3], GitSource(git="https://git.example/x.git", commit=commit), EVERY[4]]
    assert [fetcher.estimate(source) for source in sources] == [0] * 5
    contents = [fetcher.get(source).read_bytes() for source in sources]
    assert [contents[n] for n in (0, 1, 2, 4)] == [WHEEL, MODEL, MODEL, MODEL]
    assert fetcher.pin(MEMBER, Path()).archive_digest == sha(WHEEL)
    direct = GitSource(git=folder.as_uri(), commit=commit)
    assert sha(contents[3]) == fetcher.pin(direct, Path()).digest


def test_mirrors_are_checked_like_everything_else(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "bad.whl").write_bytes(WHEEL[:-1] + b"\1")
    (tmp_path / "bad").write_bytes(MODEL[::-1])
    fetcher = bench.fetcher(
        mirrors={
            "pypi:tiny-model==1.0": "bad.whl",
            "https://files.example/m.gguf": "bad",
            "https://gone.example/x": "no",
        }
    )
    with pytest.raises(DigestMismatch, match=f"pypi:tiny-model==1.0 .mirror.*{sha(WHEEL)}"):
        fetcher.get(TINY.model_copy(update={"digest": sha(WHEEL)}))
    with pytest.raises(DigestMismatch, match=f"{sha(MODEL)}.*{sha(MODEL[::-1])}"):
        fetcher.get(EVERY[4])
    with pytest.raises(SourceError, match=r"mirrors\.yaml.*https://gone.example/x.*does not exist") as caught:
        fetcher.get(UrlSource(url="https://gone.example/x", digest=sha(MODEL)))
    assert caught.value.hint is not None
    assert not bench.store.has(sha(WHEEL)) and not bench.store.has(sha(MODEL))


def test_a_flipped_byte_in_the_store_is_found_named_and_mended_by_the_next_call(
    bench: Bench, index: FileServer
) -> None:
    path = bench.fetcher().get(MEMBER)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"!")
    with pytest.raises(CorruptStore, match=sha(MODEL)):
        bench.fetcher().get(MEMBER)
    assert bench.fetcher().get(MEMBER).read_bytes() == MODEL


def test_a_pin_of_another_version_is_found_out_anew(bench: Bench, index: FileServer) -> None:
    bench.fetcher().pin(TINY, Path())
    (key,) = bench.store.list_refs("pins")
    bench.store.put_ref("pins", key, {"source": "of the future"})
    assert bench.fetcher().pin(TINY, Path()).digest == sha(WHEEL)


def test_a_second_get_is_quick(bench: Bench, index: FileServer) -> None:
    bench.fetcher().get(MEMBER)
    index.asked.clear()
    fetcher = bench.fetcher()
    begin = time.perf_counter()
    for _ in range(100):
        fetcher.get(MEMBER)
    assert time.perf_counter() - begin < 1
    assert index.asked == []
