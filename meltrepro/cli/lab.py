"""`meltrepro lab`: virtual devices to try everything without hardware, and labs of many hosts with real ones."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings
from meltrepro.cli.common import EngineOption, JsonOption, patience
from meltrepro.cli.documents import (
    LabCampaignDocument,
    LabDeviceDocument,
    LabDocument,
    LabDownDocument,
    LabHostsDocument,
)
from meltrepro.cli.json_output import print_json
from meltrepro.lab import supervisor
from meltrepro.words import counted, plural

if TYPE_CHECKING:
    from meltrepro.hosts.wire import LabState

HeadArgument = Annotated[
    str, typer.Argument(metavar="HEAD", help="Where the lab's head is: tls://HOST.", show_default=False)
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token", metavar="FILE", help="The file with the lab's token; that of this machine's head if absent."
    ),
]
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="Its id, as `lab status HEAD` shows it.")]
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Virtual devices, to try everything without hardware; and labs of many hosts.",
)


@app.command()
def up(json: JsonOption = False) -> None:
    """Start the lab, or what is dead of it; it runs until `lab down`."""
    _show(supervisor.up(settings.load()), json)


@app.command()
def status(
    head: Annotated[
        str | None,
        typer.Argument(metavar="[HEAD]", help="That of a lab of many hosts: tls://HOST.", show_default=False),
    ] = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Say what runs and how it is reached; with HEAD, who uses which device of a lab of many hosts."""
    if head is None:
        _show(supervisor.status(settings.load()), json)
        return
    from meltrepro import workflow

    found = workflow.lab_state(head, token=token)
    if json:
        print_json("lab-hosts", _document(found))
    else:
        _show_hosts(found)


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


# -- labs of many hosts -------------------------------------------------------------------------------------------


@app.command()
def head(
    host: Annotated[str, typer.Option("--host", help="Where to listen; 0.0.0.0 for all of the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8786,
    dashboard: Annotated[
        int, typer.Option("--dashboard", help="Port of its page, which this machine alone sees; 0 for none.")
    ] = 8787,
) -> None:
    """Be the head of a lab of many hosts, until Ctrl-C; makes the lab's token where there is none."""
    from meltrepro.hosts import wire
    from meltrepro.hosts.serve import serve

    here = settings.load()
    serve(here, wire.token(here, None, make=True), host=host, port=port, dashboard=dashboard, tell=_tell)


@app.command()
def node(
    head: HeadArgument,
    token: TokenOption = None,
    devices: Annotated[
        Path | None,
        typer.Option(
            "--devices", metavar="FILE", help="A manifest's `targets`, to offer those; else what is attached."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What the lab calls this host; its own name if absent.")
    ] = None,
    engine: EngineOption = "docker",
) -> None:
    """Offer the devices of this host to a lab, until Ctrl-C."""
    import socket

    from meltrepro.hosts import wire
    from meltrepro.hosts.attend import attend
    from meltrepro.hosts.node import LabNode, listed, plugged_in

    here = settings.load()
    where, secret = wire.address(head), wire.token(here, token)
    scan = partial(plugged_in, here) if devices is None else lambda _: listed(devices)
    attend(LabNode(name or socket.gethostname(), here, engine, _tell), scan, where, secret)


@app.command()
def reserve(
    head: HeadArgument,
    device: DeviceArgument,
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long: 30m, 2h.")] = "1h",
    token: TokenOption = None,
) -> None:
    """Keep a device of a lab for yourself; it is everybody's again when the time is over."""
    from meltrepro import workflow

    who = workflow.reserve_device(head, device, patience(False, duration), token=token)
    typer.echo(f"{device} is {who}'s for {duration}")


@app.command()
def release(head: HeadArgument, device: DeviceArgument, token: TokenOption = None) -> None:
    """End a device's reservation and quarantine."""
    from meltrepro import workflow

    was = workflow.release_device(head, device, token=token)
    typer.echo(f"{device} is free" if was else f"{device} was free already")


def _tell(line: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)


def _document(found: LabState) -> LabHostsDocument:
    return LabHostsDocument(
        devices=[
            LabDeviceDocument(
                id=each.offer.id,
                node=each.offer.node,
                kind=each.offer.facts.kind,
                model=each.offer.facts.model,
                there=each.there,
                running=each.running,
                queue=each.queue,
                quarantined=each.quarantined,
                reserved_for=each.reserved.who if each.reserved else None,
                reserved_until_wall_s=each.reserved.until_wall_s if each.reserved else None,
            )
            for each in found.devices
        ],
        campaigns=[
            LabCampaignDocument(
                id=each.id, who=each.who, priority=each.priority, done=each.done, total=each.total, eta_s=each.eta_s
            )
            for each in found.campaigns
        ],
    )


def _show_hosts(found: LabState) -> None:
    for each in found.devices:
        said = each.running or (
            "free" if each.there else f"away since {time.strftime('%H:%M', time.localtime(each.since_wall_s))}"
        )
        more = [f"{counted(each.queue, 'campaign')} {plural(each.queue, 'waits', 'wait')}"] if each.queue else []
        more += [f"quarantine: {each.quarantined}"] if each.quarantined else []
        more += [f"reserved for {each.reserved.who}"] if each.reserved else []
        typer.echo(f"{each.offer.node:16}{each.offer.id:24}{'; '.join([said, *more])}")
    if not found.devices:
        typer.echo("no node has offered a device; on each host: meltrepro lab node HEAD")
    for campaign in found.campaigns:
        eta = f", about {campaign.eta_s / 60:.0f} min left" if campaign.eta_s is not None else ""
        typer.echo(
            f"{campaign.id}: {campaign.done} of {counted(campaign.total, 'trial')}{eta} ({campaign.who}, priority {campaign.priority})"
        )
