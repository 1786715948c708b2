from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meltrepro.targets.jetson.options import JetsonOptions

if TYPE_CHECKING:
    from meltrepro.build.model import Engine
    from meltrepro.settings import Settings
    from meltrepro.targets.base import Target


class JetsonKind:
    kind: Final = "jetson"
    family: Final = "board"
    options: Final = JetsonOptions

    def open(self, options: JetsonOptions, settings: Settings, engine: Engine | None) -> Target:
        from meltrepro.targets.jetson.target import open_target

        return open_target(options, settings, engine)


KIND = JetsonKind()
