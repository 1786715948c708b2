"""A device's small files as a tree here."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import TargetError
from meltrepro.targets.remote import procfs as linux
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.remote.snapshot import snapshot, unpack
from tests.support.links import LocalLink

SLASHES = "C:\\new\\temp \\0101 \\c gone\n-n\n"
"""Shells whose `echo` knows escapes would make something else of it."""


def test_this_machine_seen_from_afar_is_this_machine() -> None:
    with snapshot(Shell(LocalLink(Path("/")))) as tree:
        assert linux.cpu(tree) == linux.cpu(Path("/"))
        assert linux.memory(tree)["MemTotal"] == linux.memory(Path("/"))["MemTotal"]
        assert linux.read(tree / "proc/sys/kernel/random/boot_id") == linux.read(
            Path("/proc/sys/kernel/random/boot_id")
        )


def test_files_keep_what_is_in_them(tmp_path: Path) -> None:
    for name, text in {"one": "a  b\n\n=c\n@/d\n", "two": "no end", "three": "", "four": SLASHES}.items():
        (tmp_path / name).write_text(text)
    with snapshot(Shell(LocalLink(tmp_path)), [f"{tmp_path}/*"]) as tree:
        below = tree / tmp_path.relative_to("/")
        assert (below / "one").read_text() == "a  b\n\n=c\n@/d\n"
        assert (below / "two").read_text() == "no end\n"
        assert (below / "three").read_text() == "\n"
        assert (below / "four").read_text() == SLASHES


@pytest.mark.parametrize(
    "answer", ["@/../etc/passwd\n=x", "@/a/../../b\n=x", "nonsense", "=too early", "@relative\n=x"]
)
def test_answers_that_nobody_asked_for(answer: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError):
        unpack(answer, tmp_path)
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=200))
def test_no_answer_writes_outside(tmp_path_factory: pytest.TempPathFactory, answer: str) -> None:
    outside = tmp_path_factory.mktemp("outside")
    root = outside / "root"
    root.mkdir()
    with contextlib.suppress(TargetError):
        unpack(answer, root)
    assert [path.name for path in outside.iterdir()] == ["root"]
