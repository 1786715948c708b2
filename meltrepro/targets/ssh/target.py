"""Linux boards and machines behind SSH: what they are by /proc and /sys; a kind of board may add to it (jetson.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from meltrepro.errors import TargetLost
from meltrepro.settings import Settings
from meltrepro.targets.base import DeviceFacts, DeviceState, Source
from meltrepro.targets.lab import running
from meltrepro.targets.remote import procfs as linux
from meltrepro.targets.remote.controls import Control
from meltrepro.targets.remote.remote import RemoteTarget, Requested
from meltrepro.targets.remote.sensors import linux_sources
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.remote.snapshot import capacity, snapshot
from meltrepro.targets.ssh.config import Route, route_to
from meltrepro.targets.ssh.link import SshLink
from meltrepro.targets.ssh.options import BoardOptions, LinuxOptions

VIRTUAL = "/etc/meltrepro-virtual"
"""Is there on virtual boards alone."""
_TREE = "/sys/firmware/devicetree/base"
"""Where /proc/device-tree leads."""
_IDENTITY = (f"{_TREE}/serial-number", "/etc/machine-id", f"{_TREE}/model", VIRTUAL)


def open_target(options: LinuxOptions, settings: Settings) -> RemoteTarget:
    """The target as campaigns use it."""
    return RemoteTarget(
        Shell(link_to(options, settings)),
        Board("linux"),
        options.root,
        reconnect_s=options.reconnect_s,
        requested=Requested(cores=options.cores, container=options.container),
    )


def route_of(options: BoardOptions, settings: Settings) -> Route:
    """Where the board is and who logs in there, as far as it can be told without asking it."""
    if options.lab is not None:
        return _route_into_the_lab(options.lab, settings)
    assert options.host is not None
    return route_to(options.host)


def link_to(options: BoardOptions, settings: Settings) -> SshLink:
    """A link to the board that is meant; where it leads is looked up whenever it connects."""
    return SshLink(options.lab or options.host or "", partial(route_of, options, settings))


@dataclass(frozen=True)
class LabBoard:
    """A virtual board that runs now."""

    name: str
    route: Route


def lab_boards(settings: Settings) -> list[LabBoard]:
    def read(name: str, at: Mapping[str, Any]) -> LabBoard:
        keys, hosts = (Path(at["key"]),), (Path(at["known_hosts"]),)
        return LabBoard(name, Route(name, "127.0.0.1", int(at["port"]), at["user"], keys, hosts, True, False))

    return running(settings, "jetson", read)


def _route_into_the_lab(name: str, settings: Settings) -> Route:
    for board in lab_boards(settings):
        if board.name == name:
            return board.route
    raise TargetLost(f"the lab has no board {name!r} now", hint="start it with: meltrepro lab up")


class Board:
    """The platform of Linux machines of which nothing else is known."""

    controls: Sequence[Control] = ()

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def facts(self, shell: Shell, tree: Path, root: str) -> DeviceFacts:
        """What the device is; its serial number leaves it as a digest only."""
        there = capacity(shell, tree, root)
        with snapshot(shell, _IDENTITY) as own:
            names = [text for path in _IDENTITY[:2] if (text := linux.read(own / path.lstrip("/")))]
            model = linux.read(own / f"{_TREE}/model".lstrip("/"))
            virtual = (own / VIRTUAL.lstrip("/")).exists()
        processor = linux.cpu(tree)
        digest = hashlib.sha256(f"meltrepro {(names or [shell.link.name])[0]}".encode()).hexdigest()
        more = self.more(shell, tree)
        return DeviceFacts(
            id=f"board-{digest[:12]}",
            kind=self._kind,
            model=model or processor.model,
            **there._asdict(),
            features=processor.features,
            system=self.system(more),
            virtual=virtual,
            facts={**linux.facts(tree), **more, "sandbox": "bare"},
        )

    def more(self, shell: Shell, tree: Path) -> Mapping[str, str]:
        """What else may explain a result."""
        return {}

    def system(self, more: Mapping[str, str]) -> str:
        """What its system is called, by what `more` has found."""
        return ""

    def state(self, shell: Shell, tree: Path, state: DeviceState) -> DeviceState:
        """All that is known is in /proc and /sys."""
        return state

    def sources(self, shell: Shell, tree: Path, root: str) -> Sequence[Source]:
        return linux_sources(tree)

    def feeder(self, sources: Sequence[Source]) -> str | None:
        """Everything is in files already."""
        return None
