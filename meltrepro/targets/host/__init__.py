from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meltrepro.targets.host.options import HostOptions

if TYPE_CHECKING:
    from meltrepro.build.model import Engine
    from meltrepro.settings import Settings
    from meltrepro.targets.base import Target


class HostKind:
    kind: Final = "host"
    family: Final = "host"
    options: Final = HostOptions

    def open(self, options: HostOptions, settings: Settings, engine: Engine | None) -> Target:
        from meltrepro.targets.host.target import open_target

        return open_target(options, settings, engine)


KIND = HostKind()
