"""What is known of sizes before anything is fetched: from the lock, the store and the places that sources come from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from meltrepro.atomic import free_bytes
from meltrepro.build.keys import look_up
from meltrepro.build.tools import Tools
from meltrepro.frameworks.base import AS_IS
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.manifest.lock import Lock
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.sources import FileSource, Source, SyntheticSource, is_checkpoint
from meltrepro.plan.estimate import Sizes, sources_of
from meltrepro.plan.model import Plan
from meltrepro.plan.names import resolve
from meltrepro.record.ids import ModelId
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.targets.base import DeviceFacts

Planner = Callable[[Mapping[str, DeviceFacts], Sizes], Plan]
"""Makes the plan of one manifest for devices, by target name, and sizes."""


@dataclass(frozen=True)
class Survey:
    """A plan, and what it was made from."""

    planner: Planner
    devices: Mapping[str, DeviceFacts]
    """By target name."""
    plan: Plan
    sizes: Sizes
    unknown: frozenset[str]
    """Ids of nodes of which nobody knows yet whether the store has them."""

    def again(self, sizes: Sizes) -> Survey:
        """The same with other sizes; planned anew only where they are others."""
        return self if sizes == self.sizes else replace(self, plan=self.planner(self.devices, sizes), sizes=sizes)


def survey(
    planner: Planner,
    devices: Mapping[str, DeviceFacts],
    loaded: LoadedManifest,
    lock: Lock | None,
    tools: Tools,
) -> Survey:
    """A plan that knows which artifacts the store has: planned once as if every disk were empty, to see what to look up."""
    sizes = known_sizes(loaded, lock, tools.store, tools.fetcher, recorded=tools.record is not None)
    empty = {name: replace(device, disk_free_bytes=sys.maxsize) for name, device in devices.items()}
    wanted = planner(empty, replace(sizes, free_bytes=None))
    found = look_up(wanted, tools.pins)
    sizes = replace(sizes, weights={**sizes.weights, **found.stored}, stored=sizes.stored | found.stored.keys())
    return Survey(planner, devices, planner(devices, sizes), sizes, found.unknown - sizes.stored)


def known_sizes(
    loaded: LoadedManifest, lock: Lock | None, store: Store, fetcher: Fetcher, *, recorded: bool = False
) -> Sizes:
    """Sizes of the models that are built, pinned or local; asks nobody outside this machine.

    What a lock names is taken as it is only by the work on a record; else an artifact is here where today's recipe made it.
    """
    manifest = loaded.manifest
    stored: dict[str, int] = {}
    if lock is not None and lock.manifest == manifest_digest(manifest):
        for name, artifact in lock.artifacts.items():
            if store.has(artifact.digest):
                stored[name] = store.size(artifact.digest)
    weights, made, downloads = dict(stored), dict[Source, int](), dict[Source, int]()
    for framework, (name, model) in product(resolve(loaded).values(), manifest.models.items()):
        source = framework.source(model)
        size = _source_bytes(source, loaded.path.parent, fetcher) if AS_IS in model.quantizations else None
        if size is not None:
            weights[str(ModelId(name, AS_IS, framework.name))] = size
        if isinstance(source, SyntheticSource) and (size := fetcher.made_bytes(source)):
            made[source] = size
        for each in (source, *model.sources[1:]):
            if fetcher.known(each) is not None and (size := fetcher.estimate(each, loaded.path.parent)):
                downloads[each] = size
    return Sizes(
        downloads=downloads,
        weights=weights,
        stored=frozenset(stored if recorded else ()),
        made=made,
        free_bytes=free_bytes(store.root),
    )


def with_downloads(sizes: Sizes, plan: Plan, fetcher: Fetcher, base_dir: Path) -> Sizes:
    """The same with what is still to be transferred for a plan; asks the servers of sources that are not pinned."""
    wanted = sources_of(plan.models, plan.bundles, plan.cells, sizes)
    found = {source: fetcher.estimate(source, base_dir) for source in wanted}
    return replace(sizes, downloads={source: size for source, size in found.items() if size is not None})


def _source_bytes(source: Source, base_dir: Path, fetcher: Fetcher) -> int | None:
    if isinstance(source, FileSource):
        path = base_dir / source.file
        return path.stat().st_size if path.is_file() else None
    pin = None if is_checkpoint(source) else fetcher.known(source)  # what is converted has another size
    return pin.size if pin is not None else None
