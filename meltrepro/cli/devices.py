"""`meltrepro devices`: what is attached and in which state; `probe`, `restore` and `clean` act on one of them."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro.cli.common import JsonOption
from meltrepro.cli.console import console
from meltrepro.cli.documents import CleanDocument, DeviceRow, RestoreDocument
from meltrepro.cli.json_output import print_json
from meltrepro.words import readable
from meltrepro.workflow import devices

if TYPE_CHECKING:
    from meltrepro.record.capabilities import Capabilities
    from meltrepro.targets.base import DeviceFacts

app = typer.Typer(rich_markup_mode=None, help="What is attached, in which state it is, and what to do about it.")

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
    if pair is not None:
        devices.pair(pair, say=partial(typer.echo, err=True))
    rows, advice = devices.attached()
    if json:
        print_json("devices", [DeviceRow(**asdict(row)) for row in rows])
        for text in advice:
            typer.echo(text, err=True)
        return
    width = max((len(row.serial) for row in rows), default=0) + 2
    for row in rows:
        typer.echo(f"{row.kind:10}{row.serial:{width}}{row.state:14}{row.device}".rstrip())
        if row.todo:
            typer.echo(f"{'':10}{'':{width}}{row.todo}")
    for text in advice:
        typer.echo(text)


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
    with console(quiet=json) as sink:
        found = devices.probe(device, root=root, discharge_s=seconds, sink=sink)
    if json:
        print_json("devices-probe", found.report)
    else:
        _show(found.facts, found.report)
        typer.echo(f"report: {found.path}")


@app.command()
def restore(device: DeviceArgument = None, root: RootOption = None, json: JsonOption = False) -> None:
    """End what a killed campaign left running on a device, and put back the settings that it changed."""
    put_back = devices.restore(device, root=root)
    if json:
        print_json("devices-restore", RestoreDocument(strays=put_back.strays, values=dict(put_back.values)))
        return
    typer.echo(f"{put_back.strays} programs were stopped" if put_back.strays else "nothing was running")
    for name, value in put_back.values.items():
        typer.echo(f"{name} is {value} again")
    if not put_back.values:
        typer.echo("no setting was to be put back")


@app.command()
def clean(device: DeviceArgument = None, root: RootOption = None, json: JsonOption = False) -> None:
    """Remove everything that was deployed to a device; the next campaign sends what it needs."""
    freed = devices.clean(device, root=root)
    if json:
        print_json("devices-clean", CleanDocument(freed_bytes=freed))
    else:
        typer.echo(f"{readable(freed)} freed")


@app.command()
def sudoers(
    device: Annotated[str, typer.Argument(help="As ssh calls the board, jetson:ALIAS, or the name of one of the lab.")],
    user: Annotated[
        str | None, typer.Option("--user", help="Who may; the user whom ssh logs in there where absent.")
    ] = None,
    root: RootOption = None,
) -> None:
    """Print a file for /etc/sudoers.d on a board: the commands that change its settings, without a password."""
    typer.echo(devices.sudoers(device, user=user, root=root), nl=False)


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
