"""`meltrepro devices`: what is attached and in which state; `probe`, `restore` and `clean` act on one of them."""

from __future__ import annotations

import json as json_module
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.errors import MeltreproError, TargetError, UsageError
from meltrepro.targets.android.options import AndroidOptions
from meltrepro.targets.base import DeviceFacts
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.ios.options import IosOptions
from meltrepro.targets.jetson.options import JetsonOptions
from meltrepro.targets.ssh.options import LinuxOptions

if TYPE_CHECKING:
    from meltrepro.record.capabilities import BatteryReport, Capabilities
    from meltrepro.settings import Settings
    from meltrepro.targets.base import Target
    from meltrepro.targets.ios.target import IosTarget
    from meltrepro.targets.remote.remote import RemoteTarget

app = typer.Typer(rich_markup_mode=None, help="What is attached, in which state it is, and what to do about it.")

Entry = AndroidOptions | HostOptions | IosOptions | JetsonOptions | LinuxOptions
JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
DeviceArgument = Annotated[
    str | None,
    typer.Argument(
        help="Serial as `meltrepro devices` shows it, name of a lab's device, jetson:ALIAS or linux:ALIAS as ssh calls a "
        "board, ios:UDID, or host; the only phone attached."
    ),
]
RootOption = Annotated[
    str | None, typer.Option("--root", help="Folder on the device, where the manifest's target names another one.")
]


@dataclass(frozen=True)
class Row:
    """One device as it is shown."""

    kind: str
    serial: str
    state: str
    device: str
    todo: str | None


@app.callback(invoke_without_command=True)
def command(
    context: typer.Context,
    json: JsonOption = False,
    pair: Annotated[
        str | None, typer.Option("--pair", metavar="UDID", help="Have an iPhone ask whether to trust this computer.")
    ] = None,
) -> None:
    """Say what is attached, in which state it is, and what to do about it."""
    if context.invoked_subcommand is not None:
        return
    from meltrepro.cli import iphones
    from meltrepro.targets import registry

    settings = settings_module.load()
    if pair is not None:
        iphones.pair(pair, settings)
    host = registry.open_target(HostOptions(), settings, None)
    rows = [Row("host", "", "device", _describe(host.identify()), None), *_phones(), *_boards()]
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


@app.command()
def probe(
    device: DeviceArgument = None,
    root: RootOption = None,
    seconds: Annotated[
        float, typer.Option(min=0, max=3600, help="How long to discharge its battery for calibration; 0: not at all.")
    ] = 60,
    json: JsonOption = False,
) -> None:
    """Find out what a device lets be read and set; the report goes into every record of it.

    Each setting is set to another value, read back, and put back. The battery's current is compared with its counter of
    charge while all CPUs are busy: unplug the device for that (wireless adb), else its energy is not published.
    """
    from meltrepro.atomic import write_bytes
    from meltrepro.record import capabilities
    from meltrepro.record.capabilities import Capabilities, ControlReport
    from meltrepro.targets import device_lock as lock
    from meltrepro.targets import registry

    settings = settings_module.load()
    entry = _entry(device, root, settings)
    target = registry.open_target(entry, settings)
    facts = target.identify()
    with lock.hold(lock.lock_path(settings.run, facts.id), "devices probe"):
        target.restore()
        tried = target.try_out()
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
            battery=_battery(entry, settings, seconds) if isinstance(entry, AndroidOptions) and seconds else None,
        )
        report = _keeping(capabilities.load(settings.home, facts.id), report)
        path = capabilities.path_of(settings.home, facts.id)
        write_bytes(path, (report.model_dump_json(indent=1) + "\n").encode())
    if json:
        typer.echo(report.model_dump_json(indent=1))
    else:
        _show(facts, report)
        typer.echo(f"report: {path}")


@app.command()
def restore(device: DeviceArgument = None, root: RootOption = None) -> None:
    """End what a killed campaign left running on a device, and put back the settings that it changed."""
    from meltrepro.targets import device_lock as lock
    from meltrepro.targets import registry

    settings = settings_module.load()
    target = registry.open_target(_entry(device, root, settings), settings)
    with lock.hold(lock.lock_path(settings.run, target.identify().id), "devices restore"):
        strays, restored = target.stop_strays(), target.restore()
    typer.echo(f"{strays} programs were stopped" if strays else "nothing was running")
    for name, value in restored.items():
        typer.echo(f"{name} is {value} again")
    if not restored:
        typer.echo("no setting was to be put back")


@app.command()
def clean(device: DeviceArgument = None, root: RootOption = None) -> None:
    """Remove everything that was deployed to a device; the next campaign sends what it needs."""
    from meltrepro.targets import device_lock as lock
    from meltrepro.words import readable

    settings = settings_module.load()
    target = _remote(_entry(device, root, settings), settings)
    with lock.hold(lock.lock_path(settings.run, target.identify().id), "devices clean"):
        typer.echo(f"{readable(target.clean())} freed")


def _entry(device: str | None, root: str | None, settings: Settings) -> Entry:
    """The device that is meant, as a manifest would name it; raises `UsageError` for a name that none would have."""
    from pydantic import ValidationError

    from meltrepro.targets.android.target import lab_devices
    from meltrepro.targets.ios.devices import lab_phones
    from meltrepro.targets.ssh.board import lab_boards

    if device == "host":
        return HostOptions(sandbox="bare")
    more = {"root": root} if root else {}
    kind, _, alias = (device or "").partition(":")
    try:
        if kind == "linux" and alias:
            return LinuxOptions.model_validate({"kind": kind, "host": alias, **more})
        if kind == "jetson" and alias:
            return JetsonOptions.model_validate({"kind": kind, "host": alias, **more})
        if kind == "ios" and alias:
            return IosOptions.model_validate({"kind": kind, "udid": alias, **more})
        if any(device in (each.name, each.udid) for each in lab_phones(settings)):
            name = next(each.name for each in lab_phones(settings) if device in (each.name, each.udid))
            return IosOptions.model_validate({"kind": "ios", "lab": name, **more})
        if any(board.name == device for board in lab_boards(settings)):
            return JetsonOptions.model_validate({"kind": "jetson", "lab": device, **more})
        running = {each.name: each for each in lab_devices(settings)}
        lab = next((each.name for each in running.values() if device in (each.name, each.serial)), None)
        place = {"lab": lab} if lab else {"serial": device}
        return AndroidOptions.model_validate({"kind": "android", **place, **more})
    except ValidationError as error:
        raise UsageError(f"{device!r} with the folder {root!r} names no device: {error.errors()[0]['msg']}") from error


def _remote(entry: Entry, settings: Settings) -> RemoteTarget | IosTarget:
    from meltrepro.targets import registry
    from meltrepro.targets.ios.target import IosTarget
    from meltrepro.targets.remote.remote import RemoteTarget

    target: Target = registry.open_target(entry, settings)
    if not isinstance(target, RemoteTarget | IosTarget):
        raise TargetError("nothing is deployed to this machine", hint="free space in the store with: meltrepro gc")
    return target


def _battery(entry: AndroidOptions, settings: Settings, seconds: float) -> BatteryReport:
    from meltrepro.cli.console import console
    from meltrepro.measure.calibration import calibrate
    from meltrepro.steps import Step
    from meltrepro.targets.android.battery import discharge
    from meltrepro.targets.android.target import open_shell

    with console(quiet=False) as sink:
        readings = discharge(
            open_shell(entry, settings),
            seconds,
            lambda done_s: sink(Step("calibrate", "progress", "battery", done=done_s, total=seconds, unit="s")),
        )
    return calibrate(readings)


def _keeping(old: Capabilities | None, new: Capabilities) -> Capabilities:
    """A new report with the calibration of an earlier one of the same system, where it has none of its own."""
    if new.battery is not None and new.battery.calibrated:
        return new
    if old is None or old.system != new.system or old.battery is None or not old.battery.calibrated:
        return new
    return new.model_copy(update={"battery": old.battery})


def _show(facts: DeviceFacts, report: Capabilities) -> None:
    typer.echo(_describe(facts))
    for control in report.controls:
        how = f"works (was {control.before}, was set to {control.set_to} and back)" if control.works else control.why
        typer.echo(f"  {control.name:18}{how}")
    typer.echo(f"  {'sampled':18}{', '.join(report.sources)}")
    battery = report.battery
    if battery is not None:
        unit = f"one unit of its current is {battery.current_a:+g} A" if battery.calibrated else battery.why
        typer.echo(f"  {'battery':18}{'calibrated: ' if battery.calibrated else 'not calibrated: '}{unit}")


def _phones() -> list[Row]:
    """Android devices of the usual adb server and of the lab's; a server is not started just to look."""
    from meltrepro.targets import registry
    from meltrepro.targets.android.adb import Server
    from meltrepro.targets.android.target import lab_devices

    settings = settings_module.load()
    rows = []
    servers = [(Server.usual(), None), *((device.server, device) for device in lab_devices(settings))]
    for server, lab in servers:
        if not server.answers():
            continue
        for device in server.devices():
            if lab is not None and device.serial != lab.serial:
                continue
            entry = AndroidOptions(kind="android", serial=device.serial, lab=lab.name if lab else None, reconnect_s=0)
            found, todo = "", device.fix
            if device.usable:
                try:
                    found = _describe(registry.open_target(entry, settings, None).identify())
                except MeltreproError as error:
                    todo = error.message
            rows.append(Row("android", device.serial, device.state, found, todo))
    return rows


def _boards() -> list[Row]:
    """Boards of the lab; others have no server that knows them, only names in manifests."""
    from meltrepro.targets import registry
    from meltrepro.targets.ssh.board import lab_boards

    settings = settings_module.load()
    rows = []
    for board in lab_boards(settings):
        entry = JetsonOptions(kind="jetson", lab=board.name, reconnect_s=0)
        state, found, todo = "device", "", None
        try:
            found = _describe(registry.open_target(entry, settings, None).identify())
        except MeltreproError as error:
            state, todo = "offline", error.one_line
        rows.append(Row("jetson", board.name, state, found, todo))
    return rows


def _describe(facts: DeviceFacts) -> str:
    known = [facts.model, facts.facts.get("android") and f"Android {facts.facts['android']}"]
    known += [facts.facts.get("l4t") and f"L4T {facts.facts['l4t']}", facts.arch]
    known += [
        f"{facts.cores} cores",
        f"{facts.memory_bytes / 1e9:.1f} GB",
        facts.id,
        "virtual" if facts.virtual else None,
    ]
    return ", ".join(each for each in known if each)
