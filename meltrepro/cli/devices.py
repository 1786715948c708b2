"""`meltrepro devices`: what is attached and in which state; `probe`, `restore` and `clean` act on one of them."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.errors import TargetError, UsageError

if TYPE_CHECKING:
    from meltrepro.record.capabilities import BatteryReport, Capabilities
    from meltrepro.targets.base import DeviceFacts, Dischargeable, TriedSetting

app = typer.Typer(rich_markup_mode=None, help="What is attached, in which state it is, and what to do about it.")

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
    from meltrepro.targets import registry
    from meltrepro.targets.base import Pairing

    settings = settings_module.load()
    kinds = registry.kinds()
    if pair is not None:
        for kind in kinds:
            if isinstance(kind, Pairing):
                kind.pair(pair, settings, partial(typer.echo, err=True))
    found = {kind.kind: kind.attached(settings) for kind in kinds}
    rows = [row for rows in found.values() for row in rows]
    if json:
        typer.echo(json_module.dumps([asdict(row) for row in rows], indent=2))
        return
    width = max(len(row.serial) for row in rows) + 2
    for row in rows:
        typer.echo(f"{row.kind:10}{row.serial:{width}}{row.state:14}{row.device}".rstrip())
        if row.todo:
            typer.echo(f"{'':10}{'':{width}}{row.todo}")
    for kind in kinds:
        if not found[kind.kind] and (advice := kind.absent()) is not None:
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
    from meltrepro.targets.base import Adjustable, Dischargeable

    settings = settings_module.load()
    target = registry.open_target(registry.named(device, root, settings), settings)
    facts = target.identify()
    with lock.hold(lock.lock_path(settings.run, facts.id), "devices probe"):
        tried: Sequence[TriedSetting] = ()
        if isinstance(target, Adjustable):
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
            battery=_battery(target, seconds) if isinstance(target, Dischargeable) and seconds else None,
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
    from meltrepro.targets.base import Adjustable

    settings = settings_module.load()
    target = registry.open_target(registry.named(device, root, settings), settings)
    with lock.hold(lock.lock_path(settings.run, target.identify().id), "devices restore"):
        strays = target.stop_strays()
        restored = target.restore() if isinstance(target, Adjustable) else {}
    typer.echo(f"{strays} programs were stopped" if strays else "nothing was running")
    for name, value in restored.items():
        typer.echo(f"{name} is {value} again")
    if not restored:
        typer.echo("no setting was to be put back")


@app.command()
def clean(device: DeviceArgument = None, root: RootOption = None) -> None:
    """Remove everything that was deployed to a device; the next campaign sends what it needs."""
    from meltrepro.targets import device_lock as lock
    from meltrepro.targets import registry
    from meltrepro.targets.base import Cleanable
    from meltrepro.words import readable

    settings = settings_module.load()
    target = registry.open_target(registry.named(device, root, settings), settings)
    if not isinstance(target, Cleanable):
        raise TargetError("nothing is deployed to this machine", hint="free space in the store with: meltrepro gc")
    with lock.hold(lock.lock_path(settings.run, target.identify().id), "devices clean"):
        typer.echo(f"{readable(target.clean())} freed")


@app.command()
def sudoers(
    device: Annotated[str, typer.Argument(help="As ssh calls the board, jetson:ALIAS, or the name of one of the lab.")],
    user: Annotated[
        str | None, typer.Option("--user", help="Who may; the user whom ssh logs in there where absent.")
    ] = None,
    root: RootOption = None,
) -> None:
    """Print a file for /etc/sudoers.d on a board: the commands that change its settings, without a password."""
    from meltrepro.registry import TARGETS
    from meltrepro.targets import registry
    from meltrepro.targets.base import Privileged

    settings = settings_module.load()
    options = registry.named(device, root, settings)
    kind = TARGETS.get(options.kind)
    if not isinstance(kind, Privileged):
        raise UsageError(f"{device}: no setting of a target of kind {options.kind} needs root")
    typer.echo(kind.sudoers(options, settings, user), nl=False)


def _battery(target: Dischargeable, seconds: float) -> BatteryReport:
    from meltrepro.cli.console import console
    from meltrepro.measure.calibration import calibrate
    from meltrepro.steps import Step

    with console(quiet=False) as sink:
        return calibrate(
            target.discharge(
                seconds,
                lambda done_s: sink(Step("calibrate", "progress", "battery", done=done_s, total=seconds, unit="s")),
            )
        )


def _keeping(old: Capabilities | None, new: Capabilities) -> Capabilities:
    """A new report with the calibration of an earlier one of the same system, where it has none of its own."""
    if new.battery is not None and new.battery.calibrated:
        return new
    if old is None or old.system != new.system or old.battery is None or not old.battery.calibrated:
        return new
    return new.model_copy(update={"battery": old.battery})


def _show(facts: DeviceFacts, report: Capabilities) -> None:
    typer.echo(facts.described)
    for control in report.controls:
        how = f"works (was {control.before}, was set to {control.set_to} and back)" if control.works else control.why
        typer.echo(f"  {control.name:18}{how}")
    typer.echo(f"  {'sampled':18}{', '.join(report.sources)}")
    battery = report.battery
    if battery is not None:
        unit = f"one unit of its current is {battery.current_a:+g} A" if battery.calibrated else battery.why
        typer.echo(f"  {'battery':18}{'calibrated: ' if battery.calibrated else 'not calibrated: '}{unit}")
