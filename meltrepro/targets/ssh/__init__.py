from __future__ import annotations

from meltrepro.settings import Settings
from meltrepro.targets.base import Engines, Target, TargetKind
from meltrepro.targets.ssh.options import LinuxOptions


class LinuxKind(TargetKind):
    kind = "linux"
    family = "board"
    options = LinuxOptions

    def open(self, options: LinuxOptions, settings: Settings, engines: Engines | None) -> Target:
        from meltrepro.targets.ssh.target import open_target

        return open_target(options, settings)

    def named(self, text: str | None, settings: Settings) -> LinuxOptions | None:
        kind, _, host = (text or "").partition(":")
        return LinuxOptions(kind="linux", host=host) if kind == "linux" and host else None


KIND = LinuxKind()
