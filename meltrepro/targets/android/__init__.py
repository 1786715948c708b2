from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meltrepro.targets.android.options import AndroidOptions

if TYPE_CHECKING:
    from meltrepro.build.model import Engine
    from meltrepro.settings import Settings
    from meltrepro.targets.base import Target


class AndroidKind:
    kind: Final = "android"
    family: Final = "phone"
    options: Final = AndroidOptions

    def open(self, options: AndroidOptions, settings: Settings, engine: Engine | None) -> Target:
        from meltrepro.targets.android.target import open_target

        return open_target(options, settings, engine)


KIND = AndroidKind()
