"""The control arm of a replay: the recorded artifacts once more, beside those of today.

Values of another day mix two questions: whether these artifacts are as good as those, and whether the device is today as it
was. So a cell gets a twin that runs what the record names; both run in the same rounds, on the same machine, and only they are
compared. Where the bytes are the same, the twin shows what this session makes of one artifact and itself; it is left out
where the device's calibration shows that its sessions differ little enough for the record's own values, and on another
device, of which the record's values are the question. Scores are the same on any day, and have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from meltrepro.build.model import Artifact
from meltrepro.campaign.setup import Setup
from meltrepro.manifest.axes import base
from meltrepro.manifest.schema import Replay, Workload
from meltrepro.measure.records import CampaignRecord, CellRecord
from meltrepro.measure.spreads import spread_of, with_sessions
from meltrepro.plan.model import Cell
from meltrepro.record.campaign import CellEntry
from meltrepro.record.ids import CellId
from meltrepro.replay.compare import values_of
from meltrepro.stats.equivalence import Design, sessions_decide
from meltrepro.store.cas import Store

STEADY = ("prefill_tps", "generation_tps")
"""Metrics whose calibration says whether values of another session will do."""
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


def with_controls(setup: Setup, recorded: CampaignRecord, store: Store, declared: Replay) -> Setup:
    """Add a twin to each cell that is to be held against its recorded artifacts, where those are here and fit the device.

    Raises `CorruptStore` where a recorded artifact was changed.
    """
    if declared.reference == "recorded":
        return setup
    old = {cell.id: cell for cell in recorded.cells}
    entries = {cell.id: cell.entry for cell in recorded.cells}
    twins: dict[str, Cell] = {}
    artifacts: dict[str, Artifact] = {}
    for cell in setup.plan.cells:
        entry = entries.get(cell.id) if isinstance(cell.workload, Workload) else None
        if entry is None or entry.isa != cell.variant.name:
            continue
        same = not _differs(setup, cell, entry)
        if declared.reference == "auto" and same and not _sessions_matter(setup, cell, old[cell.id], declared):
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


def _sessions_matter(setup: Setup, cell: Cell, old: CellRecord, declared: Replay) -> bool:
    """Whether sessions of the device may differ by more than the margin allows; another device is the question itself."""
    if old.entry.params.get("device.id") != setup.devices[cell.target_name].id:
        return False
    known = setup.calibrations.get(cell.target_name)
    design = Design(margin=declared.margin, maximum=declared.maximum)
    for metric in (name for name in STEADY if (values_of(old, name))):
        spread = spread_of(known, metric)
        if spread is None or not sessions_decide(
            spread.within, len(values_of(old, metric)), with_sessions(design, spread)
        ):
            return True
    return False


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
