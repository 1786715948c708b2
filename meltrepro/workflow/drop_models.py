"""`meltrepro study --drop-models`: the models that a study made and does not need any more go from the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltrepro.manifest.accuracy import TextWorkload
from meltrepro.manifest.lock import load_lock, lock_path
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.sources import Source, SyntheticSource, is_checkpoint
from meltrepro.plan.model import AS_IS
from meltrepro.record.ids import ModelId
from meltrepro.store.gc import Dropped, drop
from meltrepro.store.source import key_of

if TYPE_CHECKING:
    from pathlib import Path

    from meltrepro.manifest.loader import LoadedManifest
    from meltrepro.store.cas import Store


@dataclass(frozen=True)
class _Use:
    """What a model's file follows from, as far as a manifest says it."""

    source: Source
    quantization: str
    framework: tuple[str, str | None, Source | None]
    """Kind, release and source; how its programs are built changes no model."""

    @property
    def made_here(self) -> bool:
        """Whether the file was made on this machine, and can be made again without a network or from what was fetched."""
        return self.quantization != AS_IS or isinstance(self.source, SyntheticSource) or is_checkpoint(self.source)


def drop_models(
    done: LoadedManifest,
    record_lock: Path,
    later: Sequence[LoadedManifest],
    study: Sequence[LoadedManifest],
    store: Store,
) -> Dropped:
    """Remove the models of a manifest that was measured, but for those that `later` ones need.

    `record_lock` is the lock in its campaign's record. What locks of manifests outside the `study` name stays too, and so
    does whatever was fetched. Raises `StoreError` where another process uses the store.
    """
    lock = load_lock(record_lock)
    needed = {use for each in later for use in _uses(each.manifest)}
    sources = {use.source for use in needed}
    digests = set()
    for use, node in _uses(done.manifest).items():
        whole_needed = use.quantization == AS_IS and use.source in sources
        artifact = lock.artifacts.get(node) if lock is not None else None
        if artifact is not None and use.made_here and use not in needed and not whole_needed:
            digests.add(artifact.digest)
        weights = lock.sources.get(key_of(use.source)) if lock is not None else None
        if weights is not None and isinstance(use.source, SyntheticSource) and use.source not in sources:
            digests.add(weights.digest)
    return drop(store, digests, apart_from=[lock_path(each.path) for each in study])


def _uses(manifest: Manifest) -> dict[_Use, str]:
    """The models of a manifest, with the ids of their nodes."""
    texts = [each for each in manifest.accuracy.values() if isinstance(each, TextWorkload)]
    compared = {each.against for each in texts if each.task == "kl-divergence"}
    return {
        _Use(model.source, quantization, (framework.kind or key, framework.release, framework.source)): str(
            ModelId(name, quantization, key)
        )
        for name, model in manifest.models.items()
        for quantization in {*model.quantizations, *compared}
        for key, framework in manifest.frameworks.items()
    }
