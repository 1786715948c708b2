from __future__ import annotations

from collections.abc import Sequence

from meltrepro.settings import Settings
from meltrepro.targets.base import Attached, Engines, Target, TargetKind
from meltrepro.targets.host.options import HostOptions


class HostKind(TargetKind):
    kind = "host"
    family = "host"
    options = HostOptions

    def open(self, options: HostOptions, settings: Settings, engines: Engines | None) -> Target:
        from meltrepro.targets.host.target import open_target

        return open_target(options, settings, engines)

    def attached(self, settings: Settings) -> Sequence[Attached]:
        from meltrepro.targets.host.target import attached

        return attached(settings)

    def named(self, text: str | None, settings: Settings) -> HostOptions | None:
        return HostOptions(sandbox="bare") if text == "host" else None


KIND = HostKind()
