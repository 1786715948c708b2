"""The lock of one command: whatever pins an input, asks what one is pinned to or records what was built, does it here."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from meltrepro.atomic import write_bytes
from meltrepro.build import base, interpreter
from meltrepro.build.model import Interpreter, Package
from meltrepro.errors import LockError, LockMismatch, OfflineError
from meltrepro.manifest.lock import (
    Lock,
    LockedArtifact,
    LockedInterpreter,
    LockedSource,
    differences,
    dump_lock,
    load_lock,
)
from meltrepro.manifest.sources import FileSource, FolderSource, Source
from meltrepro.record.ids import artifact_id
from meltrepro.steps import Sink, Step
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.store.source import key_of

_SHOWN_ENTRIES = 5


@dataclass
class Pins:
    """The one holder of a lock, which grows as things are pinned and built; the file changes with `save` alone."""

    lock: Lock
    store: Store
    fetcher: Fetcher
    sink: Sink
    base_dir: Path
    """What relative sources count from."""
    frozen: bool = False
    """Refuse to pin anything that the lock does not hold."""

    # -- sources --------------------------------------------------------------------------------------------------

    def pin(self, source: Source) -> LockedSource:
        """Pin one source by the lock, or in the lock where that has no entry yet and may change.

        Raises `LockError` for an entry that is missing and may not be added, `LockMismatch` where the lock contradicts
        what the source is known to be, `DigestMismatch` where the source has other bytes than the lock names, and what
        fetching raises.
        """
        key = key_of(source)
        old = self.lock.sources.get(key)
        if self.frozen and old is None:
            raise LockError(f"the lock has no entry for {key}", hint="write it with: meltrepro lock SPEC")
        if old is not None:
            known = self._known_digest(source)
            if known not in (None, old.digest):
                raise LockMismatch(
                    f"{key}: the lock has sha256 {old.digest}, but the source has {known}",
                    hint="restore the lock; if the change is wanted, move the pin with: meltrepro lock --upgrade NAME SPEC",
                )
            source = source.model_copy(update={"digest": old.digest})
        new = self.entry(source)
        if old is None:
            self.set(sources={**self.lock.sources, key: new})
        return new

    def pin_model(self, source: Source) -> None:
        """Pin a model's source, of a checkpoint each file too; raises what `pin` raises."""
        pinned = self.pin(source)
        for part in self.fetcher.parts(source.model_copy(update={"digest": pinned.digest})).values():
            self.pin(part)

    def entry(self, source: Source) -> LockedSource:
        """What a lock says of a source that is known here."""
        pin = self.fetcher.pin(source, self.base_dir)
        return LockedSource(digest=pin.digest, size=pin.size, filename=pin.filename, archive=pin.archive_digest)

    def pinned(self, source: Source, *, recorded: bool = False) -> Source:
        """A source with the digest that the lock has, so that bytes which are here need no server to tell their name.

        A file is read anew, unless it is one of another machine's that is `recorded`.
        """
        locked = self.lock.sources.get(key_of(source))
        read_anew = isinstance(source, FileSource | FolderSource) and not recorded
        if source.digest is not None or locked is None or read_anew:
            return source
        return source.model_copy(update={"digest": locked.digest})

    def digest(self, source: Source, *, recorded: bool = False) -> str:
        """sha256 of a source, found out where it is not pinned; raises what fetching raises."""
        return self.pinned(source, recorded=recorded).digest or self.fetcher.pin(source, self.base_dir).digest

    def known(self, source: Source) -> str | None:
        """The digest of a source without looking anything up: declared, else locked, else remembered of an earlier look."""
        if source.digest is not None:
            return source.digest
        locked = self.lock.sources.get(key_of(source))
        return locked.digest if locked is not None else self.fetcher.remembered(source, self.base_dir)

    def _known_digest(self, source: Source) -> str | None:
        """What a source is known to be without trusting its server or the lock: declared, remembered, or used before."""
        if isinstance(source, FileSource):
            now = self.fetcher.pin(source, self.base_dir).digest
            return now if self.store.has(now) else source.digest
        known = self.fetcher.known(source)
        return known.digest if known is not None else source.digest

    # -- what is not a source -------------------------------------------------------------------------------------

    def interpreter(self, kind: Interpreter) -> tuple[Package, ...]:
        """The packages of an interpreter that tools run on, pinned where that may be; they need not be here."""
        known: LockedInterpreter | None = getattr(self.lock, kind)
        if known is not None:
            return base.of_lock(known.packages)
        if self.frozen:
            raise LockError("the lock does not pin the converter's packages", hint="write it with: meltrepro lock SPEC")
        if self.fetcher.offline and interpreter.remembered(self.store, kind) is None:
            raise OfflineError(
                "offline, and the packages of the converter's interpreter were never looked up here",
                hint="write the lock once without MELTREPRO_OFFLINE, or import a bundle that holds the converter",
            )
        packages = interpreter.known(self.store, self.sink, kind)
        self.set(**{kind: LockedInterpreter(suite=base.SUITE, packages=base.as_locked(packages))})
        return packages

    def known_interpreter(self, kind: Interpreter) -> tuple[Package, ...] | None:
        """The same as far as they are known without asking anybody."""
        locked: LockedInterpreter | None = getattr(self.lock, kind)
        return base.of_lock(locked.packages) if locked is not None else interpreter.remembered(self.store, kind)

    def set(self, **parts: Any) -> None:
        """Pin parts of the lock by their names in it: base, toolchain."""
        self.lock = self.lock.model_copy(update=parts)

    def record(self, artifacts: Mapping[str, LockedArtifact], recipes: Mapping[str, str]) -> None:
        """Take up what was built, by node id, and digests of recipes, by name."""
        self.set(artifacts={**self.lock.artifacts, **artifacts}, recipes={**self.lock.recipes, **recipes})

    def drop(self, sources: Collection[str], name: str) -> None:
        """Take the pins of these sources, by key, and the artifacts of a model or framework out, and forget the sources."""
        for key in sources:
            self.fetcher.forget(key)
        self.set(
            sources={key: value for key, value in self.lock.sources.items() if key not in sources},
            artifacts={k: v for k, v in self.lock.artifacts.items() if name not in astuple(artifact_id(k))},
        )

    # -- the file -------------------------------------------------------------------------------------------------

    def complete(self, manifest: str, prompts: Mapping[str, str]) -> Lock:
        """The lock with what follows from the manifest: its digest, and those of its prompt files."""
        self.set(manifest=manifest, prompts=dict(prompts))
        return self.lock

    def save(self, path: Path, spec: Path) -> None:
        """Write the lock if it says anything new.

        Of a frozen one, raises `LockMismatch` where an entry would change and `LockError` where one would be added.
        """
        text = dump_lock(self.lock)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        if self.frozen:
            raise self.outdated(path, spec)
        before = load_lock(path)
        write_bytes(path, text.encode())
        if before is not None:  # it is in somebody's hands, and `--set` alone can change it
            found = differences(before, self.lock).items()
            changed = [name for name, (old, _) in found if old is not None and name != "manifest"]
            if changed:
                self.sink(Step("lock", "note", str(path), detail={"changed": ", ".join(changed[:_SHOWN_ENTRIES])}))

    def outdated(self, path: Path, spec: Path) -> LockError:
        """The error that says which entries of the lock on disk are not those of this one."""
        write = f"write it with: meltrepro lock {shlex.quote(str(spec))}"
        written = load_lock(path)
        if written is None:
            return LockError(f"{path} does not exist", hint=write)
        found = differences(written, self.lock)
        shown = [
            f"  {name}: the lock has {old or 'no such entry'}, expected {new or 'none'}"
            for name, (old, new) in found.items()
        ] or ["  its text is not as meltrepro writes it"]
        more = [f"  and {len(shown) - _SHOWN_ENTRIES} more"] if len(shown) > _SHOWN_ENTRIES else []
        changed = any(old is not None and new is not None for old, new in found.values())
        return (LockMismatch if changed else LockError)(
            "\n".join([f"{path} is not current and may not be changed:", *shown[:_SHOWN_ENTRIES], *more]),
            hint=f"restore the lock, or if the change is wanted, {write}",
        )
