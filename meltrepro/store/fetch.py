"""Sources to verified files: from the store, else from the mirror map, else from where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from meltrepro.errors import DigestMismatch, DownloadError, MeltreproError, OfflineError, SourceError
from meltrepro.frameworks.base import Weights
from meltrepro.manifest.lock import LockedName
from meltrepro.manifest.sources import (
    DebianPackage,
    FileSource,
    FolderSource,
    GitSource,
    HuggingFaceSource,
    NpmPackage,
    PypiSource,
    Source,
    SyntheticSource,
    UrlSource,
    has_parts,
)
from meltrepro.settings import Settings
from meltrepro.steps import Sink
from meltrepro.store import checkpoint
from meltrepro.store.cas import Store
from meltrepro.store.download import DEFAULT_RETRY, Downloader, RetryPolicy
from meltrepro.store.mirror import Mirrors, load_mirrors
from meltrepro.store.names import text_digest
from meltrepro.store.source import Context, Pin, Provider, key_of
from meltrepro.untrusted import as_model, first_fault

_HERE = Path()


class Fetcher:
    """Resolves and fetches sources into one store; what was found out once is remembered there."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        sink: Sink,
        *,
        retry: RetryPolicy = DEFAULT_RETRY,
        weights: Mapping[str, Weights] = MappingProxyType({}),
    ) -> None:
        """`weights` write the files of synthetic sources, by format."""
        self._weights = weights
        self.offline = settings.offline
        self._store = store
        self._settings = settings
        self._sink = sink
        self._downloader = Downloader(store, sink, offline=settings.offline, retry=retry, logins=settings.logins)

    def pin(self, source: Source, base_dir: Path) -> Pin:
        """Answer every question that a source leaves open; a relative file counts from `base_dir`.

        Touches the network only for what is not known yet. Raises `SourceError` and its kin.
        """
        known = self.known(source)
        if known is not None:
            return known
        context = self._context(base_dir)
        if has_parts(source):
            return self._pin_checkpoint(source, context)
        claimed = source.digest is not None and self._store.has(source.digest)
        try:
            pin = self._mirrors.adopt(source, None, context) or self._provider(source).resolve(source, context)
        except (OfflineError, DownloadError):
            if source.digest is None or not self._store.has(source.digest):
                raise
            # Everything that is needed is here; file names and sizes of archives are not worth a failure.
            return Pin(source=key_of(source), digest=source.digest, size=self._store.size(source.digest))
        except ValidationError as error:
            raise SourceError(
                f"{key_of(source)}: what its server says of it cannot be: {first_fault(error)}",
                hint="see that the address is the one of the server that you mean",
            ) from error
        if source.digest not in (None, pin.digest):
            raise DigestMismatch(
                f"{pin.source}: pinned to sha256 {source.digest}, but it has {pin.digest}",
                hint="if the new bytes are wanted, pin them",
            )
        if not isinstance(source, FileSource):
            learn(pin.model_copy(update={"claimed": claimed}), self._store)
        return pin

    def get(self, source: Source, base_dir: Path = _HERE) -> Path:
        """The verified file of a source in the store, brought there where it is missing.

        Raises `SourceError` and its kin, `OfflineError`, `StoreError`, and `CorruptStore` for an object that was
        changed.
        """
        if has_parts(source):
            return self._get_checkpoint(source, base_dir)
        if source.digest is not None and self._store.has(source.digest):
            return self._store.verify(source.digest)
        pin = self.pin(source, base_dir)
        if not self._store.has(pin.digest):
            context = self._context(base_dir)
            if self._mirrors.adopt(source, pin.digest, context) is None:
                self._provider(source).fetch(source, pin, context)
        return self._store.verify(pin.digest)

    def parts(self, source: Source) -> dict[str, Source]:
        """The files of a checkpoint or split model that was pinned here, by name, each with its digest; nothing for other sources."""
        pin = self.known(source) if source.digest is None else None
        digest = pin.digest if pin is not None else source.digest
        if not has_parts(source) or digest is None or not self._store.has(digest):
            return {}
        return checkpoint.parts(source, self._store.verify(digest))

    def estimate(self, source: Source, base_dir: Path = _HERE) -> int | None:
        """Bytes that `get` would still transfer: 0 for what is here; `None` where that cannot be known quickly."""
        if isinstance(source, SyntheticSource):
            return 0
        if isinstance(source, HuggingFaceSource) and source.revision is None:
            return None
        known = self.known(source)
        if has_parts(source):
            return self._estimate_parts(source, base_dir)
        digests = {source.digest, known.digest if known else None}
        if any(digest is not None and self._store.has(digest) for digest in digests) or self._mirrors.has(source):
            return 0
        if known is not None and (known.archive_digest is None or known.archive_size is not None):
            return known.archive_size or known.size
        if self.offline and not isinstance(source, FileSource):
            return None
        try:
            return self._provider(source).transfer_size(source, self._context(base_dir))
        except MeltreproError:
            return None  # fetching will say it, with a hint; an estimate is a courtesy

    def made_bytes(self, source: SyntheticSource) -> int:
        """What writing a source's weights takes in the store: nothing where it holds them, or nobody can write them."""
        pin = self.known(source)
        digest = source.digest or (pin.digest if pin is not None else None)
        if source.format not in self._weights or (digest is not None and self._store.has(digest)):
            return 0
        return self._weights[source.format].size(source.shape)

    def known(self, source: Source) -> Pin | None:
        """What is remembered of a source, without asking anybody; nothing of local files, which change.

        A source without a digest is not told what only somebody's lock said.
        """
        if isinstance(source, FileSource | FolderSource):
            return None
        value = self._store.get_ref("pins", text_digest(key_of(source)))
        try:
            pin = as_model(Pin, value) if value is not None else None
        except ValueError:  # written by another version: found out anew
            return None
        if pin is None or source.digest not in (None, pin.digest) or (source.digest is None and pin.claimed):
            return None
        return pin

    def remembered(self, source: Source, base_dir: Path) -> str | None:
        """The digest of a source as it was found out earlier, without asking anybody or reading a file again."""
        if isinstance(source, FileSource):
            from meltrepro.store.file import remembered

            return remembered(source, self._store, base_dir)
        pin = self.known(source)
        return pin.digest if pin is not None else None

    def newest(self, source: HuggingFaceSource | GitSource, base_dir: Path = _HERE) -> LockedName:
        """What a source that names no commit, or a commit by a name, stands for now; raises `SourceError` and its kin."""
        if isinstance(source, HuggingFaceSource):
            from meltrepro.store import huggingface

            return huggingface.newest(source, self._context(base_dir))
        from meltrepro.store import git

        found, pin = git.newest(source, self._context(base_dir))
        if pin is not None:
            learn(pin, self._store)
        return found

    def forget(self, key: str) -> None:
        """Drop what is remembered of a source by its name, so that the next `pin` asks anew."""
        self._store.drop_ref("pins", text_digest(key))

    def _pin_checkpoint(self, source: checkpoint.Parted, context: Context) -> Pin:
        """List a checkpoint's files and pin each; what was pinned before is not asked for again."""
        if isinstance(source, HuggingFaceSource) and source.digest is not None and self._store.has(source.digest):
            listed = checkpoint.read(self._store.verify(source.digest))
            size = sum(each.size for each in listed.values())
            return Pin(source=key_of(source), digest=source.digest, size=size)
        names = checkpoint.names(source, context, self._mirrors.folder(source))
        pin = checkpoint.pin(source, names, self, context)
        if isinstance(source, HuggingFaceSource):
            learn(pin, self._store)
        return pin

    def _estimate_parts(self, source: checkpoint.Parted, base: Path) -> int | None:
        if not isinstance(source, HuggingFaceSource):
            return 0
        parts = self.parts(source)
        try:
            if not parts and not self.offline:
                names = checkpoint.names(source, self._context(base), self._mirrors.folder(source))
                parts = {name: checkpoint.part(source, name) for name in names}
        except MeltreproError:
            return None
        sizes = [self.estimate(part, base) for part in parts.values()]
        return sum(size or 0 for size in sizes) if sizes and None not in sizes else None

    def _get_checkpoint(self, source: checkpoint.Parted, base: Path) -> Path:
        """The listing of a checkpoint whose files are all in the store."""
        pin = self.pin(source, base)
        pinned = source.model_copy(update={"digest": pin.digest})
        if not self._store.has(pin.digest):  # known by a lock or bundle, but never listed here
            self._pin_checkpoint(pinned, self._context(base))
        for part in checkpoint.parts(pinned, self._store.verify(pin.digest)).values():
            self.get(part, base)
        return self._store.verify(pin.digest)

    @cached_property
    def _mirrors(self) -> Mirrors:
        return load_mirrors(self._settings.mirrors)

    def _context(self, base: Path) -> Context:
        return Context(self._store, self._downloader, base, self._sink)

    def _provider(self, source: Source) -> Provider[Any]:
        """The module behind a kind of source; loaded when it is needed."""
        match source:
            case PypiSource():
                from meltrepro.store.pypi import Pypi

                return Pypi()
            case HuggingFaceSource():
                from meltrepro.store.huggingface import HuggingFace

                return HuggingFace()
            case GitSource():
                from meltrepro.store.git import Git

                return Git()
            case UrlSource():
                from meltrepro.store.file import Url

                return Url()
            case DebianPackage():
                from meltrepro.store.debian import Debian

                return Debian()
            case NpmPackage():
                from meltrepro.store.npm import Npm

                return Npm()
            case FileSource():
                from meltrepro.store.file import File

                return File()
            case SyntheticSource():
                from meltrepro.store.synthetic import Synthetic

                if source.format not in self._weights:
                    raise SourceError(
                        f"{key_of(source)}: no framework here writes weights", hint="name a file with weights as source"
                    )
                return Synthetic(self._weights[source.format], self.get)
            case FolderSource():
                raise SourceError(
                    f"{key_of(source)}: a checkpoint is no single file", hint="name a file with the key 'file'"
                )


def learn(pin: Pin, store: Store) -> None:
    """Remember a pin, for example one that came with a bundle; one of the same bytes stays, for it may say more.

    What was found out is never replaced by what was only claimed.
    """
    key = text_digest(pin.source)
    known = store.get_ref("pins", key)
    if known is None or (not pin.claimed and (known.get("claimed") or known.get("digest") != pin.digest)):
        store.put_ref("pins", key, pin.to_json())
