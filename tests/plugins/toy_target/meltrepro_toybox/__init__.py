"""A toy target kind: a shell on this machine, reached as a board behind a serial line would be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from meltrepro.settings import Settings
from meltrepro.targets.base import Attached, Engines, Target, TargetKind
from meltrepro.targets.remote.linux import LinuxPlatform
from meltrepro.targets.remote.options import RemoteOptions
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro_toybox.link import ShellLink

BOX = Path("/var/tmp/meltrepro-toybox")


class ToyboxOptions(RemoteOptions):
    """A box of toys on this machine."""

    kind: Literal["toybox"] = Field(description="Which kind of target this is.")
    root: str = Field(str(BOX), pattern=r"^/", description="The folder that is the box.")


class Toybox(TargetKind):
    kind = "toybox"
    family = "board"
    options = ToyboxOptions

    def open(self, options: ToyboxOptions, settings: Settings, engines: Engines | None) -> Target:
        return RemoteTarget(Shell(ShellLink()), LinuxPlatform("toybox"), options.root, reconnect_s=options.reconnect_s)

    def attached(self, settings: Settings) -> Sequence[Attached]:
        return [Attached("toybox", "toybox", "ready", "a shell on this machine", None)]

    def named(self, text: str | None, settings: Settings) -> ToyboxOptions | None:
        return ToyboxOptions(kind="toybox") if text == "toybox" else None


KIND = Toybox()
