"""Labs of many hosts: a campaign on the devices of one, how it is, and who may use its devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from meltrepro import interrupts
from meltrepro import settings as settings_module
from meltrepro.atomic import write_bytes
from meltrepro.build.tools import EngineName
from meltrepro.campaign.conduct import conduct
from meltrepro.errors import LabError, ManifestError, RecordError, TargetLost
from meltrepro.hosts import wire
from meltrepro.hosts.link import LabLink
from meltrepro.hosts.pools import Bound, bind
from meltrepro.hosts.wire import LabState
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.plan.planner import require_cells
from meltrepro.record.reader import own_folders, read_folder
from meltrepro.settings import Settings
from meltrepro.steps import Sink, fan_out, silent
from meltrepro.targets.presence import Absence, Seen
from meltrepro.workflow.campaigns import Ran, prepare
from meltrepro.workflow.session import open_session
from meltrepro.workflow.tracking import log_campaign


def run_on_lab(
    manifest: Path | str,
    head: str,
    *,
    token: str | None = None,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    engine: EngineName = "docker",
    new: bool = False,
    fail_fast: bool = False,
    locked: bool = False,
    track: bool = True,
    wait_s: float = 600.0,
    priority: int = 0,
    measured: Callable[[Path], None] = lambda _: None,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Ran:
    """As `run`, on devices of the lab whose head is at `head`; `token` is the file with its token, that of this machine where absent.

    A device that goes away is waited for, at most `wait_s`; then its cells wait for the next call. Among campaigns that want one device, the
    higher `priority` comes first, else each has a trial in turn. Raises what `run` raises, and `LabError`.
    """
    settings = settings or settings_module.load()
    with interrupts.raising(), _linked(head, token, settings, priority, wait_s) as lab:
        session_of = partial(_bound, lab=lab, settings=settings, new=new)
        with open_session(
            Path(manifest),
            *(overrides, only),
            engine=engine,
            locked=locked,
            sink=sink,
            settings=settings,
            measured=True,
            bind=session_of,
        ) as session:
            require_cells(session.plan)
            setup = prepare(session, tuple(only), tracked=track)
            heard = fan_out(sink, lab.watch)
            result = conduct(setup, settings, heard, new=new, fail_fast=fail_fast, means=lab.means())
    folder = result.campaign.folder
    measured(folder)
    logged = None
    if track and session.loaded.manifest.tracking.enabled:
        logged = log_campaign(folder, session.loaded.manifest.tracking.uri, settings, sink)
    return Ran(folder, result.tally, result.missing, logged, result.measured_s)


def lab_state(head: str, *, token: str | None = None, settings: Settings | None = None) -> LabState:
    """Hosts and devices of a lab, who uses them, and how long campaigns will take; raises `LabError`, `UsageError`."""
    with _linked(head, token, settings or settings_module.load()) as lab:
        return lab.state()


def reserve_device(
    head: str, device: str, seconds: float, *, token: str | None = None, settings: Settings | None = None
) -> str:
    """Keep a device for this user for so long; returns who that is. Raises `LabError` where somebody else has it."""
    with _linked(head, token, settings or settings_module.load()) as lab:
        if (why := lab.ask("reserve", device=device, who=lab.who, seconds=seconds)) is not None:
            raise LabError(why, hint=f"see: meltrepro lab status {head}")
        return lab.who


def release_device(head: str, device: str, *, token: str | None = None, settings: Settings | None = None) -> bool:
    """End a device's reservation and quarantine; returns whether there was any."""
    with _linked(head, token, settings or settings_module.load()) as lab:
        return bool(lab.ask("release", device=device))


@contextlib.contextmanager
def _linked(
    head: str, token: str | None, settings: Settings, priority: int = 0, patience_s: float = 0.0
) -> Iterator[LabLink]:
    lab = LabLink(wire.address(head), wire.token(settings, token), priority=priority, patience_s=patience_s)
    try:
        yield lab
    finally:
        lab.close()


def _bound(
    loaded: LoadedManifest, lab: LabLink, settings: Settings, new: bool
) -> tuple[LoadedManifest, Mapping[str, Seen]]:
    """A manifest whose targets are devices of a lab, and those."""
    _require_alone(loaded)
    manifest = loaded.manifest
    earlier = {} if new else _earlier(settings.records, manifest.name)
    found = bind(manifest.targets, lab.state().devices, earlier)
    entries: dict[str, Any] = {name: each.entry for name, each in found.items()}
    seen = {name: _seen(name, each, lab, settings) for name, each in found.items()}
    return replace(loaded, manifest=manifest.model_copy(update={"targets": entries})), seen


def _seen(name: str, bound: Bound, lab: LabLink, settings: Settings) -> Seen:
    device = bound.device
    if device is None:
        return Seen(name, absence=Absence.of(name, TargetLost(f"target {name}: {bound.reason}")))
    if device.quarantined is not None:
        why = f"{device.offer.id} is in quarantine: {device.quarantined}"
        return Seen(name, absence=Absence.of(name, TargetLost(f"target {name}: {why}")))
    for folder, text in device.offer.reports.items():  # what its node knows of it belongs into its records
        path = settings.home / folder / f"{device.offer.id}.json"
        if not path.exists() or path.read_text() != text:
            write_bytes(path, text.encode())
    target = lab.target(device.offer, bound.entry.model_dump(mode="json", exclude_unset=True))
    return Seen(name, target, target.identify(), "asked")


def _require_alone(loaded: LoadedManifest) -> None:
    """Raise `ManifestError` for what needs two devices at once, or a file beside the manifest while trials run."""
    manifest = loaded.manifest
    wanted = [("targets", name, "meter") for name, each in manifest.targets.items() if each.meter is not None]
    wanted += [
        ("workloads", name, "offload") for name, each in manifest.workloads.items() if getattr(each, "offload", None)
    ]
    if wanted:
        why = "a lab of many hosts does not do this"
        raise ManifestError([problem_at(loaded, at, why, "run it where the devices are") for at in wanted])


def _earlier(records: Path, name: str) -> dict[str, str]:
    """The devices, by target name, of the newest campaign of this name that is not finished."""
    for folder in reversed(own_folders(records)):
        if f"-{name}-" in folder.name:
            with contextlib.suppress(RecordError):
                document = read_folder(folder).document
                if document.finished_wall_ns is None or document.waiting:
                    return {cell.target: str(cell.params["device.id"]) for cell in document.cells}
                return {}
    return {}
