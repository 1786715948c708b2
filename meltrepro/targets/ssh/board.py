"""Linux boards and machines behind SSH: what they are by /proc and /sys; a kind of board may add to it (jetson.py)."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from meltrepro.build.model import Engine
from meltrepro.errors import TargetError, TargetLost
from meltrepro.settings import Settings
from meltrepro.targets.base import DeviceFacts, DeviceState, Source
from meltrepro.targets.remote import procfs as linux
from meltrepro.targets.remote.controls import Control
from meltrepro.targets.remote.remote import RemoteTarget, Wishes
from meltrepro.targets.remote.sensors import linux_sources
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.remote.snapshot import snapshot
from meltrepro.targets.ssh.config import Way, way_to
from meltrepro.targets.ssh.link import SshLink
from meltrepro.targets.ssh.options import BoardOptions, LinuxOptions

VIRTUAL = "/etc/meltrepro-virtual"
"""Is there on virtual boards alone."""
_TREE = "/sys/firmware/devicetree/base"
"""Where /proc/device-tree leads."""
_IDENTITY = (f"{_TREE}/serial-number", "/etc/machine-id", f"{_TREE}/model", VIRTUAL)
_LOOK = 'uname -m && nproc && mkdir -p "$1" && stat -f -c "%a %S" "$1"'


def open_target(entry: LinuxOptions, settings: Settings, engine: Engine | None) -> RemoteTarget:
    """The target as campaigns use it."""
    return RemoteTarget(
        Shell(link_to(entry, settings)),
        Board("linux"),
        entry.root,
        reconnect_s=entry.reconnect_s,
        wishes=Wishes(cores=entry.cores, container=entry.container),
    )


def link_to(entry: BoardOptions, settings: Settings) -> SshLink:
    """A link to the board that is meant; where it leads is looked up whenever it connects."""
    if entry.lab is not None:
        return SshLink(entry.lab, partial(_way_into_the_lab, entry.lab, settings))
    assert entry.host is not None
    return SshLink(entry.host, partial(way_to, entry.host))


@dataclass(frozen=True)
class LabBoard:
    """A virtual board that runs now."""

    name: str
    way: Way


def lab_boards(settings: Settings) -> list[LabBoard]:
    """The virtual boards that run now, as the lab has written it down."""
    found = []
    for path in sorted((settings.run / "lab").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text(encoding="utf-8"))
            if known.get("kind") == "jetson":
                keys, hosts = (Path(known["key"]),), (Path(known["known_hosts"]),)
                way = Way(path.stem, "127.0.0.1", int(known["port"]), known["user"], keys, hosts, True, False)
                found.append(LabBoard(path.stem, way))
    return found


def _way_into_the_lab(name: str, settings: Settings) -> Way:
    for board in lab_boards(settings):
        if board.name == name:
            return board.way
    raise TargetLost(f"the lab has no board {name!r} now", hint="start it with: meltrepro lab up")


class Board:
    """The platform of Linux machines of which nothing else is known."""

    controls: Sequence[Control] = ()

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def facts(self, shell: Shell, tree: Path, root: str) -> DeviceFacts:
        """What the device is; its serial number leaves it as a digest only."""
        look = shell.expect(shell.script(_LOOK, root), f"use {root}").text.split()
        memory = linux.memory(tree).get("MemTotal")
        if len(look) != 4 or not all(word.isdigit() for word in look[1:]) or memory is None:
            raise TargetError(f"{shell.link.name}: does not say what it is: {' '.join(look)[:100]!r}")
        with snapshot(shell, _IDENTITY) as own:
            names = [text for path in _IDENTITY[:2] if (text := linux.read(own / path.lstrip("/")))]
            model = linux.read(own / f"{_TREE}/model".lstrip("/"))
            virtual = (own / VIRTUAL.lstrip("/")).exists()
        processor = linux.cpu(tree)
        digest = hashlib.sha256(f"meltrepro {(names or [shell.link.name])[0]}".encode()).hexdigest()
        return DeviceFacts(
            id=f"board-{digest[:12]}",
            kind=self._kind,
            model=model or processor.model,
            arch=look[0],
            features=processor.features,
            cores=int(look[1]),
            memory_bytes=memory,
            disk_free_bytes=int(look[2]) * int(look[3]),
            virtual=virtual,
            facts={**linux.facts(tree), **self.more(shell, tree), "sandbox": "bare"},
        )

    def more(self, shell: Shell, tree: Path) -> Mapping[str, str]:
        """What else may explain a result."""
        return {}

    def state(self, shell: Shell, tree: Path, state: DeviceState) -> DeviceState:
        """All that is known is in /proc and /sys."""
        return state

    def sources(self, shell: Shell, tree: Path, root: str) -> Sequence[Source]:
        """What the kernel shows."""
        return linux_sources(tree)

    def feeder(self, sources: Sequence[Source]) -> str | None:
        """Everything is in files already."""
        return None
