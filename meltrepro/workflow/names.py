"""Repositories that a manifest names without a commit, or with a name for one: which commit it is, by the lock or by the repository.

All that comes later sees the commit alone: plans, artifacts, records and bundles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar, cast

from pydantic import BaseModel

from meltrepro.build.pins import Pins
from meltrepro.errors import DownloadError, LockError, OfflineError
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.manifest.lock import Lock, LockedName
from meltrepro.manifest.sources import GitSource, HuggingFaceSource
from meltrepro.store.source import key_of

T = TypeVar("T")
Repository = HuggingFaceSource | GitSource


def known(loaded: LoadedManifest, names: Mapping[str, LockedName]) -> LoadedManifest:
    """The manifest with the commits that a lock has, and the licences of their models; others are still to be found out."""

    def commit(source: Repository) -> Repository:
        found = names.get(repository(source)) if _is_open(source) else None
        if found is None:
            return source
        key = "commit" if isinstance(source, GitSource) else "revision"
        return source.model_copy(update={key: found.revision})

    manifest = _changed(loaded.manifest, commit)
    licences = {
        name: names[key].licence
        for name, model in loaded.manifest.models.items()
        for source in _open(model.source)  # an adapter has its own
        if model.licence is None and (key := repository(source)) in names
    }
    models = {
        name: model.model_copy(update={"licence": licences[name]}) if name in licences else model
        for name, model in manifest.models.items()
    }
    return replace(loaded, manifest=manifest.model_copy(update={"models": models}))


def found(loaded: LoadedManifest, pins: Pins, *, needed: bool) -> LoadedManifest:
    """The manifest with all commits: what the lock does not have is asked for, and put into the lock.

    Raises `SourceError` and its kin, and `LockError` where the lock may not change. Unless they are `needed`, what cannot
    be asked for now stays open.
    """
    for source in _open(loaded.manifest):
        name = repository(source)
        if pins.frozen:
            raise LockError(f"the lock has no entry for {name}", hint="write it with: meltrepro lock SPEC")
        try:
            newest = pins.fetcher.newest(source, pins.base_dir)
        except (OfflineError, DownloadError):
            if needed:
                raise
            continue
        pins.set(names={**pins.lock.names, name: pins.lock.names.get(name) or newest})
    return known(loaded, pins.lock.names)


def without(lock: Lock, loaded: LoadedManifest, upgraded: Collection[str], *, moving: bool) -> Lock:
    """The lock without the commits of these models, frameworks or repositories, which are to be found out anew.

    With `moving` also without those of this machine's own repositories, of which a lock has yesterday's word, and those that
    the manifest no longer names.
    """
    parts = {**loaded.manifest.models, **loaded.manifest.frameworks}
    moved = {repository(source) for name in upgraded if name in parts for source in _open(parts[name])}.union(upgraded)
    names = lock.names
    if moving:
        there = {repository(source): source for source in _open(loaded.manifest)}
        moved |= {name for name, source in there.items() if isinstance(source, GitSource) and source.here}
        names = {name: each for name, each in names.items() if name in there}
    return lock.model_copy(update={"names": {name: each for name, each in names.items() if name not in moved}})


def repository(source: Repository) -> str:
    """What a lock calls a repository, or a name in one."""
    if isinstance(source, GitSource):
        return key_of(source)
    return key_of(source.model_copy(update={"revision": None, "file": None}))


def _is_open(source: Repository) -> bool:
    return source.named if isinstance(source, GitSource) else source.revision is None


def _open(value: object) -> Iterator[Repository]:
    """Every source in a part of a manifest that names no commit."""
    seen: list[Repository] = []

    def note(source: Repository) -> Repository:
        seen.append(source)
        return source

    _changed(value, note)
    return filter(_is_open, seen)


def _changed(value: T, change: Callable[[Repository], Repository]) -> T:
    """A part of a manifest with its repositories changed; the same value where none of them is another."""
    new: object = value
    if isinstance(value, Repository):
        new = change(value)
    elif isinstance(value, BaseModel):
        fields = {name: (each, _changed(each, change)) for name, each in value}
        moved = {name: after for name, (before, after) in fields.items() if after is not before}
        new = value.model_copy(update=moved) if moved else value
    elif isinstance(value, dict):
        entries = {name: _changed(each, change) for name, each in value.items()}
        new = entries if any(entries[name] is not each for name, each in value.items()) else value
    return cast("T", new)
