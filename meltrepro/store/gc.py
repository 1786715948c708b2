"""Freeing disk space: what in the store nothing refers to, and, when asked for, what has not been used for longest.

What stays: objects that a ref names, and always those that a registered lock file names (`Store.add_root`). Refs of a scope
count as long as such a lock is the scope's. Synthetic weights as they were made never stay: they are the largest files there are, nothing but a quantizer reads them, and a
minute brings them back. The decision is a value of its own, so that a dry run and the deed cannot differ.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meltrepro.atomic import reason_of, remove
from meltrepro.errors import StoreError
from meltrepro.store.cas import Store, checked_ref
from meltrepro.store.source import is_synthetic
from meltrepro.untrusted import load_json

Kind = Literal["unfinished", "unpacked trees", "build caches", "results", "objects", "synthetic weights"]

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_UNFINISHED = ("partial", "tmp", "scratch", "quarantine")
_SMALL = ("refs", "scopes", "verified", "unpacked")
"""Where small files are written beside the one that they replace."""
_CACHES = ("rootfs", "zig-cache", "logs", "scopes/*/zig-cache", "scopes/*/logs")
_ROOTS = "roots"


@dataclass(frozen=True)
class Policy:
    everything: bool = False
    """Whatever no lock names, build caches included."""
    older_than_s: float | None = None
    """Also results that were not used for so many seconds, with their objects."""
    max_bytes: int | None = None
    """Also the objects that were used longest ago, until the store is no larger."""


@dataclass(frozen=True)
class Removal:
    """One thing to remove; `size` in bytes on the disk."""

    kind: Kind
    path: Path
    size: int
    digest: str | None = None
    """Of an object."""


@dataclass(frozen=True)
class Cleanup:
    """What to remove, in this order, and how many bytes stay."""

    removals: tuple[Removal, ...]
    kept_bytes: int
    locked_bytes: int
    """Of these, what lock files hold on to."""


@dataclass(frozen=True)
class _Ref:
    path: Path
    size: int
    used_ns: int
    digests: frozenset[str]


@dataclass(frozen=True)
class _Object:
    digest: str
    path: Path
    size: int
    used_ns: int


def collect(store: Store, policy: Policy, *, dry_run: bool = False) -> Cleanup:
    """Decide and, unless `dry_run`, remove. Raises `StoreError` where another process uses the store."""
    if not store.root.is_dir():
        return Cleanup((), 0, 0)
    with store.alone():
        decision = decide(store, policy)
        if not dry_run:
            for removal in decision.removals:
                if removal.digest is not None:
                    store.delete(removal.digest)
                else:
                    remove(removal.path)
            for lock in (store.root / "locks").glob("*.lock"):
                if lock.name != "store.lock":
                    remove(lock)  # nobody can hold one now
    return decision


@dataclass(frozen=True)
class Dropped:
    """What became of objects that were to go; sizes in bytes on the disk."""

    freed_bytes: int
    kept: frozenset[str]
    """Digests of those that lock files name."""


def drop(store: Store, digests: Collection[str], apart_from: Collection[Path] = ()) -> Dropped:
    """Remove these objects, however lately they were used, but for what lock files other than `apart_from` name.

    Made-up weights as they were made go whoever names them, as with `collect`. Raises `StoreError` where another process
    uses the store.
    """
    with store.alone():
        locked = _locked(store, apart_from).digests - _synthetic(store)
        here = {digest for digest in digests if store.has(digest)}
        sizes = [store.size(digest) for digest in here - locked]
        for digest in here - locked:
            store.delete(digest)  # a result that names it is one of nothing from now on, and `gc` clears it away
    return Dropped(sum(sizes), frozenset(here & locked))


def decide(store: Store, policy: Policy) -> Cleanup:
    """What `policy` removes from the store as it is now."""
    locks, remade = _locked(store), _synthetic(store)
    scopes = _entries(store.root / "scopes")
    live = [scope for scope in scopes if scope.name in locks.files | locks.digests]
    removals = _leftovers(store)
    removals += [_removal("results", path) for path in (*locks.dead, *(each for each in scopes if each not in live))]
    caches = _caches(store, [removal.path for removal in removals])
    if policy.everything:
        removals += caches
    cached_bytes = 0 if policy.everything else sum(cache.size for cache in caches)

    refs = [ref for folder in (store.root, *live) for ref in _refs(folder / "refs")]
    objects = sorted(_objects(store), key=lambda item: (item.used_ns, item.digest))
    kept = [ref for ref in refs if ref.digests & locks.digests or not _is_old(ref, policy)]
    referenced = locks.digests.union(*(ref.digests for ref in kept)) - remade
    doomed = [item for item in objects if item.digest not in referenced]
    if policy.max_bytes is not None:
        staying = [item for item in objects if item.digest in referenced]
        doomed += _beyond(policy.max_bytes - cached_bytes, staying, locks.digests)
        gone = {item.digest for item in doomed} - remade
        kept = [ref for ref in kept if not (ref.digests & gone) or ref.digests & locks.digests]
    # Results go before the objects that they name: whoever is stopped half-way leaves objects, never a false result.
    removals += [Removal("results", ref.path, ref.size) for ref in refs if ref not in kept]
    removals += [
        Removal("synthetic weights" if item.digest in remade else "objects", item.path, item.size, item.digest)
        for item in doomed
    ]
    gone = {item.digest for item in doomed}
    stays = [item for item in objects if item.digest not in gone]
    return Cleanup(
        removals=tuple(removals),
        kept_bytes=sum(item.size for item in stays) + cached_bytes,
        locked_bytes=sum(item.size for item in stays if item.digest in locks.digests),
    )


def _leftovers(store: Store) -> list[Removal]:
    """What nobody will finish, and trees that can be unpacked again."""
    unfinished = [path for name in _UNFINISHED for path in _entries(store.root / name)]
    unfinished += [path for name in _SMALL for path in (store.root / name).rglob(".*.tmp")]
    unpacked = _entries(store.root / "unpacked")
    return [_removal("unfinished", path) for path in unfinished] + [_removal("unpacked trees", p) for p in unpacked]


def _caches(store: Store, removed: Collection[Path]) -> list[Removal]:
    """Build caches, but for those in what is removed as a whole."""
    folders = [folder for name in _CACHES for folder in sorted(store.root.glob(name))]
    kept = [folder for folder in folders if not any(folder.is_relative_to(path) for path in removed)]
    return [_removal("build caches", path) for folder in kept for path in _entries(folder)]


def _is_old(ref: _Ref, policy: Policy) -> bool:
    """Whether a result goes by its age, be it any."""
    if policy.older_than_s is None:
        return policy.everything
    return policy.everything or ref.used_ns < time.time_ns() - int(policy.older_than_s * 1e9)


def _beyond(most: int, objects: Sequence[_Object], locked: Collection[str]) -> list[_Object]:
    """Those of the objects, in their order, that have to go until the rest have no more than so many bytes."""
    total, found = sum(item.size for item in objects), []
    for item in objects:
        if total > most and item.digest not in locked:
            found.append(item)
            total -= item.size
    return found


@dataclass(frozen=True)
class _Locks:
    digests: frozenset[str]
    """What they name."""
    files: frozenset[str]
    """Their own sha256."""
    dead: tuple[Path, ...]
    """Registrations of files that are gone."""


def _locked(store: Store, apart_from: Collection[Path] = ()) -> _Locks:
    others = {path.resolve() for path in apart_from}
    digests: set[str] = set()
    files: set[str] = set()
    dead = []
    for registration in sorted((store.root / "refs" / _ROOTS).glob("*.json")):
        try:
            lock = Path(checked_ref(_ROOTS, load_json(registration.read_bytes()))["path"])
            is_other = lock.resolve() in others
        except ValueError:  # damaged: it names nothing
            dead.append(registration)
            continue
        if is_other:
            continue
        try:
            content = lock.read_bytes()
            digests |= _digests(content)
            files.add(hashlib.sha256(content).hexdigest())
        except (FileNotFoundError, NotADirectoryError):
            dead.append(registration)
        except OSError as error:
            raise StoreError(
                f"{lock}: cannot be read: {reason_of(error)}; nothing was removed",
                hint="what a lock names is kept, so gc must be able to read it",
            ) from error
    return _Locks(frozenset(digests), frozenset(files), tuple(dead))


def _synthetic(store: Store) -> frozenset[str]:
    """The digests of made-up weights, as far as it is remembered what they are; a scope's word is that of a stranger."""
    digests = set()
    for path in (store.root / "refs" / "pins").glob("*.json"):  # asking the store would count as use
        try:
            pin = load_json(path.read_bytes())
            if is_synthetic(pin["source"]):
                digests.add(str(pin["digest"]))
        except (ValueError, KeyError, TypeError, AttributeError):  # damaged: it names nothing
            continue
    return frozenset(digests)


def _refs(folder: Path) -> Iterator[_Ref]:
    for kind in _entries(folder):
        for path in sorted(kind.glob("*.json")) if kind.name != _ROOTS else ():
            info = path.stat()
            yield _Ref(path, info.st_size, info.st_mtime_ns, _digests(path.read_bytes()))


def _objects(store: Store) -> Iterator[_Object]:
    for folder in _entries(store.root / "objects"):
        for path in _entries(folder):
            digest = folder.name + path.name
            if _DIGEST.fullmatch(digest.encode()):
                yield _Object(digest, path, path.stat().st_size, store.last_used_ns(digest))


def _digests(text: bytes) -> frozenset[str]:
    return frozenset(match.decode() for match in _DIGEST.findall(text))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _removal(kind: Kind, path: Path) -> Removal:
    return Removal(kind, path, _size(path))


def _size(path: Path) -> int:
    total = path.lstat().st_size
    for parent, _, names in os.walk(path):
        total += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)
    return total
