"""Files by a service that may fall silent, break off or lie: no half file has its name, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from meltrepro.build.model import Artifact
from meltrepro.errors import StoreError, TargetError, TargetLost
from meltrepro.targets.ios import cache
from meltrepro.targets.ios.files import PIECE, Files
from meltrepro.targets.ios.loop import Loop, Silent
from meltrepro.untrusted import Tampered

T = TypeVar("T")
CONTENT = os.urandom(3 * PIECE + 1234)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NotThere = type("AfcFileNotFoundError", (OSError,), {"status": 8})


@dataclass
class FakeAfc:
    """A file service over a folder, which does wrong what it is told to."""

    root: Path
    breaks_at: int | None = None
    """Number of the message (from 0) at which the connection is lost."""
    hangs_at: int | None = None
    free: int | None = None
    damage: Callable[[bytes], bytes] = lambda data: data
    """What becomes of what is written."""
    messages: list[str] = field(default_factory=list)
    _open: dict[int, Any] = field(default_factory=dict)

    async def _message(self, what: str) -> None:
        number = len(self.messages)
        self.messages.append(what)
        if self.breaks_at is not None and number >= self.breaks_at:
            raise ConnectionResetError("the link is cut")
        if number == self.hangs_at:
            await asyncio.sleep(3600)

    async def fopen(self, filename: str, mode: str = "r") -> int:
        await self._message(f"open {mode}")
        self._open[len(self._open) + 1] = (self.root / filename).open(
            {"r": "rb", "w": "wb", "a": "ab"}[mode], buffering=0
        )
        return len(self._open)

    async def fclose(self, handle: int) -> None:
        await self._message("close")
        self._open[handle].close()

    async def fread(self, handle: int, sz: int) -> bytes:
        await self._message("read")
        data: bytes = self._open[handle].read(sz)
        return data

    async def fwrite(self, handle: int, data: bytes) -> None:
        half = len(data) // 2
        self._open[handle].write(self.damage(data[:half]))  # what is lost may have arrived in part
        await self._message("write")
        self._open[handle].write(self.damage(data[half:]))

    async def stat(self, filename: str) -> dict[str, Any]:
        await self._message("stat")
        path = self.root / filename.lstrip("/")
        if not path.exists():
            raise NotThere("not there")
        found = path.stat()
        changed = datetime.datetime.fromtimestamp(found.st_mtime_ns / 1e9)
        return {"st_size": found.st_size, "st_mtime": changed, "st_ifmt": "S_IFDIR" if path.is_dir() else "S_IFREG"}

    async def listdir(self, filename: str) -> list[str]:
        await self._message("list")
        return sorted(path.name for path in (self.root / filename.lstrip("/")).iterdir())

    async def makedirs(self, filename: str) -> None:
        await self._message("make")
        (self.root / filename).mkdir(parents=True, exist_ok=True)

    async def rename(self, source: str, target: str) -> None:
        await self._message("rename")
        (self.root / source).rename(self.root / target)

    async def rm_single(self, filename: str, force: bool = False) -> bool:
        await self._message("remove")
        path = self.root / filename
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        return True

    async def get_device_info(self) -> dict[str, str]:
        await self._message("info")
        return {} if self.free is None else {"FSFreeBytes": str(self.free)}


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    path.write_bytes(CONTENT)
    (tmp_path / "phone").mkdir()
    return path


def files(loop: Loop, afc: FakeAfc, limit_s: float = 5) -> Files:
    """The files of a fake, each message with a deadline."""

    def ask(action: Callable[[], Coroutine[Any, Any, T]], what: str) -> T:
        try:
            return loop.run(action(), limit_s)
        except Silent:
            raise TargetLost(f"{what}: silent") from None
        except ConnectionResetError as error:
            raise TargetLost(f"{what}: lost") from error

    return Files(afc, ask, "iPhone")


def test_a_file_arrives(loop: Loop, local: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    files(loop, FakeAfc(tmp_path / "phone")).push(local, "file", DIGEST, lambda done, size: told.append((done, size)))
    assert (tmp_path / "phone" / "file").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "phone").iterdir()] == ["file"]
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_link_that_is_lost_at_any_message(loop: Loop, local: Path, tmp_path: Path) -> None:
    whole = FakeAfc(tmp_path / "phone")
    files(loop, whole).push(local, "file", DIGEST)
    for message in range(len(whole.messages)):
        for path in (tmp_path / "phone").iterdir():
            path.unlink()
        with pytest.raises(TargetLost):
            files(loop, FakeAfc(tmp_path / "phone", breaks_at=message)).push(local, "file", DIGEST)
        assert not (tmp_path / "phone" / "file").exists(), "half a file has no name"
        files(loop, FakeAfc(tmp_path / "phone")).push(local, "file", DIGEST)
        assert (tmp_path / "phone" / "file").read_bytes() == CONTENT


def test_what_has_arrived_is_not_sent_again(loop: Loop, local: Path, tmp_path: Path) -> None:
    (tmp_path / "phone" / "file.part").write_bytes(CONTENT[: 2 * PIECE])
    afc = FakeAfc(tmp_path / "phone")
    files(loop, afc).push(local, "file", DIGEST)
    assert afc.messages.count("write") == 2
    assert "open a" in afc.messages


@pytest.mark.parametrize("part", [b"wrong", os.urandom(PIECE), os.urandom(len(CONTENT) + 1)])
def test_a_part_of_something_else(loop: Loop, local: Path, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "phone" / "file.part").write_bytes(part)
    files(loop, FakeAfc(tmp_path / "phone")).push(local, "file", DIGEST)
    assert (tmp_path / "phone" / "file").read_bytes() == CONTENT


def test_a_service_that_falls_silent_is_asked_nothing_more(loop: Loop, local: Path, tmp_path: Path) -> None:
    """Not even to close the file: the library waits for that answer without end."""
    afc = FakeAfc(tmp_path / "phone", hangs_at=5)
    with pytest.raises(TargetLost, match="silent"):
        files(loop, afc, limit_s=0.2).push(local, "file", DIGEST)
    assert len(afc.messages) == 6


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: bytes(len(data)), lambda data: data + b"x"])
def test_storage_that_lies(loop: Loop, local: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(TargetError, match="other bytes") as caught:
        files(loop, FakeAfc(tmp_path / "phone", damage=damage)).push(local, "file", DIGEST)
    assert type(caught.value) is TargetError
    assert not list((tmp_path / "phone").iterdir())


def test_no_room(loop: Loop, local: Path, tmp_path: Path) -> None:
    afc = FakeAfc(tmp_path / "phone", free=len(CONTENT))
    with pytest.raises(TargetError, match="bytes are free"):
        files(loop, afc).push(local, "file", DIGEST)
    assert "open w" not in afc.messages, "nothing is begun"


def test_a_small_file_that_is_cut_short(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="4 bytes were sent, 2 are there"):
        files(loop, FakeAfc(tmp_path, damage=lambda data: data[:-1])).write("small", b"data")
    assert not (tmp_path / "small").exists()


def test_a_file_that_ends_early_or_is_too_large(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"data")
    there = files(loop, FakeAfc(tmp_path))
    with pytest.raises(TargetError, match="at most 3"):
        there.read("small", 3)
    assert there.read("small", 4) == b"data"
    assert there.read("none") is None
    lying = FakeAfc(tmp_path)
    real = lying.stat

    async def stat(filename: str) -> dict[str, Any]:
        return {**await real(filename), "st_size": 400}

    lying.stat = stat  # type: ignore[method-assign]
    with pytest.raises(TargetError, match="before its end"):
        files(loop, lying).read("small")


def test_no_link_on_a_phone_is_followed(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"data")
    linked = FakeAfc(tmp_path)
    real = linked.stat

    async def stat(filename: str) -> dict[str, Any]:
        return {**await real(filename), "st_ifmt": "S_IFLNK"}

    linked.stat = stat  # type: ignore[method-assign]
    with pytest.raises(Tampered, match="small on"):
        files(loop, linked).fetch("small", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_record_that_cannot_be_written(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"data")
    with pytest.raises(StoreError, match="record"):
        files(loop, FakeAfc(tmp_path)).fetch("small", tmp_path / "none" / "small")
    assert not files(loop, FakeAfc(tmp_path)).fetch("none", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_names_that_lead_elsewhere_are_left_out(loop: Loop, tmp_path: Path) -> None:
    afc = FakeAfc(tmp_path)

    async def listdir(filename: str) -> list[str]:
        return ["good", "../bad", "/etc/passwd", "..", ".", "a/b", ""]

    afc.listdir = listdir  # type: ignore[method-assign]
    assert files(loop, afc).names("/") == ["good"]


def model(local: Path) -> Artifact:
    return Artifact("m", "model", DIGEST, DIGEST, local, local, local.stat().st_size)


# -- models ---------------------------------------------------------------------------------------------------------


def test_an_unchanged_model_costs_three_questions(loop: Loop, local: Path, tmp_path: Path) -> None:
    cache.deploy(files(loop, FakeAfc(tmp_path / "phone")), model(local))
    afc = FakeAfc(tmp_path / "phone")
    cache.deploy(files(loop, afc), model(local))
    assert afc.messages == ["stat", "stat", "open r", "read", "close"]


def test_a_model_that_was_touched_is_read_back_and_not_sent(loop: Loop, local: Path, tmp_path: Path) -> None:
    cache.deploy(files(loop, FakeAfc(tmp_path / "phone")), model(local))
    os.utime(tmp_path / "phone" / "cas" / DIGEST)
    afc = FakeAfc(tmp_path / "phone")
    cache.deploy(files(loop, afc), model(local))
    assert afc.messages.count("read") == 1 + 4, "its mark, and the model in pieces"
    assert afc.messages.count("write") == 1, "its mark alone"
    afc = FakeAfc(tmp_path / "phone")
    cache.deploy(files(loop, afc), model(local))
    assert "write" not in afc.messages


@pytest.mark.parametrize("mark", [b"", b"{", b"[]", b'{"size": "x", "changed_us": 1}', b"null"])
def test_a_mark_that_means_nothing(loop: Loop, local: Path, tmp_path: Path, mark: bytes) -> None:
    cache.deploy(files(loop, FakeAfc(tmp_path / "phone")), model(local))
    (tmp_path / "phone" / "cas" / DIGEST).write_bytes(CONTENT[:-1])
    (tmp_path / "phone" / "cas" / f"{DIGEST}.ok").write_bytes(mark)
    cache.deploy(files(loop, FakeAfc(tmp_path / "phone")), model(local))
    assert (tmp_path / "phone" / "cas" / DIGEST).read_bytes() == CONTENT


def test_a_model_that_is_a_folder(loop: Loop, local: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "part").mkdir(parents=True)
    (folder / "part/weights").write_bytes(CONTENT)
    (folder / "config.json").write_text("{}")
    whole = Artifact("m", "model", DIGEST, DIGEST, local, folder, 1)
    cache.deploy(files(loop, FakeAfc(tmp_path / "phone")), whole)
    there = tmp_path / "phone" / "cas" / DIGEST
    assert {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()} == {
        "config.json",
        "part/weights",
    }
    assert (there / "part/weights").read_bytes() == CONTENT
    (there / "part/weights").write_bytes(CONTENT[:-1])
    afc = FakeAfc(tmp_path / "phone")
    cache.deploy(files(loop, afc), whole)
    assert (there / "part/weights").read_bytes() == CONTENT, "what was changed is sent again"
    assert cache.clean(files(loop, afc)) >= len(CONTENT) + 2
    assert list((tmp_path / "phone/cas").iterdir()) == []
