"""The store: files by the sha256 of their content, results of actions as small JSON files beside them.

    objects/<2>/<62>        the files, read-only
    verified/<2>/<62>       what an object looked like when it was last hashed; its own time is the last use
    refs/<kind>/<key>.json  results of actions; what they name, `gc` keeps
    scopes/<sha256>/        the same refs for work on one recorded campaign, named by its lock (`Store.scoped`)
    unpacked/<digest>/      tars as folders, with a list of their files beside
    partial/  tmp/  quarantine/  locks/

Any number of processes may use one store. Everything appears by a rename, whole or not at all.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import io
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pydantic import BaseModel

from meltrepro.atomic import (
    HashingWriter,
    make_folder,
    reading,
    reason_of,
    remove,
    require_free,
    store_error,
    sync_folder,
    write_bytes,
    writing,
)
from meltrepro.errors import CorruptStore, DigestMismatch, SourceError, StoreError
from meltrepro.interrupts import held
from meltrepro.manifest.base import Bytes, Label, Sha256
from meltrepro.store import archive
from meltrepro.store.locks import UseLock, exclusive
from meltrepro.untrusted import as_model, load_json, read_regular

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
_MOST_OF_REF = 64 << 20
_TOUCH_NS = 60 * 10**9
"""How exact the time of last use is: finer would mean a write for every read."""


class _Result(BaseModel):
    digest: Sha256
    name: Label = ""


class _File(_Result):
    size: Bytes = 0


class _Failure(BaseModel):
    reason: str
    log: str


class _Packages(BaseModel):
    packages: list[tuple[Label, Label, Label, Sha256]]
    """Name, version, architecture, digest."""


class _Texts(BaseModel):
    files: dict[str, str]


class _Root(BaseModel):
    path: str


_REFS: Mapping[str, type[BaseModel]] = {
    "artifacts": _Result,
    "base": _Packages,
    "base-layer": _Result,
    "executed": _Texts,
    "failures": _Failure,
    "files": _File,
    "interpreter": _Packages,
    "roots": _Root,
    "toolchain": _Result,
}
"""What the files under `refs/` hold, by kind: whoever looks one up may take it at its word. Of other kinds every mapping is
fine; who looks up a pin reads it with its own model."""


class Store:
    """A content-addressed store below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._scope: Path | None = None
        self._unscoped: Store | None = None
        self._use = UseLock(root / "locks" / "store.lock")
        if root.is_dir():
            self._use.share()

    def scoped(self, lock: Path) -> Store:
        """The store for work on a recorded campaign, which may be a stranger's, by the file of its lock: see `scoped_to`.

        Raises `StoreError` where the lock cannot be read.
        """
        try:
            return self.scoped_to(hashlib.sha256(lock.read_bytes()).hexdigest())
        except OSError as error:
            raise StoreError(f"{lock}: cannot be read: {reason_of(error)}") from error

    def scoped_to(self, digest: str) -> Store:
        """The store for work that rests on what a stranger may have made, known by a digest.

        Objects are the same, for nobody can replace one. Refs are read in the scope first and then among one's own, and
        written in the scope alone: what a stranger says, and whatever is built on it, is believed nowhere else. The
        scope's name is a digest, so that nobody gets into another campaign's by its id; `gc` removes it when no registered
        lock has that digest or names it.
        """
        scope = copy.copy(self)
        scope._scope, scope._unscoped = self.root / "scopes" / digest, self.own
        return scope

    @property
    def own(self) -> Store:
        """The store without any scope: what this machine found out and made by itself."""
        return self._unscoped or self

    @property
    def place(self) -> Path:
        """Where refs, build logs and compiler caches are written: a scope has a folder for its own."""
        return self._scope or self.root

    # -- objects --------------------------------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        """Where an object is, or would be. Raises `StoreError` for what is no sha256."""
        if not _DIGEST.fullmatch(digest):
            raise StoreError(f"{digest!r} is not a sha256 digest")
        return self.root / "objects" / digest[:2] / digest[2:]

    def has(self, digest: str) -> bool:
        """Whether the object is here; says nothing of its content."""
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Bytes of an object that is here."""
        return self.path(digest).stat().st_size

    def put_bytes(self, content: bytes) -> str:
        """Store some bytes; returns their sha256. Raises `StoreError`."""
        with self.writer(needed=len(content)) as writer:
            writer.write(content)
        return writer.digest

    def put_file(
        self, path: Path, *, move: bool = False, expected: str | None = None, subject: str | None = None
    ) -> str:
        """Store a copy of a file, or with `move` the file itself; returns its sha256.

        `subject` is what to call it in messages, where its path says nothing. Raises `SourceError` where it cannot be
        read, `DigestMismatch` where it is not `expected` (nothing is stored then, and a file to be moved stays), and
        `StoreError`.
        """
        with reading(path):
            info = path.stat()
            if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever, a device has no end
                raise SourceError(f"{path}: not a regular file")
            source = path.open("rb")
        with source:
            if move and info.st_nlink == 1 and not path.is_symlink():
                with reading(path):
                    digest = hashlib.file_digest(source, "sha256").hexdigest()
                _expect(digest, expected, subject or str(path))
                try:
                    os.fsync(source.fileno())
                    self._install(path, digest)
                    return digest
                except OSError as error:
                    if error.errno != errno.EXDEV:  # another disk or mount: copy after all
                        raise store_error(error, path) from error
                    source.seek(0)
            require_free(self.root, info.st_size)
            with self.writer(expected=expected, needed=info.st_size, subject=subject or str(path)) as writer:
                block = bytearray(_CHUNK)
                while count := _read_into(source, block, path):
                    writer.write(memoryview(block)[:count])
        if move:
            with writing(path):
                path.unlink(missing_ok=True)
        return writer.digest

    @contextmanager
    def writer(
        self, *, expected: str | None = None, needed: int | None = None, subject: str = "content"
    ) -> Iterator[HashingWriter]:
        """Write an object piece by piece; it is in the store when the block ends without an error.

        `needed` is the size in bytes, for the message on a full disk. Raises `StoreError`, and `DigestMismatch`
        where the bytes are not `expected`.
        """
        folder = self._folder("tmp")
        with writing(folder, needed):
            descriptor, name = tempfile.mkstemp(dir=folder)
        temporary = Path(name)
        try:
            with io.FileIO(descriptor, "wb") as raw:
                writer = HashingWriter(raw, temporary, needed)
                yield writer
                _expect(writer.digest, expected, subject)
                with writing(temporary, needed):
                    os.fsync(raw.fileno())
            with writing(self.path(writer.digest)):
                self._install(temporary, writer.digest)
        finally:
            temporary.unlink(missing_ok=True)

    def verify(self, digest: str, *, full: bool = False) -> Path:
        """The path of an object whose bytes match its name.

        An object that has not been touched since it was last hashed is not hashed again, unless `full`. Raises
        `StoreError` where there is none, and `CorruptStore` for one that was changed, after setting it aside.
        """
        path = self.path(digest)
        try:
            if not full and self._untouched(digest):
                return path
            with path.open("rb") as file:
                before = _fingerprint(os.fstat(file.fileno()))
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise StoreError(
                f"the store {self.root} does not hold {digest}",
                hint="run the command again: what is missing is fetched",
            ) from error
        except OSError as error:
            raise CorruptStore(
                f"{path}: cannot be read: {reason_of(error)}", hint="check that disk and its permissions"
            ) from error
        if actual != digest:
            aside = self._set_aside(path, f"{digest}-is-{actual[:16]}")
            raise CorruptStore(
                f"object {digest} in the store was changed: its sha256 is now {actual}; {aside}",
                hint="run the command again: the object is fetched or built anew",
            )
        self._remember(digest, before)
        return path

    # -- results of actions ---------------------------------------------------------------------------------------

    def get_ref(self, kind: str, key: str) -> dict[str, Any] | None:
        """The value under a key, or `None`. Raises `CorruptStore` for one that is damaged, after setting it aside."""
        path = self._ref(kind, key)
        if self.own is not self and not path.exists():
            return self.own.get_ref(kind, key)
        try:
            value = checked_ref(kind, load_json(read_regular(path, _MOST_OF_REF)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {reason_of(error)}") from error
        except ValueError as error:
            raise CorruptStore(
                f"{path} is damaged: {error}; {self._set_aside(path, f'{kind}-{path.name}')}",
                hint="run the command again: what it said is found out anew",
            ) from error
        _touch(path)
        return value

    def result(self, kind: str, key: str) -> str | None:
        """The digest that a ref names, where the object is here too; raises what `get_ref` does."""
        ref = self.get_ref(kind, key)
        return str(ref["digest"]) if ref is not None and self.has(ref["digest"]) else None

    def put_ref(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Set the value under a key. Raises `StoreError`."""
        self._use_folder()
        write_bytes(self._ref(kind, key), json.dumps(value, sort_keys=True, indent=1).encode() + b"\n")

    def drop_ref(self, kind: str, key: str) -> None:
        """Forget the value under a key, if there is one. Raises `StoreError`."""
        remove(self._ref(kind, key))

    def list_refs(self, kind: str) -> dict[str, dict[str, Any]]:
        """Every value of a kind by its key, ordered by key."""
        places = {self.place, self.own.place}
        keys = {
            unquote(path.stem) for place in places for path in (place / "refs" / quote(kind, safe="")).glob("*.json")
        }
        values = {key: self.get_ref(kind, key) for key in sorted(keys)}
        return {key: value for key, value in values.items() if value is not None}

    def add_root(self, path: Path) -> None:
        """Make `gc` keep every object whose digest stands in a text file (a lock), for as long as that file exists."""
        path = path.absolute()
        key = hashlib.sha256(os.fsencode(path)).hexdigest()
        if self.own.get_ref("roots", key) is None:
            self.own.put_ref("roots", key, {"path": str(path)})

    # -- trees ----------------------------------------------------------------------------------------------------

    def unpack(self, digest: str) -> Path:
        """The read-only folder that a tar object holds; unpacked anew where anything in it was touched.

        Raises what `verify` and `archive.unpack_tree` raise.
        """
        folder = self.root / "unpacked" / digest
        listing = folder.with_suffix(".json")
        if _matches(folder, listing):
            return folder
        with self.lock(f"unpack-{digest}"):
            if _matches(folder, listing):
                return folder
            tar = self.verify(digest)
            require_free(self.root, tar.stat().st_size)
            self._folder("unpacked")
            with self.scratch() as scratch:
                archive.unpack_tree(tar, scratch / "tree", f"object {digest}")
                remove(folder)
                with writing(folder):
                    (scratch / "tree").rename(folder)
                    folder.chmod(0o555)
            write_bytes(listing, json.dumps(archive.tree_state(folder)).encode())
        return folder

    # -- places and locks -----------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold a key alone among all processes and threads; after a second, `on_wait` is told who else holds it."""
        self._use_folder()
        name = quote(key, safe="")
        if len(name) > 200:
            name = hashlib.sha256(key.encode()).hexdigest()
        with exclusive(self.root / "locks" / f"{name}.lock", key, on_wait):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the whole store alone; raises `StoreError` where another process uses it."""
        self._use_folder()
        with self._use.alone():
            yield

    def release(self) -> None:
        """Let cleaners in until this store is next written to."""
        self._use.release()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary folder on the store's own disk, so that finished files move in. Raises `StoreError`."""
        parent = self._folder("tmp")
        folder: Path | None = None
        try:
            with writing(parent), held():  # an interrupt between making and remembering would leave it behind
                folder = Path(tempfile.mkdtemp(dir=parent))
            yield folder
        finally:
            with held():
                if folder is not None:
                    remove(folder)

    def partial(self, key: str) -> Path:
        """Where an unfinished download is kept."""
        return self._folder("partial") / f"{key}.part"

    def last_used_ns(self, digest: str) -> int:
        """When an object was last put or verified, in nanoseconds since 1970; 0 where that is not known."""
        try:
            return self._record(digest).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def delete(self, digest: str) -> None:
        """Remove an object. Raises `StoreError`."""
        remove(self._record(digest))
        remove(self.path(digest))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _use_folder(self) -> None:
        make_folder(self.root / "locks")
        self._use.share()

    def _folder(self, name: str) -> Path:
        self._use_folder()
        make_folder(self.root / name)
        return self.root / name

    def _ref(self, kind: str, key: str) -> Path:
        return self.place / "refs" / quote(kind, safe="") / f"{quote(key, safe='')}.json"

    def _record(self, digest: str) -> Path:
        return self.root / "verified" / digest[:2] / digest[2:]

    def _install(self, file: Path, digest: str) -> None:
        """Rename a finished file into place; an object that is there and changed is replaced, and so healed."""
        target = self.path(digest)
        self._folder(f"objects/{digest[:2]}")
        if self._untouched(digest):
            file.unlink()
            return
        file.chmod(0o444)
        file.replace(target)
        sync_folder(target.parent)
        self._remember(digest, _fingerprint(target.stat()))

    def _untouched(self, digest: str) -> bool:
        record = self._record(digest)
        try:
            remembered = record.read_bytes()
            untouched = remembered == _fingerprint(self.path(digest).stat())
        except FileNotFoundError:
            return False
        if untouched:
            _touch(record)
        return untouched

    def _remember(self, digest: str, fingerprint: bytes) -> None:
        with suppress(StoreError):  # without the record, an object is merely hashed again
            write_bytes(self._record(digest), fingerprint, durable=False)

    def _set_aside(self, path: Path, name: str) -> str:
        """Move something damaged out of the way; says where to."""
        try:
            aside = self._folder("quarantine") / f"{name}-{time.time_ns()}"
            path.rename(aside)
        except (OSError, StoreError) as error:
            return f"it could not be set aside ({error}): remove {path}"
        return f"it was set aside as {aside}"


def checked_ref(kind: str, value: object) -> dict[str, Any]:
    """The value of a ref; raises `ValueError` where it is not what refs of its kind hold."""
    if not isinstance(value, dict):
        raise ValueError("expected a mapping")
    if kind in _REFS:
        as_model(_REFS[kind], value)
    return value


def _fingerprint(info: os.stat_result) -> bytes:
    """What changes when a file is written to, whoever sets its times back afterwards."""
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}".encode()


def _matches(folder: Path, listing: Path) -> bool:
    try:
        return bool(load_json(listing.read_bytes()) == archive.tree_state(folder)) and folder.is_dir()
    except (OSError, ValueError):
        return False


def _touch(path: Path) -> None:
    """Note a use in a file's time."""
    with suppress(OSError):  # somebody else's store, or read-only: it cannot be cleaned by us either
        if time.time_ns() - path.stat().st_mtime_ns > _TOUCH_NS:
            os.utime(path)


def _expect(actual: str, expected: str | None, subject: str) -> None:
    if expected is not None and actual != expected:
        raise DigestMismatch(
            f"{subject}: expected sha256 {expected}, got {actual}",
            hint="the source changed, or the pin is of something else; if the new bytes are wanted, pin them",
        )


def _read_into(source: io.BufferedReader, block: bytearray, path: Path) -> int:
    with reading(path):
        return source.readinto(block)
