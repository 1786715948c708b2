"""Linux machines behind a link of which nothing more is known: what they are by /proc and /sys alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from meltrepro.targets.base import DeviceFacts, DeviceState, Source, device_id
from meltrepro.targets.remote import procfs
from meltrepro.targets.remote.controls import Control
from meltrepro.targets.remote.sensors import linux_sources
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.remote.snapshot import capacity, snapshot
from meltrepro.targets.serials import is_own

_VIRTUAL = "/etc/meltrepro-virtual"
"""Is there on virtual boards alone."""
_TREE = "/sys/firmware/devicetree/base"
"""Where /proc/device-tree leads."""
_IDENTITY = (f"{_TREE}/serial-number", "/etc/machine-id", f"{_TREE}/model", _VIRTUAL)


class LinuxPlatform:
    """The platform of any Linux machine; that of a particular kind may add to it."""

    controls: Sequence[Control] = ()

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def facts(self, shell: Shell, tree: Path, root: str) -> DeviceFacts:
        """What the device is; its serial number leaves it as a digest only."""
        there = capacity(shell, tree, root)
        with snapshot(shell, _IDENTITY) as own:
            names = [text for path in _IDENTITY[:2] if (text := procfs.read(own / path.lstrip("/")))]
            model = procfs.read(own / f"{_TREE}/model".lstrip("/"))
            virtual = (own / _VIRTUAL.lstrip("/")).exists()
        processor = procfs.cpu(tree)
        more = self.more(shell, tree)
        return DeviceFacts(
            id=device_id("board", next(filter(is_own, names), (names or [shell.link.name])[0])),
            kind=self._kind,
            model=model or processor.model,
            **there._asdict(),
            features=processor.features,
            system=self.system(more),
            virtual=virtual,
            facts={**procfs.facts(tree), **more, "sandbox": "bare"},
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
