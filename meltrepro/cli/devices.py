"""`meltrepro devices`: what is attached, in which state, and what to do about it."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.errors import MeltreproError
from meltrepro.plan.model import DeviceFacts
from meltrepro.spec.targets import AndroidTarget, HostTarget


@dataclass(frozen=True)
class Row:
    """One device as it is shown."""

    kind: str
    serial: str
    state: str
    device: str
    todo: str | None


def command(
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    pair: Annotated[
        str | None, typer.Option("--pair", metavar="UDID", help="Have an iPhone ask whether to trust this computer.")
    ] = None,
) -> None:
    """Say what is attached, in which state it is, and what to do about it."""
    from meltrepro.cli import iphones
    from meltrepro.targets import registry

    settings = settings_module.load()
    if pair is not None:
        iphones.pair(pair, settings)
    host = registry.open_target(HostTarget(), settings, None)
    rows = [Row("host", "", "device", _describe(host.identify()), None), *_phones()]
    rows += [Row("ios", *found) for found in iphones.found(settings)]
    if json:
        typer.echo(json_module.dumps([asdict(row) for row in rows], indent=2))
        return
    width = max(len(row.serial) for row in rows) + 2
    for row in rows:
        typer.echo(f"{row.kind:10}{row.serial:{width}}{row.state:14}{row.device}".rstrip())
        if row.todo:
            typer.echo(f"{'':10}{'':{width}}{row.todo}")
    if not any(row.kind == "android" for row in rows):
        typer.echo("no Android device is attached; adb must see it first: adb devices (docs/devices/android.md)")
    if (advice := iphones.advice()) is not None:
        typer.echo(advice)


def _phones() -> list[Row]:
    """Android devices of the usual adb server and of the lab's; a server is not started just to look."""
    from meltrepro.targets import registry
    from meltrepro.targets.adb import Server
    from meltrepro.targets.android import lab_devices

    settings = settings_module.load()
    rows = []
    servers = [(Server.usual(), None), *((device.server, device) for device in lab_devices(settings))]
    for server, lab in servers:
        if not server.answers():
            continue
        for device in server.devices():
            if lab is not None and device.serial != lab.serial:
                continue
            entry = AndroidTarget(kind="android", serial=device.serial, lab=lab.name if lab else None, reconnect_s=0)
            found, todo = "", device.fix
            if device.usable:
                try:
                    found = _describe(registry.open_target(entry, settings, None).identify())
                except MeltreproError as error:
                    todo = error.message
            rows.append(Row("android", device.serial, device.state, found, todo))
    return rows


def _describe(facts: DeviceFacts) -> str:
    known = [facts.model, facts.facts.get("android") and f"Android {facts.facts['android']}", facts.arch]
    known += [
        f"{facts.cores} cores",
        f"{facts.memory_bytes / 1e9:.1f} GB",
        facts.id,
        "virtual" if facts.virtual else None,
    ]
    return ", ".join(each for each in known if each)
