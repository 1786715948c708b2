"""A base out of a container image, in place of single packages: by digest alone, pulled once, the same layer each time."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound

from meltrepro import settings as settings_module
from meltrepro.build import daemon
from meltrepro.build.tools import Tools
from meltrepro.errors import LockError, LockMismatch, OfflineError, SourceError, UsageError
from meltrepro.manifest.lock import Lock, load_lock
from meltrepro.settings import Settings
from meltrepro.steps import silent

IMAGE = "debian@sha256:" + "a" * 64


class Registry:
    """As much of a client as exporting an image takes; what it was asked is kept."""

    def __init__(self, text: str = "trixie") -> None:
        self.text = text
        self.here: set[str] = set()
        self.pulled: list[str] = []
        self.removed = 0
        self.images = self
        self.containers = self

    def get(self, reference: str) -> str:
        if reference not in self.here:
            raise ImageNotFound(f"no such image: {reference}")
        return reference

    def pull(self, reference: str) -> str:
        self.pulled.append(reference)
        self.here.add(reference)
        return reference

    def create(self, image: str, command: list[str]) -> Any:
        assert image in self.here and command
        return self

    def export(self) -> list[bytes]:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            entry = tarfile.TarInfo("etc/os-release")
            entry.size, entry.mtime = len(self.text), len(self.pulled) + self.removed
            tar.addfile(entry, io.BytesIO(self.text.encode()))
        return [content.getvalue()[:700], content.getvalue()[700:]]

    def remove(self, *, force: bool) -> None:
        assert force
        self.removed += 1


def tools(folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, lock: Lock, **more: Any) -> Tools:
    monkeypatch.setattr(daemon, "connect", lambda settings: registry)
    values = {"offline": False, "mirrors": None, "jobs": 1, "base_image": IMAGE, **more}
    return Tools(Settings(folder / "cache", folder / "home", **values), silent, lock)


def base_of(shop: Tools) -> Lock:
    """The lock once the base is made; toolchain wheels are not part of this."""
    shop.pins.set(base=shop.base().pinned(shop.pins.lock.base))
    return shop.pins.lock


EMPTY = Lock(lock=1, manifest="0" * 64)


def test_it_is_pulled_once_and_locked_by_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    lock = base_of(tools(tmp_path, registry, monkeypatch, EMPTY))
    assert lock.base is not None
    assert (lock.base.image, lock.base.packages) == (IMAGE, {})
    again = base_of(tools(tmp_path / "elsewhere", registry, monkeypatch, EMPTY))
    assert again.base == lock.base, "whenever it is exported"
    assert registry.pulled == [IMAGE]
    assert registry.removed == 2, "no container stays"


def test_a_lock_says_which_image_whatever_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = base_of(tools(tmp_path, Registry(), monkeypatch, EMPTY))
    registry = Registry()
    assert base_of(tools(tmp_path / "new", registry, monkeypatch, lock, base_image=None)) == lock
    assert registry.pulled == [IMAGE]


def test_a_record_has_no_image_pulled_that_only_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = base_of(tools(tmp_path, Registry(), monkeypatch, EMPTY))
    registry = Registry()
    shop = tools(tmp_path / "new", registry, monkeypatch, lock, base_image=None)
    shop.record = tmp_path / "lock.yaml"
    with pytest.raises(SourceError, match="only the record names it") as caught:
        base_of(shop)
    assert registry.pulled == []
    assert f"MELTREPRO_BASE_IMAGE={IMAGE}" in (caught.value.hint or "")
    named = tools(tmp_path / "named", registry, monkeypatch, lock)
    named.record = tmp_path / "lock.yaml"
    assert base_of(named) == lock
    assert base_of(shop) == lock, "the engine has it now"
    assert registry.pulled == [IMAGE]


@pytest.mark.parametrize("image", ["evil.example/x", "debian:13", "debian@sha256:abc"])
def test_a_lock_names_an_image_by_digest_alone(tmp_path: Path, image: str) -> None:
    path = tmp_path / "lock.yaml"
    base = f"{{suite: trixie, layer: {'0' * 64}, image: '{image}'}}"
    path.write_text(f"lock: 1\nmanifest: {'0' * 64}\nbase: {base}\n")
    with pytest.raises(LockError, match=r"base\.image"):
        load_lock(path)


def test_an_image_with_another_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = base_of(tools(tmp_path, Registry(), monkeypatch, EMPTY))
    with pytest.raises(LockMismatch, match="gives the layer") as caught:
        base_of(tools(tmp_path / "new", Registry("forky"), monkeypatch, lock))
    assert "lock --upgrade base" in (caught.value.hint or "")


def test_offline_nothing_is_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    with pytest.raises(OfflineError, match=f"does not hold the image {IMAGE}"):
        base_of(tools(tmp_path, registry, monkeypatch, EMPTY, offline=True))
    assert registry.pulled == []
    registry.here.add(IMAGE)
    assert base_of(tools(tmp_path, registry, monkeypatch, EMPTY, offline=True)).base is not None


@pytest.mark.parametrize("image", ["debian:13", "debian", "debian@sha256:abc", "sha256:" + "A" * 64])
def test_what_may_move_is_no_base(image: str) -> None:
    with pytest.raises(UsageError, match="expected an image by digest"):
        settings_module.load({"MELTREPRO_BASE_IMAGE": image})
    assert settings_module.load({"MELTREPRO_BASE_IMAGE": IMAGE}).base_image == IMAGE
    assert settings_module.load({"MELTREPRO_BASE_IMAGE": ""}).base_image is None
