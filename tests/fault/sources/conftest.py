"""Servers, an index, a hub and a repository for the tests of sources, and none of this machine's settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.fileserver import FileServer, file_server
from tests.fault.sources.bench import HF_PATH, MODEL, WHEEL, Bench, git, publish, sha
from tests.support.network import plain_network
from tests.support.tls import Authority, authority

BARE = ("HF_TOKEN", "HF_ENDPOINT", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in BARE:
        monkeypatch.delenv(name, raising=False)
    plain_network(monkeypatch)
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


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def hub(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.files[HF_PATH] = MODEL
    return server


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


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    """An authority that nobody knows yet."""
    return authority(tmp_path / "ca")
