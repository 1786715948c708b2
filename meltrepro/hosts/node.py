"""A node of a lab: the host that devices are plugged into, which runs their trials and keeps the records until they are fetched.

Its own folder answers first: a trial that has a record there is not run again, whoever asks and however often. A trial runs with
its device taken (`hosts.lease`), by the code of any campaign.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from meltrepro.build.model import Artifact, Input
from meltrepro.build.tools import EngineName, Tools
from meltrepro.campaign.runner import Halted
from meltrepro.campaign.trial import CellRun, Watcher, run_trial
from meltrepro.errors import DeviceBusy, MeltreproError, TargetError, UsageError
from meltrepro.hosts import lease, quiet
from meltrepro.hosts.wire import Offer, TrialAnswer, TrialOrder
from meltrepro.manifest.lock import Lock
from meltrepro.manifest.targets import TargetOptions
from meltrepro.record import calibrations, capabilities, layout
from meltrepro.record.reader import read_outcome
from meltrepro.registry import TARGETS
from meltrepro.settings import Settings
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.targets.base import Adjustable, Target, TargetKind
from meltrepro.targets.presence import driving
from meltrepro.targets.registry import named, open_target

Fetch = Callable[[str], object]
"""Brings the file with a digest into the node's store."""
_KEPT_S = 60 * 24 * 3600
"""Records that nobody has asked for in such a time are removed when a node starts; those who ordered them have them."""


def plugged_in(settings: Settings, tell: Callable[[str], object]) -> list[TargetOptions]:
    """What can be used of the devices that are attached; `tell` hears in a line each why others cannot."""
    found = []
    for name in TARGETS.kinds():
        try:
            kind: TargetKind = TARGETS.get(name)
            with driving(f"devices of kind {name}"):
                rows = kind.attached(settings)
            for row in rows:
                if row.state != "device":
                    tell(f"not offered: {name} {row.serial}: {row.todo or row.state}")
                    continue
                found.append(named(f"{name}:{row.serial}" if row.serial else name, None, settings))
        except MeltreproError as error:
            tell(f"not offered: devices of kind {name}: {error.one_line}")
    return found


def listed(path: Path) -> list[TargetOptions]:
    """The targets in a file that is written like those of a manifest; raises `UsageError`."""
    import yaml
    from pydantic import ValidationError

    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["targets"]
        return [_options(entry) for entry in entries.values()]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValidationError) as error:
        said = " ".join(str(error).split())[:200]
        hint = "targets: {pixel: {kind: android, serial: ...}}, as in a manifest"
        raise UsageError(f"{path}: expected targets of devices: {said}", hint=hint) from error


@dataclass
class LabNode:
    """One host, with the devices that it offers."""

    name: str
    settings: Settings
    engine: EngineName = "docker"
    tell: Callable[[str], object] = print
    """Hears what somebody at the host should know, a line at a time."""
    stopping: threading.Event = field(default_factory=threading.Event)
    _targets: dict[str, Target] = field(default_factory=dict)
    """By how they are opened."""
    _lanes: dict[str, threading.Lock] = field(default_factory=dict)
    _offers: dict[str, Offer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tools = Tools(self.settings, silent, Lock(lock=1, manifest="0" * 64), self.engine)

    @property
    def records(self) -> Path:
        """Where records are kept, by campaign."""
        return self.settings.home / "lab" / "trials"

    def offer(self, entries: list[TargetOptions]) -> list[Offer]:
        """Ask devices what they are; those that do not answer, or are named twice, are left out with a line."""
        found: dict[str, Offer] = {}
        for entry in entries:
            said = entry.model_dump(mode="json", exclude_unset=True)
            try:
                with driving(f"a device of kind {entry.kind}"):
                    target = self._open(entry)
                    facts = target.identify()
                    sources = tuple(target.sources())
            except MeltreproError as error:
                self.tell(f"not offered: {' '.join(error.one_line.split())}")
                continue
            if facts.id in found:
                self.tell(f"not offered: {entry.kind} {facts.id} is named twice; one is enough")
                continue
            lane = f"{self.name}/here" if facts.here or facts.virtual else facts.id
            paths = [each.path_of(self.settings.home, facts.id) for each in (capabilities, calibrations)]
            known = {path.parent.name: path.read_text() for path in paths if path.is_file()}
            found[facts.id] = Offer(self.name, said, facts, lane, sources, known)
        self._offers = found
        return list(found.values())

    def see_to(self, order: TrialOrder, fetch: Fetch) -> TrialAnswer:
        """The record of a trial: the one that is here, or that of a trial which runs now."""
        offer = self._offers.get(order.device)
        if offer is None:
            return TrialAnswer(self.name, error=f"{self.name} has no device {order.device} now")
        folder = self._folder(order)
        try:
            with self._lanes.setdefault(offer.lane, threading.Lock()):
                if read_outcome(folder) is not None:
                    return self._answer(folder)
                return self._run(order, offer, folder, fetch)
        except DeviceBusy as error:
            return TrialAnswer(self.name, error=error.message, busy=True)
        except MeltreproError as error:
            return TrialAnswer(self.name, error=" ".join(error.one_line.split()))
        except Exception as error:  # whatever is wrong here must not end a campaign elsewhere
            return TrialAnswer(self.name, error=" ".join(f"{type(error).__name__}: {error}".split()))
        except Halted:
            return TrialAnswer(self.name, error=f"{self.name} is being stopped", busy=True)

    @property
    def measures_itself(self) -> bool:
        """Whether a trial runs on this host's own CPUs."""
        lane = self._lanes.get(f"{self.name}/here")
        return lane is not None and lane.locked()

    def tidy(self) -> None:
        """Remove records that nobody has asked for in a long time."""
        import shutil

        for campaign in self.records.iterdir() if self.records.is_dir() else ():
            if time.time() - campaign.stat().st_mtime > _KEPT_S:
                shutil.rmtree(campaign, ignore_errors=True)

    def stop(self) -> None:
        """End what runs, as if it had never begun, and leave every device as it was found."""
        self.stopping.set()
        for target in self._targets.values():
            try:
                with driving("device"):
                    target.stop_strays()
                    if isinstance(target, Adjustable):
                        target.restore()
            except MeltreproError as error:
                self.tell(f"not put back: {error.one_line}; next: meltrepro devices restore")

    def _folder(self, order: TrialOrder) -> Path:
        folder = layout.trial_folder(self.records / order.campaign, order.trial)
        return folder.with_name(f"{folder.name}-{order.attempt}")

    def _run(self, order: TrialOrder, offer: Offer, folder: Path, fetch: Fetch) -> TrialAnswer:
        store = Store(self.settings.store)
        missing = [digest for digest in digests(order.run) if not store.has(digest)]
        if missing:
            with quiet.working():
                for digest in missing:
                    fetch(digest)
        target = self._open(_options(order.entry))
        with (
            quiet.measuring(),
            lease.taken(order.device, target, order.name, self.name) as taken,
            self._put_back(target),
        ):
            with driving(order.device):
                target.stop_strays()
                facts = target.identify()
            if facts.id != order.device:
                raise TargetError(f"{order.device} is not there, but {facts.id} in its place")
            run = replace(localised(order.run, store), target=target, facts=facts)

            def ending() -> None:
                self._rest(0)
                taken.require()

            ended = run_trial(run, order.trial, order.attempt, folder, Watcher(rest=self._rest, ending=ending))
            return replace(self._answer(folder), metrics=ended.metrics)

    def _rest(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise Halted

    @contextmanager
    def _put_back(self, target: Target) -> Iterator[None]:
        """Leave the device's settings as they were, before a trial of somebody else begins."""
        try:
            if isinstance(target, Adjustable):
                with driving("device"):
                    target.restore()
            yield
        finally:
            if isinstance(target, Adjustable):
                with driving("device"):
                    target.restore()

    def _answer(self, folder: Path) -> TrialAnswer:
        return TrialAnswer(
            self.name, {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        )

    def _open(self, entry: TargetOptions) -> Target:
        key = json.dumps([entry.kind, entry.model_dump(mode="json", exclude_unset=True)], sort_keys=True)
        if key not in self._targets:
            self._targets[key] = open_target(entry, self.settings, self._tools)
        return self._targets[key]


def _options(entry: Mapping[str, Any]) -> TargetOptions:
    kind: TargetKind = TARGETS.get(entry["kind"])
    return kind.options.model_validate(entry)


def files_of(run: CellRun) -> dict[str, Path]:
    """The files that trials of a cell need, by digest, where they lie with whoever built them."""
    artifacts = {each.digest: each.file for each in (run.bundle, run.model)}
    return artifacts | {each.digest: each.path for each in run.inputs.values()}


def digests(run: CellRun) -> list[str]:
    return list(files_of(run))


def localised(run: CellRun, store: Store) -> CellRun:
    """The same cell with the files of this machine's store; raises what `Store.verify` and `Store.unpack` raise."""

    def artifact(there: Artifact) -> Artifact:
        file = store.verify(there.digest)
        return replace(there, file=file, path=store.unpack(there.digest) / there.path.name if there.is_folder else file)

    inputs = {name: Input(store.verify(each.digest), each.digest) for name, each in run.inputs.items()}
    return replace(run, bundle=artifact(run.bundle), model=artifact(run.model), inputs=inputs, about=lambda: None)
