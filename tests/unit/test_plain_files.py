"""Files that others chose: opened as plain files or not at all, brought from devices as plain ones, and always removable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meltrepro import untrusted
from meltrepro.atomic import remove
from meltrepro.errors import RecordError, SourceError
from meltrepro.record.study import read_study
from meltrepro.record.writer import clear_strangers
from meltrepro.report.files import campaigns_of, compare_report, holds_report
from meltrepro.targets.remote.jobs import Job
from meltrepro.targets.remote.shell import Shell
from tests.support.links import LocalLink

pytestmark = pytest.mark.timeout(60)


def odd_things(folder: Path) -> dict[str, Path]:
    """Something of each kind that is no plain file."""
    (folder / "victim").write_text("precious")
    (folder / "link").symlink_to("victim")
    (folder / "nowhere").symlink_to("none")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    return {name: folder / name for name in ("link", "nowhere", "folder", "pipe")}


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    for name, path in odd_things(tmp_path).items():
        with pytest.raises(untrusted.NotPlain, match="expected a plain file"):
            untrusted.read(path)
        with pytest.raises(RecordError, match=name):
            untrusted.require(path)
    assert untrusted.read(tmp_path / "victim") == b"precious"
    with pytest.raises(untrusted.NotPlain, match="device"):
        untrusted.read(Path("/dev/zero"))
    with pytest.raises(FileNotFoundError):
        untrusted.read(tmp_path / "none")
    for name in ("a\0b", "\ud800"):
        with pytest.raises(untrusted.NotPlain, match="no file has such a name"):
            untrusted.read(tmp_path / name)


def test_no_file_is_endless(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert untrusted.read(path, 5) == b"12345"
    with pytest.raises(untrusted.NotPlain, match="it has 5 bytes, at most 4 expected"):
        untrusted.read(path, 4)


def test_reports_and_studies_are_read_as_plain_files(tmp_path: Path) -> None:
    for name, path in odd_things(tmp_path).items():
        folder = tmp_path / f"report of {name}"
        folder.mkdir()
        path.rename(folder / "report.json")
        assert holds_report(folder)
        with pytest.raises(SourceError, match="expected a plain file"):
            campaigns_of(folder)
        with pytest.raises(SourceError, match="expected a plain file"):
            compare_report(folder, {"report.json": b"precious"})
        with pytest.raises(RecordError, match="expected a plain file"):
            read_study(folder / "report.json")


def test_a_device_hands_over_plain_files_alone(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    job = Job(Shell(LocalLink(tmp_path)), str(there))
    for name in odd_things(there):
        with pytest.raises(untrusted.Tampered, match=name):
            job.fetch(name, here / name)
    assert job.fetch("victim", here / "victim")
    assert (here / "victim").read_text() == "precious"
    assert not job.fetch("none", here / "none")
    (there / "endless").touch()
    os.truncate(there / "endless", 1 << 40)
    assert job.fetch("endless", here / "endless")
    assert (here / "endless").stat().st_size == untrusted.WHOLE + 1, "enough to be refused"
    assert sorted(path.name for path in here.iterdir()) == ["endless", "victim"]


def test_a_tree_of_any_depth_can_be_removed(tmp_path: Path) -> None:
    top, here = tmp_path / "top", Path.cwd()
    top.mkdir()
    (top / "x").mkdir()
    (top / "x/link").symlink_to(tmp_path)
    os.chdir(top)
    try:
        for _ in range(3000):
            os.mkdir("a folder with a name")
            os.chdir("a folder with a name")
        Path("file").touch()
    finally:
        os.chdir(here)
    remove(top)
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_may_write_what_is_kept_of_a_trial(tmp_path: Path) -> None:
    for name in ("events.jsonl", "stdout.log"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o666)
    tmp_path.chmod(0)
    assert clear_strangers(tmp_path) is None
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}
