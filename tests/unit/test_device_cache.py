"""The files of a device: whatever breaks, what is there in the end is what was meant, and it is not sent twice."""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path

import pytest

from meltrepro.errors import StoreError, TargetError, TargetLost
from meltrepro.targets.remote.deploy import DeviceCache
from meltrepro.targets.remote.shell import Shell
from tests.support.links import BreakingLink, LocalLink

CONTENT = os.urandom(600_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "there and 'nowhere' else"


def cache(root: Path) -> DeviceCache:
    return DeviceCache(Shell(LocalLink(root.parent)), str(root))


def test_a_file_arrives_and_can_be_run(file: Path, root: Path) -> None:
    told: list[tuple[int, int]] = []
    path = Path(cache(root).deploy(file, DIGEST, lambda done, total: told.append((done, total))))
    assert path == root / "cas" / DIGEST
    assert path.read_bytes() == CONTENT
    assert os.access(path, os.X_OK)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)
    assert cache(root).present([DIGEST, "0" * 64]) == {DIGEST}


def test_what_is_there_is_not_sent_again(file: Path, root: Path) -> None:
    link = LocalLink(root.parent)
    where = DeviceCache(Shell(link), str(root))
    where.deploy(file, DIGEST)
    link.commands.clear()
    where.deploy(file, DIGEST)
    assert len(link.commands) == 1
    assert "sha256sum" not in link.commands[0]


def test_a_transfer_goes_on_where_it_broke_off(file: Path, root: Path) -> None:
    (root / "cas").mkdir(parents=True)
    (root / "cas" / f"{DIGEST}.part").write_bytes(CONTENT[:400_000])
    told: list[int] = []
    path = Path(cache(root).deploy(file, DIGEST, lambda done, total: told.append(done)))
    assert path.read_bytes() == CONTENT
    assert told[0] > 400_000


@pytest.mark.parametrize("part", [CONTENT[:1000] + b"x" * 1000, b"y" * 700_000], ids=["other bytes", "too long"])
def test_a_part_of_something_else_is_noticed(file: Path, root: Path, part: bytes) -> None:
    (root / "cas").mkdir(parents=True)
    (root / "cas" / f"{DIGEST}.part").write_bytes(part)
    assert Path(cache(root).deploy(file, DIGEST)).read_bytes() == CONTENT


def test_a_file_that_was_changed_on_the_device_is_sent_anew(file: Path, root: Path) -> None:
    path = Path(cache(root).deploy(file, DIGEST))
    path.write_bytes(CONTENT[:-1] + b"!")
    assert cache(root).present([DIGEST]) == set()
    assert Path(cache(root).deploy(file, DIGEST)).read_bytes() == CONTENT


def test_a_whole_file_that_was_never_verified_is_verified(file: Path, root: Path) -> None:
    path = Path(cache(root).deploy(file, DIGEST))
    path.with_name(f"{DIGEST}.ok").unlink()
    inode = path.stat().st_ino
    cache(root).deploy(file, DIGEST)
    assert path.stat().st_ino == inode
    assert cache(root).present([DIGEST]) == {DIGEST}


def test_a_device_that_stores_other_bytes(file: Path, root: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(TargetError, match=f"expected sha256 {wrong}, found {DIGEST}"):
        cache(root).deploy(file, wrong)
    assert list((root / "cas").iterdir()) == []


@pytest.mark.parametrize("size", [600_000, 17 << 20], ids=["small", "large"])
@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ('cat >> "$2"', None),
        ("exit 2", None),
        ('head -c 1000 >> "$2"; cat > /dev/null; echo "no room" >&2; exit 1', "cannot write .*: no room"),
        ('head -c 1000 >> "$2"; cat > /dev/null; exit 0', "expected sha256 .*, found"),
        ('LC_ALL=C tr "\\000" "\\001" >> "$2"', "expected sha256 .*, found"),
        ('cat >> "$2"; rm "$2"', "expected sha256 .*, found"),
        ("cat > /dev/null; kill -9 $$", "cannot write .*"),
    ],
    ids=["good", "of an older bundle", "no room", "takes a part", "stores others", "removes it", "is killed"],
)
def test_whatever_an_agent_does_no_other_bytes_are_believed(
    tmp_path: Path, root: Path, size: int, agent: str, said: str | None
) -> None:
    content = os.urandom(size)
    digest = hashlib.sha256(content).hexdigest()
    (local := tmp_path / "local").write_bytes(content)
    (program := tmp_path / "agent").write_text(f"#!/bin/sh\n{agent}\n")
    program.chmod(0o755)
    where = cache(root)
    where.agent = str(program)
    if said is None:
        assert Path(where.deploy(local, digest)).read_bytes() == content
        return
    with pytest.raises(TargetError, match=said):
        where.deploy(local, digest)
    assert where.present([digest]) == set()
    assert not Path(where.path(digest)).exists()


def test_a_device_without_room(file: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meltrepro.targets.remote.deploy._ROOM", 1e12)
    with pytest.raises(TargetError, match=r"has [\d,]+ bytes free; here needs 600,000"):
        cache(root).deploy(file, DIGEST)


def test_a_folder_that_cannot_be_written(file: Path) -> None:
    with pytest.raises(TargetError, match="here: cannot use /proc/nowhere"):
        cache(Path("/proc/nowhere")).deploy(file, DIGEST)


def test_a_file_that_is_not_here(root: Path) -> None:
    with pytest.raises(StoreError, match="cannot read"):
        cache(root).deploy(root / "nonesuch", DIGEST)


@pytest.mark.slow
def test_a_link_that_breaks_at_any_step(file: Path, root: Path) -> None:
    """The next call always goes on, and never leaves anything but the right file or a part of it."""
    for breaks_at in itertools.count():
        link = BreakingLink(LocalLink(root.parent), breaks_at)
        where = DeviceCache(Shell(link), str(root / str(breaks_at)))
        try:
            path = Path(where.deploy(file, DIGEST))
        except TargetLost:
            path = Path(where.deploy(file, DIGEST))
        assert path.read_bytes() == CONTENT
        assert cache(root / str(breaks_at)).present([DIGEST]) == {DIGEST}
        if link.done <= breaks_at:
            break
    assert breaks_at > 30


def test_a_folder_is_links_to_its_files(file: Path, root: Path) -> None:
    where = cache(root)
    where.deploy(file, DIGEST)
    for _ in range(2):
        where.make_folder("f" * 64, {"weights": DIGEST, "part/of it/weights": DIGEST})
    there = Path(where.folder("f" * 64))
    assert (there / "weights").read_bytes() == (there / "part/of it/weights").read_bytes() == CONTENT
    assert where.clean() >= len(CONTENT)
    assert not there.exists()
