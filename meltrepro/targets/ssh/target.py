"""Linux machines behind SSH: those that a manifest names, and virtual boards of the lab."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from meltrepro.errors import TargetLost
from meltrepro.settings import Settings
from meltrepro.targets.lab import running
from meltrepro.targets.remote.linux import LinuxPlatform
from meltrepro.targets.remote.remote import RemoteTarget, Requested
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.ssh.config import Route, route_to
from meltrepro.targets.ssh.link import SshLink
from meltrepro.targets.ssh.options import BoardOptions, LinuxOptions


def open_target(options: LinuxOptions, settings: Settings) -> RemoteTarget:
    """The target as campaigns use it."""
    return RemoteTarget(
        Shell(link_to(options, settings)),
        LinuxPlatform("linux"),
        options.root,
        reconnect_s=options.reconnect_s,
        requested=Requested(cores=options.cores, container=options.container),
    )


def route_of(options: BoardOptions, settings: Settings) -> Route:
    """Where the board is and who logs in there, as far as it can be told without asking it."""
    if options.host is not None:
        return route_to(options.host)
    for route in lab_boards(settings):
        if route.name == options.lab:
            return route
    raise TargetLost(f"the lab has no board {options.lab!r} now", hint="start it with: meltrepro lab up")


def link_to(options: BoardOptions, settings: Settings) -> SshLink:
    """A link to the board that is meant; where it leads is looked up whenever it connects."""
    return SshLink(options.lab or options.host or "", partial(route_of, options, settings))


def lab_boards(settings: Settings) -> list[Route]:
    """The ways to the virtual boards that run now."""

    def read(name: str, at: Mapping[str, Any]) -> Route:
        keys, hosts = (Path(at["key"]),), (Path(at["known_hosts"]),)
        return Route(name, "127.0.0.1", int(at["port"]), at["user"], keys, hosts, keys_alone=True)

    return running(settings, "jetson", read)
