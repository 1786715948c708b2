"""`meltrepro lab`: virtual devices with real protocol stacks, to try everything without hardware."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings as settings_module

if TYPE_CHECKING:
    from meltrepro.lab.supervisor import Status

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Virtual devices, to try everything without hardware."
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@app.command()
def up(json: JsonOption = False) -> None:
    """Start the lab; it runs until `lab down`."""
    from meltrepro.lab import supervisor

    _show(supervisor.up(settings_module.load()), json)


@app.command()
def status(json: JsonOption = False) -> None:
    """Say what runs and how it is reached."""
    from meltrepro.lab import supervisor

    _show(supervisor.status(settings_module.load()), json)


@app.command()
def down() -> None:
    """End the lab; nothing of it stays."""
    from meltrepro.lab import supervisor

    typer.echo("the lab is down" if supervisor.down(settings_module.load()) else "no lab was running")


def _show(found: Status, json: bool) -> None:
    from meltrepro.lab.supervisor import DEVICES

    if json:
        typer.echo(json_module.dumps({"up": found.up, **asdict(found)}, indent=2))
        return
    if not found.up:
        typer.echo("no lab is running; start it with: meltrepro lab up")
    for name, place in found.devices.items():
        typer.echo(f"{name:20}{place['kind']:10}{DEVICES[name].command(place)}")
    for name, reason in found.missing.items():
        typer.echo(f"{name:20}missing: {reason}")
    for name, remark in found.remarks.items():
        typer.echo(f"{name:20}note: {remark}")
