"""From a manifest to its artifacts: what would run, what is pinned, what is built, and whether it comes out the same."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from meltrepro.build import interpreter
from meltrepro.build.pipeline import Builder, Built
from meltrepro.build.toolchain import USUAL, VARIED
from meltrepro.build.tools import EngineName
from meltrepro.errors import LockError, MeltreproError, UsageError
from meltrepro.frameworks.base import SkipKind
from meltrepro.manifest.accuracy import trials_of
from meltrepro.manifest.lock import LockedName, dump_lock
from meltrepro.manifest.schema import Workload
from meltrepro.manifest.sources import HuggingFaceSource
from meltrepro.manifest.yaml.suggest import near_miss
from meltrepro.plan.estimate import Sizes, data_of
from meltrepro.plan.identity import plan_document
from meltrepro.plan.model import Plan
from meltrepro.replay.verify import ArtifactStatus, Verified, check_digests, check_recipes, compare_rebuild, error_of
from meltrepro.settings import Settings
from meltrepro.steps import Sink, silent
from meltrepro.store import checkpoint
from meltrepro.store.source import key_of
from meltrepro.targets.presence import Seen
from meltrepro.workflow.names import repository
from meltrepro.workflow.session import Session, open_session
from meltrepro.workflow.sizes import with_downloads


@dataclass(frozen=True)
class Planned:
    """What would run, and what is to be fetched and built for it."""

    plan: Plan
    """Its cells, bundles, models, what is skipped and why, and what all of it takes."""
    sizes: Sizes
    """What is here already, and how large the rest is."""
    unknown: frozenset[str] = frozenset()
    """Ids of bundles and models of which nobody knows yet whether the store has them."""
    devices: Mapping[str, Seen] = field(default_factory=dict)
    """The devices that it is for, by target name: those that are there, and what others are taken for."""

    @property
    def trials(self) -> int:
        """How many trials there are, warm-ups too."""
        protocol = self.plan.manifest.protocol
        of_runner, cells = protocol.count + protocol.warmups, self.plan.cells
        return sum(of_runner if isinstance(c.workload, Workload) else trials_of(c.workload) for c in cells)

    @property
    def needed(self) -> Mapping[str, Literal["here", "unknown", "missing"]]:
        """Ids of the bundles, models and logits that are needed, and whether the store has each."""
        nodes = [node.id for kind in (self.plan.bundles, self.plan.models, self.plan.logits) for node in kind]
        return {
            name: "here" if name in self.sizes.stored else "unknown" if name in self.unknown else "missing"
            for name in nodes
        }

    @property
    def data(self) -> Mapping[str, tuple[str, int | None]]:
        """By workload that is scored on data: where these come from, and bytes to download, as far as that is known."""
        found = data_of(self.plan.cells)
        return {name: (key_of(source), self.sizes.downloads.get(source)) for name, source in found.items()}

    @property
    def too_large(self) -> bool:
        """Whether the store's disk has no room for all of it."""
        needed, free = self.plan.estimate.disk_bytes, self.sizes.free_bytes
        return needed is not None and free is not None and needed > free

    @property
    def left_out_for_room(self) -> bool:
        """Whether cells are left out because the store's disk has no room for what they need."""
        return any(skipped.kind is SkipKind.store for skipped in self.plan.skipped)

    def as_json(self) -> dict[str, Any]:
        """The plan as plain data; each bundle and model says whether the store has it, data what is to be fetched."""
        whole = plan_document(self.plan)
        for kind in ("bundles", "models", "logits"):
            for node in whole.get(kind, ()):
                node["stored"] = node["id"] in self.sizes.stored
        whole["estimate"]["free_bytes"] = self.sizes.free_bytes
        data = [
            {"workload": name, "source": source, "download_bytes": size} for name, (source, size) in self.data.items()
        ]
        devices = [_as_json(device) for device in self.devices.values()]
        return {
            **whole,
            **({"data": data} if data else {}),
            "devices": devices,
            "warnings": list(self.plan.warnings),
        }


def _as_json(device: Seen) -> dict[str, Any]:
    """A device as plain data: whether it is there, what is known of it, and since when."""
    facts, absence = device.facts, device.absence
    known = {"arch": facts.arch, "features": sorted(facts.features), "id": facts.id} if facts is not None else {}
    away = {"kind": absence.kind.value, "reason": absence.reason} if absence is not None else {}
    found = {"found_wall_ns": device.found_wall_ns} if device.found_wall_ns is not None else {}
    return {"target": device.name, "origin": device.origin, **found, **known, **away}


def plan(
    manifest: Path | str,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    settings: Settings | None = None,
) -> Planned:
    """Plan a manifest for the devices that are there, and for those of which something is remembered or assumed; fetches, builds
    and runs nothing.

    A plan of which no cell can run is returned as it is; `require_cells` of `meltrepro.plan.planner` refuses it. Raises
    `ManifestError`, `UsageError` for an `only` that means nothing, `LockError` for a damaged lock.
    """
    with open_session(Path(manifest), overrides, only, settings=settings, pinned=False) as session:
        sizes = with_downloads(session.survey.sizes, session.plan, session.tools.fetcher, session.loaded.path.parent)
        found = session.survey.again(sizes)
    return Planned(found.plan, sizes, found.unknown, session.devices)


@dataclass(frozen=True)
class Build:
    """Artifacts, and the lock that names them."""

    built: Built
    """By id: `built.artifacts`; those of them that were here before are in `built.reused`."""
    lock_path: Path


def build(
    manifest: Path | str,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    engine: EngineName = "docker",
    locked: bool = False,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Build:
    """Build the bundles and models of a manifest that are missing, and write their digests into its lock.

    Raises `ManifestError`, `PlanError`, `LockError` (with `locked`, where the lock would change), `SourceError`,
    `EngineError`, `BuildError`, `ModelError`, `StoreError`, and `Interrupted`; the same call goes on.
    """
    with open_session(
        Path(manifest), overrides, only, engine=engine, locked=locked, sink=sink, settings=settings
    ) as session:
        built = session.build()
    return Build(built, session.lock_path)


@dataclass(frozen=True)
class LockChange:
    """A lock as it was and as it is, or would be."""

    path: Path
    before: str
    """Empty where there was none."""
    after: str
    stale: LockError | None
    """What says that the lock is not current; `None` where it is, or was written."""
    names: Mapping[str, LockedName] = field(default_factory=dict)
    """Repositories of the hub of which the manifest names no commit: what each stands for."""

    @property
    def difference(self) -> list[str]:
        """The lines that are new and gone, as `diff` shows them."""
        before, after = self.before.splitlines(), self.after.splitlines()
        return list(difflib.unified_diff(before, after, "before", "after", lineterm="", n=0))[2:]


def lock(
    manifest: Path | str,
    *,
    overrides: Sequence[str] = (),
    upgrade: Sequence[str] = (),
    check: bool = False,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> LockChange:
    """Pin every input of a manifest in the lock beside it; with `check`, say what would change and change nothing.

    The pins that `upgrade` names (base, toolchain, interpreter, a model, a framework, a source) are taken anew.
    Raises `UsageError` for overrides that the lock would not be of, `LockError` for a pin that is not there, and what
    `build` raises of fetching.
    """
    with open_session(Path(manifest), overrides, sink=sink, settings=settings, upgrade=upgrade) as session:
        if session.altered and not check:
            raise UsageError(
                "--set changes what is pinned, and the lock belongs to the manifest as it is written",
                hint="change the manifest itself, or a copy of it",
            )
        path, pins = session.lock_path, session.tools.pins
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        for name in upgrade:
            _drop(session, name)
        plan = session.plan.without(session.pin())
        session.tools.layers()
        pins.record({}, Builder(session.tools).recipe_digests(plan))
        after = dump_lock(session.completed())
        if after != before and not check:
            session.save_lock()
    stale = pins.outdated(path, session.loaded.path) if check and after != before else None
    return LockChange(path, before, after, stale, pins.lock.names)


def _drop(session: Session, name: str) -> None:
    """Take the pins that `name` stands for out of the lock; they are then taken anew."""
    tools, pins = session.tools, session.tools.pins
    match name:
        case "base":
            tools.base().forget()
            pins.set(base=None, toolchain=None)
        case "toolchain":
            pins.set(toolchain=None)
        case "interpreter":
            interpreter.forget(tools.store)
            pins.set(interpreter=None, torch=None)
        case _:
            pins.drop(_sources(session, name), name)


def _sources(session: Session, name: str) -> set[str]:
    """The keys of the sources in the lock that belong to a model or framework, or are named so themselves."""
    pins, manifest = session.tools.pins, session.loaded.manifest
    wanted = {source for source in pins.lock.sources if name in (source, source.split(":")[1].split("==")[0])}
    moved = name
    if name in manifest.models:
        source, sources = manifest.models[name].source, manifest.models[name].sources
        wanted |= {key for key in pins.lock.sources if any(checkpoint.is_of(key, each) for each in sources)}
        moved = repository(source) if isinstance(source, HuggingFaceSource) else name
    if moved in pins.lock.names:  # its pins are those of the commit that it had
        wanted |= {key for key in pins.lock.sources if key.startswith(f"{moved}@")}
    for bundle in session.plan.bundles:
        if bundle.framework_name == name:
            wanted |= {key_of(source) for source in bundle.sources.values()}
    if not wanted:
        known = ["base", "toolchain", "interpreter", *manifest.models, *manifest.frameworks, *pins.lock.sources]
        raise LockError(
            f"nothing in the lock is called {name!r}", hint=near_miss(name, known) or f"known: {', '.join(known[:8])}"
        )
    return wanted


@dataclass(frozen=True)
class Verification:
    """What looking at artifacts, and building them anew, has shown."""

    stored: tuple[Verified, ...]
    """What the store holds, compared with the lock."""
    rebuilt: tuple[Verified, ...] | None
    """What came out of a build from scratch; `None` where there was none."""

    @property
    def findings(self) -> tuple[Verified, ...]:
        """Those that count: of the store only objects that were changed, where everything was built anew."""
        if self.rebuilt is None:
            return self.stored
        return (*self.rebuilt, *(each for each in self.stored if each.status is ArtifactStatus.corrupt))

    @property
    def error(self) -> MeltreproError | None:
        """`VerifyError`, or `CorruptStore` where stored objects alone are at fault; `None` where all is well."""
        return error_of(list(self.findings))


def verify(
    manifest: Path | str,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    engine: EngineName = "docker",
    rebuild: bool = True,
    vary: bool = False,
    found: Callable[[str, Sequence[Verified]], None] = lambda _, __: None,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Verification:
    """Compare the artifacts in the store with the lock and, with `rebuild`, with a build from scratch.

    `vary` builds by the engine `process` as another user, in other folders, with other jobs, locale and umask. `found` is
    called with `stored` and `rebuilt` and their findings as they come. Raises `LockError` without a lock, `LockMismatch`
    where recipes are others, and what `build` raises; artifacts that differ are findings.
    """
    with open_session(
        Path(manifest),
        overrides,
        only,
        engine="process" if vary else engine,
        locked=True,
        sink=sink,
        settings=settings,
        conditions=VARIED if vary else USUAL,
    ) as session:
        lock = session.require_lock()
        store = session.tools.store
        wanted = {bundle.id for bundle in session.plan.bundles} | {model.id for model in session.plan.models}
        stored = tuple(check_digests(lock, store, wanted))
        found("stored", stored)
        check_recipes(lock, Builder(session.tools).recipe_digests(session.plan))
        rebuilt = None
        if rebuild:
            rebuilt = tuple(compare_rebuild(lock, session.build(rebuild=True), store))
            found("rebuilt", rebuilt)
    return Verification(stored, rebuilt)
