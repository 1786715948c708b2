"""Devices: what is attached, what one of them lets be read and set, and leaving one as it was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meltrepro import settings as settings_module
from meltrepro.atomic import write_bytes
from meltrepro.errors import MeltreproError, TargetError, TargetLost, UsageError
from meltrepro.measure.calibration import calibrate
from meltrepro.record import capabilities
from meltrepro.record.capabilities import Capabilities, ControlReport
from meltrepro.registry import TARGETS
from meltrepro.settings import Settings
from meltrepro.steps import Sink, Step, silent
from meltrepro.targets import device_lock, registry
from meltrepro.targets.base import (
    Adjustable,
    Attached,
    Cleanable,
    DeviceFacts,
    Dischargeable,
    Pairing,
    Privileged,
    Target,
    TargetKind,
    TriedSetting,
)
from meltrepro.targets.presence import driving, remember


def attached(*, settings: Settings | None = None) -> tuple[Sequence[Attached], Sequence[str]]:
    """What is attached, with what to do about it; and what to know of kinds of which nothing is, or whose package is broken."""
    settings = settings or settings_module.load()
    rows: list[Attached] = []
    advice: list[str] = []
    for name in TARGETS.kinds():
        try:  # a kind that is broken does not hide the devices of others
            kind: TargetKind = TARGETS.get(name)
            with driving(f"devices of kind {name}"):
                found = kind.attached(settings)
                text = None if found else kind.absent()
        except MeltreproError as error:
            said = " ".join(error.one_line.split())
            advice.append(said if name in said else f"kind {name}: {said}")
            continue
        rows += found
        if text is not None:
            advice.append(text)
    return rows, advice


def pair(serial: str, *, say: Callable[[str], None] = lambda _: None, settings: Settings | None = None) -> None:
    """Have a device ask whether to trust this computer; `say` is told what the user is to do. Raises `TargetError`."""
    for kind in registry.kinds():
        if isinstance(kind, Pairing):
            kind.pair(serial, settings or settings_module.load(), say)


@dataclass(frozen=True)
class Probe:
    """What a device lets be read and set; the report goes into every record of it."""

    facts: DeviceFacts
    report: Capabilities
    path: Path


def probe(
    device: str | None = None,
    *,
    root: str | None = None,
    discharge_s: float = 60,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Probe:
    """Set each setting of a device to another value, read it back and put it back; calibrate its battery; keep the report.

    `device` is named as `meltrepro devices` shows it; the only phone attached if absent. The battery is discharged for
    `discharge_s`, not at all for 0. Raises `UsageError`, `TargetError`, `DeviceBusy`, `StoreError`.
    """
    settings = settings or settings_module.load()
    with _held(device, root, settings, "devices probe") as (target, facts):
        tried: Sequence[TriedSetting] = ()
        if isinstance(target, Adjustable):
            target.restore()
            tried = target.try_out()
        battery = None
        if isinstance(target, Dischargeable) and discharge_s:
            battery = calibrate(
                target.discharge(
                    discharge_s,
                    lambda done_s: sink(
                        Step("calibrate", "progress", "battery", done=done_s, total=discharge_s, unit="s")
                    ),
                )
            )
        report = Capabilities(
            device=facts.id,
            system=capabilities.system_of(facts.facts),
            probed_wall_ns=time.time_ns(),
            controls=[
                ControlReport(
                    name=each.name, works=each.set_to is not None, before=each.before, set_to=each.set_to, why=each.why
                )
                for each in tried
            ],
            sources=sorted(source.name for source in target.sources()),
            battery=battery,
        )
        report = _keeping(capabilities.load(settings.home, facts.id), report)
        path = capabilities.path_of(settings.home, facts.id)
        write_bytes(path, (report.model_dump_json(indent=1) + "\n").encode())
    return Probe(facts, report, path)


def _keeping(old: Capabilities | None, new: Capabilities) -> Capabilities:
    """A new report with the calibration of an earlier one of the same system, where it has none of its own."""
    if new.battery is not None and new.battery.calibrated:
        return new
    if old is None or old.system != new.system or old.battery is None or not old.battery.calibrated:
        return new
    return new.model_copy(update={"battery": old.battery})


@dataclass(frozen=True)
class PutBack:
    """What was put in order on a device."""

    strays: int
    """Programs that were still running."""
    values: Mapping[str, str]
    """The settings that were put back, with their values."""


def restore(device: str | None = None, *, root: str | None = None, settings: Settings | None = None) -> PutBack:
    """End what a killed campaign left running on a device, and put back the settings that it changed; raises as `probe`."""
    with _held(device, root, settings, "devices restore") as (target, _):
        strays = target.stop_strays()
        return PutBack(strays, target.restore() if isinstance(target, Adjustable) else {})


def clean(device: str | None = None, *, root: str | None = None, settings: Settings | None = None) -> int:
    """Remove everything that was deployed to a device; how many bytes are free now. Raises as `probe`."""
    with _held(device, root, settings, "devices clean") as (target, _):
        if not isinstance(target, Cleanable):
            raise TargetError("nothing is deployed to this machine", hint="free space in the store with: meltrepro gc")
        return target.clean()


def sudoers(device: str, *, user: str | None = None, root: str | None = None, settings: Settings | None = None) -> str:
    """A file for /etc/sudoers.d: the commands that change a board's settings, without a password; raises `UsageError`."""
    settings = settings or settings_module.load()
    options = registry.named(device, root, settings)
    kind = TARGETS.get(options.kind)
    if not isinstance(kind, Privileged):
        raise UsageError(f"{device}: no setting of a target of kind {options.kind} needs root")
    return kind.sudoers(options, settings, user)


@contextmanager
def _held(
    device: str | None, root: str | None, settings: Settings | None, why: str
) -> Iterator[tuple[Target, DeviceFacts]]:
    """A device that nobody else measures on meanwhile."""
    settings = settings or settings_module.load()
    options = registry.named(device, root, settings)
    try:
        with driving(device or options.kind):
            target = registry.open_target(options, settings)
            facts = target.identify()
    except TargetLost as error:
        serials = [row.serial for row in attached(settings=settings)[0]]
        if device is None or device in serials or not (near := registry.meant(device, serials, settings)):
            raise
        hint = f"did you mean {' or '.join(near)}? What is attached: meltrepro devices"
        raise TargetLost(error.message, hint=hint) from error
    remember(options, facts, settings)
    with device_lock.hold(facts.id, why):
        yield target, facts
