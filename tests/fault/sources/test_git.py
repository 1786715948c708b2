"""Commits of real repositories: right, wrong, forbidden, not there."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from meltrepro.errors import (
    DigestMismatch,
    DownloadError,
    SourceError,
)
from meltrepro.manifest.sources import GitSource
from tests.fault.fileserver import file_server
from tests.fault.sources.bench import COMMIT, Bench
from tests.fault.test_git_names import git


def test_a_commit_is_a_deterministic_tar(bench: Bench, repository: tuple[Path, str], tmp_path: Path) -> None:
    folder, commit = repository
    source = GitSource(git=folder.as_uri(), commit=commit)
    pin = bench.fetcher().pin(source, Path())
    with tarfile.open(bench.fetcher().get(source)) as tar:
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
    with pytest.raises(SourceError, match="git is needed, and is not installed") as caught:
        bench.fetcher().pin(GitSource(git=repository[0].as_uri(), commit=repository[1]), Path())
    assert caught.value.hint is not None


@pytest.mark.parametrize("address", ["ssh://git@host.example/x.git", "git@host.example:x.git"])
def test_no_key_of_a_server_is_accepted_and_nothing_is_forwarded(
    address: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin/ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit 1\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -A")
    with pytest.raises(SourceError):
        bench.fetcher().pin(GitSource(git=address, commit=COMMIT), Path())
    asked = (tmp_path / "asked").read_text()
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ClearAllForwardings=yes", "ForwardAgent=no"):
        assert f"-o {option}" in asked


def test_secrets_in_a_repository_address_stay_secret(bench: Bench) -> None:
    with file_server() as gone:
        port = gone.port
    source = GitSource(git=f"https://me:hunter2@127.0.0.1:{port}/x.git?token=hunter2", commit=COMMIT)
    with pytest.raises(SourceError) as caught:
        bench.fetcher().pin(source, Path())
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {bench.steps}"


def test_a_commit_without_a_file(bench: Bench, repository: tuple[Path, str]) -> None:
    folder, _ = repository
    git(folder, "rm", "-r", "--quiet", ".")
    git(folder, "commit", "--quiet", "--message=nothing")
    with pytest.raises(SourceError, match="the commit holds no file"):
        bench.fetcher().pin(GitSource(git=str(folder), commit=git(folder, "rev-parse", "HEAD")), Path())
