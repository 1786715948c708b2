"""What a manifest says of an Android device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from meltrepro.manifest.base import Name, Strict
from meltrepro.targets.remote.options import RemoteOptions


class AndroidSettings(Strict):
    """Settings of a phone that hold while trials run, and are put back afterwards; what is absent is left alone."""

    screen: Literal["on", "off"] | None = Field(None, description="Whether the screen is lit.")
    brightness: int | None = Field(None, ge=0, le=255, description="Brightness of the screen, without adaptation.")
    airplane_mode: bool | None = Field(None, description="All radios off; refused on a wireless link (Android 11).")
    stay_awake: bool | None = Field(None, description="Whether the screen stays on while power is plugged in.")
    battery_saver: bool | None = Field(None, description="Whether Android saves power.")
    kill_background_apps: bool = Field(
        False, description="End the apps that Android may end at any time; nothing brings them back."
    )


class AndroidOptions(RemoteOptions):
    """An Android device behind an adb server (docs/devices/android.md)."""

    reached_by: ClassVar = ("serial", "lab")

    kind: Literal["android"] = Field(description="Which kind of target this is.")
    serial: str | None = Field(
        None,
        min_length=1,
        description="Which of several devices, as `meltrepro devices` names it: by its serial number, or where that is not "
        "its own by where it is plugged in (`usb:1-2`).",
    )
    lab: Name | None = Field(None, description="A virtual device of `meltrepro lab`, by its name.")
    root: str = Field(
        "/data/local/tmp/meltrepro",
        pattern=r"^/[^\x00-\x1f]*[^\x00-\x1f/]$",
        description="Folder on the device for everything that trials need; must allow to run programs.",
    )
    settings: AndroidSettings = AndroidSettings()

    @property
    def asked(self) -> Mapping[str, object]:
        return {**self.settings.model_dump(exclude_none=True, exclude_defaults=True), **super().asked}
