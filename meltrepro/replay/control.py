"""The control arm of a replay: the recorded artifacts once more, beside the rebuilt ones.

Where a rebuild gave other bytes, comparing it with values of another day would mix two questions. So each cell gets a
twin that runs what the record names; both run in the same rounds, on the same machine, and only they are compared. Scores are
the same on any day, and have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from meltrepro.build.model import Artifact
from meltrepro.campaign.setup import Setup
from meltrepro.manifest.axes import base
from meltrepro.manifest.schema import Workload
from meltrepro.plan.model import Cell
from meltrepro.record.campaign import CellEntry
from meltrepro.record.ids import CellId
from meltrepro.record.reader import CampaignFolder
from meltrepro.store.cas import Store

SUFFIX = ".recorded"
"""After the framework's name, in a twin's id."""


def twin_of(cell_id: str) -> str:
    """The id of a cell's twin."""
    key = CellId.parse(cell_id)
    name = base(key.framework)
    return str(replace(key, framework=name + SUFFIX + key.framework.removeprefix(name)))


def is_twin(cell_id: str) -> bool:
    """Whether a cell runs recorded artifacts as a control."""
    return base(CellId.parse(cell_id).framework).endswith(SUFFIX)


def with_controls(setup: Setup, recorded: CampaignFolder, store: Store) -> Setup:
    """Add a twin to each cell whose artifacts are not the recorded ones, where those are here and fit the device.

    Raises `CorruptStore` where a recorded artifact was changed.
    """
    entries = {cell.id: cell.entry for cell in recorded.cells}
    twins: dict[str, Cell] = {}
    artifacts: dict[str, Artifact] = {}
    for cell in setup.plan.cells:
        entry = entries.get(cell.id) if isinstance(cell.workload, Workload) else None
        if entry is None or entry.isa != cell.variant.name or not _differs(setup, cell, entry):
            continue
        if not (store.has(entry.bundle_digest) and store.has(entry.model_digest)):
            continue
        twins[cell.id] = twin = replace(cell, framework_name=cell.framework_name + SUFFIX)
        artifacts |= {each.id: each for each in _recorded(twin, entry, setup.artifacts[cell.bundle_id], store)}
    used = {twin.framework_name.removesuffix(SUFFIX) for twin in twins.values()}
    nodes = [
        replace(node, framework_name=node.framework_name + SUFFIX)
        for node in setup.plan.bundles
        if node.framework_name in used
    ]
    cells = [each for cell in setup.plan.cells for each in (cell, *([twins[cell.id]] if cell.id in twins else []))]
    return replace(
        setup,
        plan=replace(setup.plan, cells=tuple(cells), bundles=(*setup.plan.bundles, *nodes)),
        artifacts={**setup.artifacts, **artifacts},
        requests={**setup.requests, **{twin.id: setup.requests[cell_id] for cell_id, twin in twins.items()}},
    )


def _differs(setup: Setup, cell: Cell, entry: CellEntry) -> bool:
    built = setup.artifacts[cell.bundle_id].digest, setup.artifacts[cell.model_id].digest
    return built != (entry.bundle_digest, entry.model_digest)


def _recorded(twin: Cell, entry: CellEntry, rebuilt: Artifact, store: Store) -> Iterator[Artifact]:
    for digest in (entry.bundle_digest, entry.model_digest):
        store.verify(digest)
    file, weights = store.path(entry.bundle_digest), store.path(entry.model_digest)
    folder = store.unpack(entry.bundle_digest) / "bundle"
    yield Artifact(
        twin.bundle_id, "bundle", "", entry.bundle_digest, file, folder, file.stat().st_size, rebuilt.platform
    )
    yield Artifact(twin.model_id, "model", "", entry.model_digest, weights, weights, weights.stat().st_size)
