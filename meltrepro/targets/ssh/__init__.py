from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from meltrepro.targets.ssh.options import LinuxOptions

if TYPE_CHECKING:
    from meltrepro.build.model import Maker
    from meltrepro.settings import Settings
    from meltrepro.targets.base import Attached, Engines, Target


class LinuxKind:
    kind: Final = "linux"
    family: Final = "board"
    options: Final = LinuxOptions
    makers: ClassVar[Mapping[str, Callable[[], Maker]]] = {}

    def open(self, options: LinuxOptions, settings: Settings, engines: Engines | None) -> Target:
        from meltrepro.targets.ssh.target import open_target

        return open_target(options, settings)

    def attached(self, settings: Settings) -> Sequence[Attached]:
        """No server knows them, only names in manifests."""
        return ()

    def absent(self) -> None:
        return None

    def named(self, text: str | None, settings: Settings) -> LinuxOptions | None:
        kind, _, host = (text or "").partition(":")
        return LinuxOptions(kind="linux", host=host) if kind == "linux" and host else None


KIND = LinuxKind()
