"""What `verify` says of two artifacts that should be the same: with diffoscope, and without it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meltrepro.replay.verify import explain
from meltrepro.store.archive import pack_tree
from meltrepro.store.cas import Store

pytestmark = pytest.mark.integration


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def bundle(store: Store, folder: Path, program: bytes, notes: str = "same") -> str:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "tool").write_bytes(program)
    (folder / "bin" / "tool").chmod(0o755)
    (folder / "notes.txt").write_text(notes)
    pack_tree(folder, folder.with_suffix(".tar"), prefix="bundle")
    return store.put_file(folder.with_suffix(".tar"), move=True)


@pytest.fixture
def program() -> bytes:
    """A real program, for a real section."""
    return Path(shutil.which("true") or "/bin/true").read_bytes()


@pytest.fixture
def without_diffoscope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_diffoscope_names_the_file_and_the_section(store: Store, program: bytes, tmp_path: Path) -> None:
    assert shutil.which("diffoscope"), "this test needs diffoscope: meltrepro doctor --fix --tests"
    at = program.index(b"\0", 0x1000)
    changed = program[:at] + b"\1" + program[at + 1 :]
    first, second = bundle(store, tmp_path / "a", program), bundle(store, tmp_path / "b", changed)
    text = explain(store, first, second)
    assert "bundle/bin/tool" in text
    assert "notes.txt" not in text


@pytest.mark.usefixtures("without_diffoscope")
def test_without_it_the_first_byte_is_named(store: Store, program: bytes, tmp_path: Path) -> None:
    changed = program[:1000] + bytes([program[1000] ^ 1]) + program[1001:]
    first, second = bundle(store, tmp_path / "a", program), bundle(store, tmp_path / "b", changed)
    text = explain(store, first, second)
    assert "first differing file: bundle/bin/tool, at byte 1000" in text
    assert "install diffoscope" in text


@pytest.mark.usefixtures("without_diffoscope")
def test_models_and_missing_files(store: Store, tmp_path: Path) -> None:
    models = []
    for name, content in (("a", b"GGUF" + bytes(2000)), ("b", b"GGUF" + bytes(1999) + b"\1")):
        (tmp_path / name).write_bytes(content)
        models.append(store.put_file(tmp_path / name))
    assert "the artifact itself, at byte 2003" in explain(store, *models)
    first = bundle(store, tmp_path / "one", b"x")
    assert "not in the store" in explain(store, "0" * 64, first)
