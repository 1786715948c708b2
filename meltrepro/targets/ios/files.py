"""Files on an iPhone by its file service (AFC), with a deadline for each message: nothing waits longer than that.

A file comes under another name (`.part`) and gets its own when it is whole and was read back with the right digest, so
that a connection that is cut never leaves half a file under its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from meltrepro.errors import StoreError, TargetError, TargetLost
from meltrepro.record import trial as record
from meltrepro.targets.base import Progress, arriving, silent
from meltrepro.targets.ios.link import Afc
from meltrepro.untrusted import Tampered, whole_number

T = TypeVar("T")
PIECE = 1 << 20
_ROOM = 1.05
"""Free space asked for, in sizes of the file."""
_TRIES = 2
"""What a part held may be wrong; what was sent whole may not."""
_SMALL = 64 << 20
"""No file that is read into memory is larger."""
_NOT_THERE = "AfcFileNotFoundError"


class Ask(Protocol):
    """Runs one message to its answer; raises `TargetLost`, `TargetError`."""

    def __call__(self, action: Callable[[], Coroutine[Any, Any, T]], what: str) -> T: ...


@dataclass(frozen=True)
class Stat:
    """A file as the phone shows it."""

    size: int
    changed_us: int
    plain: bool = True
    """Whether it is no link and nothing else that leads somewhere."""


class Files:
    """One connection to one file service, below a folder."""

    def __init__(self, afc: Afc, ask: Ask, device: str, root: str = "") -> None:
        self._afc = afc
        self._ask = ask
        self._lost = False
        self._device = device
        self._root = root

    def stat(self, name: str) -> Stat | None:
        """Size and time of a file; `None` where there is none."""
        path = self._path(name)

        async def look() -> Stat | None:
            try:
                found = await self._afc.stat(path)
            except OSError as error:
                if type(error).__name__ != _NOT_THERE:
                    raise
                return None
            return Stat(
                int(found["st_size"]), round(found["st_mtime"].timestamp() * 1e6), found["st_ifmt"] == "S_IFREG"
            )

        return self._say(look, f"look at {name}")

    def names(self, folder: str) -> list[str]:
        """Names in a folder, empty where there is none."""
        if folder != "/" and self.stat(folder) is None:
            return []
        names = self._say(lambda: self._afc.listdir(self._path(folder)), f"list {folder}")
        return [name for name in names if name == posixpath.basename(name) and name.strip(".")]

    def make_folder(self, name: str) -> None:
        """Make a folder and those above it."""
        self._say(lambda: self._awaited(self._afc.makedirs(self._path(name))), f"make {name}")

    def remove(self, name: str) -> None:
        """Remove a file or an empty folder, if it is there."""
        self._say(lambda: self._awaited(self._afc.rm_single(self._path(name), force=True)), f"remove {name}")

    def remove_folder(self, name: str) -> None:
        """Remove a folder with the files in it."""
        for inside in self.names(name):
            self.remove(f"{name}/{inside}")
        self.remove(name)

    def rename(self, name: str, other: str) -> None:
        """Give a file another name, in place of what had it."""
        self.remove(other)
        self._say(lambda: self._afc.rename(self._path(name), self._path(other)), f"rename {name}")

    def free_bytes(self) -> int | None:
        """Free space; `None` where the phone does not say."""
        found = self._say(lambda: self._awaited(self._afc.get_device_info()), "ask for free space")
        return whole_number(str(found.get("FSFreeBytes", "")))

    # -- small files ----------------------------------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """Put a small file there, whole or not at all."""
        part = f"{name}.part"
        handle = self._open(part, "w")
        try:
            self._say(lambda: self._afc.fwrite(handle, data), f"write {name}")
        finally:
            self._close(handle)
        found = self.stat(part)
        if found is None or found.size != len(data):
            raise TargetError(
                f"{self._device}: {name}: {len(data)} bytes were sent, {found.size if found else 0} are there",
                hint="its storage may be full or failing",
            )
        self.rename(part, name)

    def read(self, name: str, most: int = _SMALL) -> bytes | None:
        """A small file's content; `None` where there is none. Raises `TargetError` where it is larger than `most`."""
        found = self.stat(name)
        if found is None:
            return None
        if found.size > most:
            raise TargetError(f"{self._device}: {name} has {found.size:,} bytes, at most {most:,} expected")
        data = bytearray()
        self._pull(name, found.size, data.extend)
        return bytes(data)

    # -- large files ----------------------------------------------------------------------------------------------

    def fetch(self, name: str, local: Path) -> bool:
        """Bring a file of a record here; `False` where there is none. Raises `Tampered` for no plain one, and `StoreError`.

        Of one that is larger than any of a record comes a byte more than may be.
        """
        found = self.stat(name)
        if found is None:
            return False
        if not found.plain:
            raise Tampered(f"{name} on {self._device} is none")
        with arriving(local) as file:
            self._pull(name, min(found.size, record.most_bytes(local.name) + 1), file.write)
        return True

    def push(self, local: Path, name: str, digest: str, progress: Progress = silent) -> None:
        """Bring a file to the phone, going on where an earlier try broke off; verified there by reading it back.

        Raises `TargetLost` (call again to go on), `TargetError` where there is no room or the phone stores other bytes.
        """
        part = f"{name}.part"
        try:
            size = local.stat().st_size
        except OSError as error:
            raise StoreError(f"cannot read {local}: {error.strerror}") from error
        found = ""
        for _ in range(_TRIES):
            there = self.stat(part)
            begin = there.size if there and there.size <= size else 0
            self._require_room(local.name, size - begin)
            self._send(local, part, begin, lambda done: progress(done, size))
            arrived = self.stat(part)
            if arrived is None or arrived.size != size:
                found = f"{arrived.size if arrived else 0:,} of {size:,} bytes"
            else:
                found = self.digest(part)
            if found == digest:
                self.rename(part, name)
                return
            self.remove(part)
            if begin == 0:
                break
        raise TargetError(
            f"{self._device}: stored other bytes than were sent: expected {size:,} bytes, sha256 {digest}, found {found}",
            hint="its storage may be full or failing",
        )

    def digest(self, name: str) -> str:
        """sha256 of a file of the phone, read here: the phone itself offers none."""
        found = self.stat(name)
        if found is None:
            return ""
        sum_ = hashlib.sha256()
        self._pull(name, found.size, sum_.update)
        return sum_.hexdigest()

    # -- parts ----------------------------------------------------------------------------------------------------

    def _require_room(self, name: str, needed: int) -> None:
        free = self.free_bytes()
        if free is not None and free < needed * _ROOM:
            raise TargetError(
                f"{self._device}: {free:,} bytes are free; {name} needs {needed:,}", hint="free space on the phone"
            )

    def _send(self, local: Path, part: str, begin: int, sent: Callable[[int], None]) -> None:
        handle = self._open(part, "a" if begin else "w")
        try:
            with local.open("rb") as file:
                file.seek(begin)
                while data := file.read(PIECE):
                    self._say(lambda data=data: self._afc.fwrite(handle, data), f"write {part}")  # type: ignore[misc]
                    begin += len(data)
                    sent(begin)
        except OSError as error:
            raise StoreError(f"cannot read {local}: {error.strerror}") from error
        finally:
            self._close(handle)

    def _pull(self, name: str, size: int, sink: Callable[[bytes], object]) -> None:
        handle = self._open(name, "r")
        try:
            while size > 0:
                want = min(size, PIECE)
                data = self._say(lambda want=want: self._afc.fread(handle, want), f"read {name}")  # type: ignore[misc]
                if not data or len(data) > want:
                    raise TargetError(f"{self._device}: {name} ends {size:,} bytes before its end")
                sink(data)
                size -= len(data)
        finally:
            self._close(handle)

    def _open(self, name: str, mode: str) -> int:
        return self._say(lambda: self._afc.fopen(self._path(name), mode), f"open {name}")

    def _close(self, handle: int) -> None:
        """After a loss the connection is gone, and with it everything that was open; the answer would never come."""
        if self._lost:
            return
        with contextlib.suppress(TargetError):
            self._say(lambda: self._awaited(self._afc.fclose(handle)), "close a file")

    def _say(self, action: Callable[[], Coroutine[Any, Any, T]], what: str) -> T:
        try:
            return self._ask(action, what)
        except TargetLost:
            self._lost = True
            raise

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name

    @staticmethod
    async def _awaited(action: Any) -> Any:
        return await action
