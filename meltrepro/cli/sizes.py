"""What is known of sizes before anything is fetched: from the lock, the store and the places that sources come from."""

from __future__ import annotations

from pathlib import Path

from meltrepro.plan.estimate import Sizes, sources_of
from meltrepro.plan.model import Plan
from meltrepro.plan.names import AS_IS
from meltrepro.spec.loader import LoadedManifest
from meltrepro.spec.lock import Lock
from meltrepro.spec.pins import manifest_digest
from meltrepro.spec.sources import FileSource, Source, is_checkpoint
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher


def known_sizes(loaded: LoadedManifest, lock: Lock | None, store: Store, fetcher: Fetcher) -> Sizes:
    """Sizes of the models that are built, pinned or local; asks nobody outside this machine."""
    manifest = loaded.manifest
    stored: dict[str, int] = {}
    if lock is not None and lock.manifest == manifest_digest(manifest):
        for name, artifact in lock.artifacts.items():
            if store.has(artifact.digest):
                stored[name] = store.path(artifact.digest).stat().st_size
    weights = dict(stored)
    for name, model in manifest.models.items():
        size = _source_bytes(model.source, loaded.path.parent, fetcher) if AS_IS in model.quantizations else None
        if size is not None:
            weights |= {f"{name}/{AS_IS}/{framework}": size for framework in manifest.frameworks}
    return Sizes(weights=weights, stored=frozenset(stored))


def with_downloads(sizes: Sizes, plan: Plan, fetcher: Fetcher, base_dir: Path) -> Sizes:
    """The same with what is still to be transferred for a plan; asks the servers of sources that are not pinned."""
    found = {source: fetcher.estimate(source, base_dir) for source in sources_of(plan.models, plan.bundles, sizes)}
    return Sizes(
        downloads={source: size for source, size in found.items() if size is not None},
        weights=sizes.weights,
        stored=sizes.stored,
    )


def _source_bytes(source: Source, base_dir: Path, fetcher: Fetcher) -> int | None:
    if isinstance(source, FileSource):
        path = base_dir / source.file
        return path.stat().st_size if path.is_file() else None
    pin = None if is_checkpoint(source) else fetcher.known(source)  # what is converted has another size
    return pin.size if pin is not None else None
