"""Sources of kind `synthetic`: a model of a known shape with made-up weights, which a framework writes and the store keeps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from meltrepro.atomic import require_free
from meltrepro.errors import DigestMismatch
from meltrepro.frameworks.base import Weights
from meltrepro.manifest.sources import PypiSource, Source, SyntheticSource
from meltrepro.steps import Step, step
from meltrepro.store.cas import Store
from meltrepro.store.names import text_digest
from meltrepro.store.pypi import extract
from meltrepro.store.source import Context, Pin, Provider, key_of

_PROGRESS_BYTES = 64 << 20


class Synthetic(Provider[SyntheticSource]):
    """The provider, by what a framework writes."""

    def __init__(self, weights: Weights, get: Callable[[Source], Path]) -> None:
        """`get` brings other sources, of which a file may be made."""
        self._weights, self._get = weights, get

    def resolve(self, source: SyntheticSource, context: Context) -> Pin:
        """The pin; the file is made where its digest is not declared."""
        digest = source.digest or self._make(source, context, None)
        return Pin(source=key_of(source), digest=digest, size=self._weights.size(source.shape))

    def fetch(self, source: SyntheticSource, pin: Pin, context: Context) -> None:
        self._make(source, context, pin.digest)

    def _make(self, source: SyntheticSource, context: Context, expected: str | None) -> str:
        """Write the file into the store, whole or not at all; returns its sha256."""
        key, shape, store = key_of(source), source.shape, context.store
        size = self._weights.size(shape)

        def wait(message: str) -> None:
            context.sink(Step("synthesize", "note", key, detail={"status": message}))

        with store.lock(f"synthesize-{key}", wait):
            if expected is not None and store.has(expected):
                return expected  # another process was faster
            with step(context.sink, "synthesize", key):
                require_free(store.root, size)
                try:
                    bring = partial(self._bring, store)
                    with store.writer(expected=expected, needed=size, subject=key) as writer:
                        shown = 0
                        for piece in self._weights.pieces(shape, source.seed, bring):
                            writer.write(piece)
                            if writer.size - shown >= _PROGRESS_BYTES:
                                shown = writer.size
                                context.sink(Step("synthesize", "progress", key, shown, size, "bytes"))
                except DigestMismatch as error:
                    raise DigestMismatch(
                        error.message,
                        hint="the digest is of another shape, seed or version: leave it out, or pin this one",
                    ) from error
            # Whoever named the digest: made here, it is what it is called, and `gc` may believe so.
            store.own.put_ref("pins", text_digest(key), Pin(source=key, digest=writer.digest, size=size).to_json())
        return writer.digest

    def _bring(self, store: Store, part: PypiSource, archive: PypiSource) -> Path:
        """A member of an archive by its digest; the index is asked for nothing that the store has."""
        assert part.digest is not None and archive.digest is not None, "what a file is made of is pinned"
        if not store.has(part.digest):
            self._get(archive)
            extract(part, store, archive.digest, None)
        return store.verify(part.digest)
