from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from meltrepro.targets.host.options import HostOptions

if TYPE_CHECKING:
    from meltrepro.build.model import Maker
    from meltrepro.settings import Settings
    from meltrepro.targets.base import Attached, Engines, Target


class HostKind:
    kind: Final = "host"
    family: Final = "host"
    options: Final = HostOptions
    makers: ClassVar[Mapping[str, Callable[[], Maker]]] = {}

    def open(self, options: HostOptions, settings: Settings, engines: Engines | None) -> Target:
        from meltrepro.targets.host.target import open_target

        return open_target(options, settings, engines)

    def attached(self, settings: Settings) -> Sequence[Attached]:
        from meltrepro.targets.host.target import attached

        return attached(settings)

    def absent(self) -> None:
        return None

    def named(self, text: str | None, settings: Settings) -> HostOptions | None:
        return HostOptions(sandbox="bare") if text == "host" else None


KIND = HostKind()
