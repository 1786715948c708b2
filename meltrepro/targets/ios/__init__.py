from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meltrepro.targets.ios.options import IosOptions

if TYPE_CHECKING:
    from meltrepro.build.model import Engine
    from meltrepro.settings import Settings
    from meltrepro.targets.base import Target


class IosKind:
    kind: Final = "ios"
    family: Final = "phone"
    options: Final = IosOptions

    def open(self, options: IosOptions, settings: Settings, engine: Engine | None) -> Target:
        from meltrepro.targets.ios.target import open_target

        return open_target(options, settings, engine)


KIND = IosKind()
