"""What `plan`, `build`, `run`, `lock` and `verify` share: manifest -> devices -> plan -> lock -> artifacts."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from meltrepro import interrupts
from meltrepro import settings as settings_module
from meltrepro.accuracy.requests import Data
from meltrepro.build.model import Input
from meltrepro.build.pipeline import Builder, Built
from meltrepro.build.toolchain import USUAL, Conditions
from meltrepro.build.tools import EngineName, Tools
from meltrepro.errors import (
    DataError,
    DownloadError,
    LockError,
    ManifestError,
    OfflineError,
    Problem,
    SourceError,
    StaleLock,
)
from meltrepro.frameworks.base import Skip, SkipKind, Weights, framework
from meltrepro.manifest.accuracy import source_of
from meltrepro.manifest.files import missing_files, require_files
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.manifest.lock import Lock, load_lock, lock_path
from meltrepro.manifest.pins import manifest_digest, prompt_digests
from meltrepro.manifest.prompts import MELT, MELT_SOURCE
from meltrepro.manifest.protocol import Order
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.sources import HuggingFaceSource
from meltrepro.plan.estimate import Sizes
from meltrepro.plan.model import Plan
from meltrepro.plan.names import resolve
from meltrepro.plan.planner import make_plan, selected, targets_of
from meltrepro.settings import Settings
from meltrepro.steps import Sink, Step, silent
from meltrepro.store.mirror import load_mirrors
from meltrepro.store.source import key_of
from meltrepro.targets.base import DeviceFacts, Target
from meltrepro.targets.presence import Absence, Seen, look
from meltrepro.targets.registry import makers
from meltrepro.workflow import names
from meltrepro.workflow.fits import check_fits
from meltrepro.workflow.manifests import read_manifest
from meltrepro.workflow.models import Looks, at_hand, require_loadable
from meltrepro.workflow.models import look as look_at_models
from meltrepro.workflow.sizes import Survey, survey

_MOST_OF_DATA = 512 << 20


Bind = Callable[[LoadedManifest], tuple[LoadedManifest, Mapping[str, Seen]]]
"""Puts devices of a lab in the place of a manifest's targets; returns them by target name."""


@dataclass(frozen=True)
class Session:
    """One command at work on one manifest: everything is read, opened and planned once."""

    loaded: LoadedManifest
    settings: Settings
    devices: Mapping[str, Seen]
    """Those that the plan has to do with, by target name."""
    survey: Survey
    """What was there when the command began."""
    plan: Plan
    tools: Tools
    lock_path: Path
    """Where this manifest's lock stands."""
    overrides: Sequence[str] = ()
    recorded: bool = False
    """Whether the lock belongs to a record, which never changes."""

    @cached_property
    def altered(self) -> bool:
        """Whether overrides change what the lock pins: the lock beside the manifest is then not written."""
        return _altered(self.loaded, self.overrides, self.tools.pins.lock)

    @property
    def targets(self) -> dict[str, Target]:
        """The devices that are there, by name."""
        return {name: device.target for name, device in self.devices.items() if device.target is not None}

    @property
    def missing(self) -> dict[str, Absence]:
        """Why the others are not, by name."""
        return {name: device.absence for name, device in self.devices.items() if device.absence is not None}

    def repeated(self, repetitions: int) -> Session:
        """The same for this many repetitions in interleaved rounds, whatever the manifest says."""
        protocol = self.plan.manifest.protocol.model_copy(
            update={"repetitions": repetitions, "order": Order.interleaved}
        )
        return replace(
            self, plan=replace(self.plan, manifest=self.plan.manifest.model_copy(update={"protocol": protocol}))
        )

    def warn(self, message: str) -> None:
        """Say what somebody should know before anything is measured."""
        self.tools.sink(Step("warning", "note", message))

    def require_lock(self) -> Lock:
        """The lock; raises `LockError` where none was written yet."""
        if not self.lock_path.exists():
            raise LockError(
                f"{self.lock_path} does not exist",
                hint=f"write it with: meltrepro lock {shlex.quote(str(self.loaded.path))}",
            )
        return self.tools.pins.lock

    def pin(self) -> dict[str, str]:
        """Pin every source of the plan in the lock; returns the optional frameworks whose sources there are not, and why."""
        unhad: dict[str, str] = {}
        for bundle in self.plan.bundles:
            try:
                for source in bundle.sources.values():
                    self.tools.pins.pin(source)
            except (DownloadError, OfflineError):
                raise
            except SourceError as error:
                if not self.plan.optional(bundle):
                    raise
                unhad[bundle.framework_name] = error.message
                self.warn(f"left out: {bundle.framework_name}: {error.message}")
        plan = self.plan.without(unhad)
        for model in plan.models:
            self.tools.pins.pin_model(model.source)
        if not self.recorded:
            require_loadable(plan, self.tools.pins)
        if any(workload.conversations == MELT for workload in self.loaded.manifest.conversations.values()):
            self.tools.pins.pin(MELT_SOURCE)
        for name in self._scored:
            source = source_of(self.loaded.manifest.accuracy[name])
            if not self.recorded:  # a record has its own digest of them
                self.tools.pins.pin(source)
        return unhad

    @property
    def _scored(self) -> list[str]:
        """The accuracy workloads of the plan, by name."""
        wanted = {cell.workload_name for cell in self.plan.cells}
        return [name for name in self.loaded.manifest.accuracy if name in wanted]

    def data(self) -> dict[str, Data]:
        """The data of every accuracy workload of the plan, by name; raises what fetching and pinning raise."""
        found: dict[str, Data] = {}
        for name in self._scored:
            source = source_of(self.loaded.manifest.accuracy[name])
            if not self.recorded:
                pinned = self.tools.pins.pin(source)
                source = source.model_copy(update={"digest": pinned.digest})
            path = self.tools.fetcher.get(source, self.loaded.path.parent)
            label = f"workloads.{name} ({key_of(source)})"
            if path.stat().st_size > _MOST_OF_DATA:
                raise DataError(
                    f"{label}: the data have more than {_MOST_OF_DATA >> 20} MiB", hint="name a part of them"
                )
            content = path.read_bytes()
            found[name] = Data(content, hashlib.sha256(content).hexdigest(), label)
        return found

    def keep(self, content: bytes) -> Input:
        """Put a file that is made of data into the store."""
        digest = self.tools.store.put_bytes(content)
        return Input(self.tools.store.path(digest), digest)

    def build(self, *, rebuild: bool = False, anew: bool = False) -> Built:
        """Build what is missing (everything, with `rebuild`) and write the lock where that is allowed.

        For a record the very artifacts that it names are taken, unless they are to be made `anew` by today's recipes.
        """
        exact, unhad = self.recorded and not anew, dict[str, str]()
        if not (exact and all(self.tools.store.has(each.digest) for each in self.tools.pins.lock.artifacts.values())):
            unhad = self.pin()  # sources are needed only where something is to be made of them
        built = Builder(self.tools, rebuild, exact).build(self.plan.without(unhad))
        built = replace(built, failed={**unhad, **built.failed})
        if not rebuild and not self.recorded and not self.altered:
            self.save_lock()
        return built

    def completed(self) -> Lock:
        """The lock, with everything filled in that follows from the manifest."""
        return self.tools.pins.complete(manifest_digest(self.loaded.manifest), prompt_digests(self.loaded))

    def save_lock(self) -> None:
        """Write the lock beside the manifest if it says anything new; raises what `Pins.save` raises."""
        self.completed()
        self.tools.pins.save(self.lock_path, self.loaded.path)


def _altered(loaded: LoadedManifest, overrides: Sequence[str], lock: Lock) -> bool:
    """Whether a manifest as it is written would be pinned in another way."""
    written = names.known(read_manifest(loaded.path, ()), lock.names) if overrides else loaded
    return manifest_digest(written.manifest) != manifest_digest(loaded.manifest)


def _matters(problem: Problem, plan: Plan) -> bool:
    """Whether a problem is in a part of the manifest that cells of the plan need."""
    part, _, field = problem.field.partition(".")
    used = {
        "models": {cell.model_name for cell in plan.cells},
        "frameworks": {cell.framework_name for cell in plan.cells},
        "workloads": {cell.workload_name for cell in plan.cells},
    }
    # Names may have dots in them.
    return part not in used or any(field.startswith(f"{name}.") for name in used[part])


def _weights(manifest: Manifest) -> dict[str, Weights]:
    """What writes synthetic weights for the frameworks of a manifest, by format."""
    found = [framework(each.kind).weights for each in manifest.frameworks.values()]
    return {weights.format: weights for weights in found if weights is not None}


def _to_plan_with(seen: Mapping[str, Seen], *, measured: bool) -> tuple[dict[str, DeviceFacts], dict[str, Skip]]:
    """Facts of the devices that there is to plan for, by target name, and why there are none of others."""
    facts: dict[str, DeviceFacts] = {}
    unusable: dict[str, Skip] = {}
    for name, device in seen.items():
        if device.facts is not None and not (measured and device.target is None):
            facts[name] = device.facts
        elif device.absence is not None:
            reason = device.absence.reason
            if not measured:
                reason += f"; to plan without it, say what it is: targets.{name}.assume (docs/manifest.md)"
            unusable[name] = Skip(device.absence.kind, reason)
    return facts, unusable


def _tell(device: Seen, sink: Sink, *, measured: bool) -> None:
    """Name a device that is not there, and say what its cells are planned with; and where an assumption does not hold."""
    if device.absence is not None:
        known = None if measured else device.known_as
        detail = {"error": device.absence.reason, "instead": known}
        sink(Step("absent", "note", device.name, detail={key: text for key, text in detail.items() if text}))
    if device.remark is not None:
        sink(Step("warning", "note", device.remark))


@contextlib.contextmanager
def open_session(
    spec: Path,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    *,
    engine: EngineName = "docker",
    locked: bool = False,
    sink: Sink = silent,
    settings: Settings | None = None,
    lock_file: Path | None = None,
    conditions: Conditions = USUAL,
    measured: bool = False,
    pinned: bool = True,
    upgrade: Sequence[str] = (),
    bind: Bind | None = None,
) -> Iterator[Session]:
    """Load, probe, plan and open the store, for as long as the block runs.

    Models on the hub are `pinned` before anything is planned, so that plans know how large they are; with `upgrade`, those
    of which the manifest names no commit are taken anew where it has their model or repository.

    Only devices that `only` leaves are touched. One that is not there is planned for by what is remembered or assumed of it,
    unless it is to be `measured`: then its cells are skipped. With `bind` they are those of a lab.

    The lock stands beside the manifest, unless `lock_file` names that of a recorded campaign. Whoever made that: what is
    learnt and built then stays in its scope of the store.
    """
    settings = settings or settings_module.load()
    mirrors = load_mirrors(settings.mirrors)  # now, not when the first source is looked up in it
    loaded = read_manifest(spec, overrides)
    path = lock_file or lock_path(loaded.path)
    lock = load_lock(path)
    if lock is not None:
        lock = names.without(lock, loaded, upgrade, moving=not locked and lock_file is None)
        loaded = names.known(loaded, lock.names)
    bound: Mapping[str, Seen] | None = None
    if bind is not None:
        loaded, bound = bind(loaded)
    digest = manifest_digest(loaded.manifest)
    if locked and lock is not None and lock.manifest != digest:
        mend = f"write it anew with: meltrepro lock {shlex.quote(str(loaded.path))}"
        raise StaleLock(
            f"{path} belongs to another state of {loaded.path.name}: its models or frameworks changed; "
            f"the lock is of {lock.manifest}, the manifest is {digest}",
            hint="--set changes what is pinned: leave it out, or change the manifest itself"
            if _altered(loaded, overrides, lock)
            else mend,
        )
    resolve(loaded)  # what is wrong with the manifest is said before any device is touched
    cells = selected(loaded.manifest, only)
    warnings: tuple[str, ...] = ()
    if lock_file is None:  # a record is what it is
        too_small, tight = check_fits(loaded, {key.workload for key in cells})
        if too_small:
            raise ManifestError(too_small)
        warnings = (*loaded.warnings, *map(str, tight))
    for warning in warnings:
        sink(Step("warning", "note", warning))
    tools = Tools(
        *(settings, sink, lock or Lock(lock=1, manifest=digest), engine, locked, conditions),
        makers=makers,
        record=lock_file,
        base_dir=loaded.path.parent,
        weights=_weights(loaded.manifest),
    )
    with interrupts.raising(), contextlib.ExitStack() as stack:
        stack.callback(tools.store.release)
        loaded = names.found(loaded, tools.pins, needed=pinned)
        # A record's models ran once.
        models = look_at_models(loaded, resolve(loaded), at_hand(tools.pins)) if lock_file is None else Looks()
        for warning in models.warnings:
            sink(Step("warning", "note", warning))
        wanted = targets_of(loaded.manifest, cells)
        seen = (
            look(loaded.manifest, wanted, settings, tools)
            if bound is None
            else {name: each for name, each in bound.items() if name in wanted}
        )
        devices, unusable = _to_plan_with(seen, measured=measured)
        for device in seen.values():
            _tell(device, sink, measured=measured)
        if loaded.manifest.protocol.repetitions == "auto" and devices:
            from meltrepro.workflow.repeating import with_repetitions  # statistics take their time to load

            loaded = with_repetitions(loaded, devices, settings.home)
        if lock is not None:
            tools.store.add_root(path)

        if pinned and lock_file is None:
            for name in dict.fromkeys(key.model for key in cells if key.model not in upgrade):
                if isinstance(source := loaded.manifest.models[name].source, HuggingFaceSource):
                    tools.pins.pin_model(source)

        def planner(devices: Mapping[str, DeviceFacts], sizes: Sizes) -> Plan:
            plan = make_plan(loaded, devices, sizes, only, unusable, models.refusals)
            remarks = [device.remark for device in seen.values() if device.remark is not None]
            return replace(plan, warnings=(*warnings, *models.warnings, *remarks, *plan.warnings))

        found = survey(planner, devices, loaded, lock, tools)
        if lock_file is None:  # a record's files need not be here, only in the store
            require_files([each for each in missing_files(loaded, mirrors.has) if _matters(each, found.plan)])
            models.require_whole(lambda problem: _matters(problem, found.plan))
            unfit = [each.reason for each in found.plan.skipped if each.kind is SkipKind.model]
            for reason in dict.fromkeys(unfit):
                sink(Step("warning", "note", f"left out: {reason}"))
        yield Session(
            *(loaded, settings, seen, found, found.plan, tools, path, overrides),
            recorded=lock_file is not None,
        )
