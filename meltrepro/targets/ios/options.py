"""What a manifest says of an iPhone or iPad."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from meltrepro.manifest.base import Name
from meltrepro.manifest.targets import TargetOptions

IOS = "arm64-ios"
"""Machine of iPhones, and triple of what runs there: programs for Linux on such CPUs do not."""
APP = "org.meltrepro.runner"
UNPROVEN = "not yet run on Apple hardware"
"""What plans, bundles and records say of every iPhone that is none of the lab's, until somebody has run the app on one."""


class IosOptions(TargetOptions):
    """An iPhone or iPad behind usbmuxd, with the runner app on it (docs/devices/ios.md)."""

    reached_by: ClassVar = ("udid", "lab", "app")
    machines: ClassVar = {**TargetOptions.machines, IOS: TargetOptions.machines["aarch64"]}

    kind: Literal["ios"] = Field(description="Which kind of target this is.")
    udid: str | None = Field(
        None, pattern=r"^[0-9A-Fa-f-]{20,40}$", description="Which of several phones, as `meltrepro devices` names it."
    )
    lab: Name | None = Field(None, description="A virtual device of `meltrepro lab`, by its name.")
    app: str = Field(
        APP,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,154}$",
        description="Bundle id of the runner app, as it was signed.",
    )
    root: str = Field(
        "meltrepro",
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$",
        description="Folder among the app's documents for everything that trials need.",
    )
    reconnect_s: float = Field(
        60, ge=0, le=3600, description="How long a phone that went away is waited for before a trial fails."
    )

    @property
    def runs_programs(self) -> bool:
        return False
