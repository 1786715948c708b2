"""`meltrepro lab`: virtual devices with real protocol stacks, to try everything without hardware."""

from __future__ import annotations

from dataclasses import asdict

import typer

from meltrepro import settings
from meltrepro.cli.common import JsonOption
from meltrepro.cli.documents import LabDocument, LabDownDocument
from meltrepro.cli.json_output import print_json
from meltrepro.lab import supervisor

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Virtual devices, to try everything without hardware."
)


@app.command()
def up(json: JsonOption = False) -> None:
    """Start the lab, or what is dead of it; it runs until `lab down`."""
    _show(supervisor.up(settings.load()), json)


@app.command()
def status(json: JsonOption = False) -> None:
    """Say what runs and how it is reached."""
    _show(supervisor.status(settings.load()), json)


@app.command()
def down(json: JsonOption = False) -> None:
    """End the lab; nothing of it stays."""
    was_up = supervisor.down(settings.load())
    if json:
        print_json("lab-down", LabDownDocument(was_up=was_up))
    else:
        typer.echo("the lab is down" if was_up else "no lab was running")


def _show(found: supervisor.Status, json: bool) -> None:
    if json:
        print_json("lab-status", LabDocument(up=found.up, **asdict(found)))
        return
    if not found.up:
        typer.echo("no lab is running; start it with: meltrepro lab up")
    for name, place in found.devices.items():
        command = supervisor.DEVICES[name].command(place)
        said = "dead; start it anew with: meltrepro lab up" if name in found.dead else command
        typer.echo(f"{name:20}{place['kind']:10}{said}")
    for name, reason in found.missing.items():
        typer.echo(f"{name:20}missing: {reason}")
    for name, remark in found.remarks.items():
        typer.echo(f"{name:20}note: {remark}")
