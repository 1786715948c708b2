from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meltrepro.targets.ssh.options import LinuxOptions

if TYPE_CHECKING:
    from meltrepro.build.model import Engine
    from meltrepro.settings import Settings
    from meltrepro.targets.base import Target


class LinuxKind:
    kind: Final = "linux"
    family: Final = "board"
    options: Final = LinuxOptions

    def open(self, options: LinuxOptions, settings: Settings, engine: Engine | None) -> Target:
        from meltrepro.targets.ssh.board import open_target

        return open_target(options, settings, engine)


KIND = LinuxKind()
