"""Where somebody begins: an empty folder with a model, and a hub that has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkpoints import write_llama
from tests.support.ggufs import whole
from tests.support.hub import Hub, serve

COMMIT = "c0ffee0000" * 4


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's with a model in it, and a program that has nothing yet."""
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "Tiny Model-Q4_K_M.gguf").write_bytes(whole())
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    made = write_llama(tmp_path / "checkpoint")
    files = {path.name: path.read_bytes() for path in made.iterdir()} | {"q/tiny-f16.gguf": whole()}
    with serve(Hub("Org/Tiny-Chat", COMMIT, files)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running
