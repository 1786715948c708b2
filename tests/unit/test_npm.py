"""Packages of npm: its program fetches them from whatever registry it knows, and only the pinned bytes are taken."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.errors import DigestMismatch, DownloadError, MeltreproError, OfflineError
from meltrepro.manifest.sources import NpmPackage
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher

BYTES = b"a package"
PACKAGE = NpmPackage(file="a@1.2.3", digest=hashlib.sha256(BYTES).hexdigest())
NPM = """#!/bin/sh
# STAND-IN for npm.
[ "$1 $2" = "pack --ignore-scripts" ] || exit 64
for package; do :; done
[ "$package" = a@1.2.3 ] || { echo "npm error 404 $package is not in this registry." >&2; exit 1; }
printf "a package" > a-1.2.3.tgz
"""


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "npm").write_text(NPM)
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "npm"


def fetcher(folder: Path, **environ: str) -> Fetcher:
    return Fetcher(Store(folder / "store"), settings.load({"HOME": str(folder), **environ}), silent)


def test_a_package_is_fetched_once(tmp_path: Path, npm: Path) -> None:
    found = fetcher(tmp_path)
    pin = found.pin(PACKAGE, tmp_path)
    assert (pin.source, pin.size) == ("npm:a@1.2.3", len(BYTES))
    npm.unlink()
    assert found.get(PACKAGE).read_bytes() == BYTES


@pytest.mark.parametrize(
    ("package", "kind", "why"),
    [
        (PACKAGE.model_copy(update={"digest": "0" * 64}), DigestMismatch, "npm:a@1.2.3: .*" + "0" * 64),
        (PACKAGE.model_copy(update={"file": "b@1"}), DownloadError, "npm:b@1: npm cannot fetch it: .* is not in this"),
    ],
    ids=["other bytes", "unknown"],
)
def test_another_package_is_refused(
    package: NpmPackage, kind: type[MeltreproError], why: str, tmp_path: Path, npm: Path
) -> None:
    with pytest.raises(kind, match=why) as caught:
        fetcher(tmp_path).get(package)
    assert "\n" not in caught.value.message


def test_a_machine_without_npm_or_network_is_told_what_helps(tmp_path: Path, npm: Path) -> None:
    with pytest.raises(OfflineError, match="npm:a@1.2.3"):
        fetcher(tmp_path, MELTREPRO_OFFLINE="1").get(PACKAGE)
    npm.write_text("")
    npm.chmod(0o644)
    with pytest.raises(DownloadError, match="npm is not installed") as caught:
        fetcher(tmp_path).get(PACKAGE)
    assert "mirror map" in str(caught.value.hint)


def test_a_copy_of_a_mirror_map_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(BYTES)
    (tmp_path / "map.yaml").write_text("mirrors: {'npm:a@1.2.3': a.tgz}\n")
    found = fetcher(tmp_path, MELTREPRO_OFFLINE="1", MELTREPRO_MIRRORS=str(tmp_path / "map.yaml"))
    assert found.get(PACKAGE).read_bytes() == BYTES
