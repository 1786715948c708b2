"""Targets in a manifest: each kind of device by what a user says of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from meltrepro.spec.base import Name, Strict
from meltrepro.spec.meters import Meter


class _Target(Strict):
    """What all devices have in common."""

    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of the runner; the number of usable cores where absent."
    )
    isa: Name | Literal["auto"] = Field(
        "auto", description="CPU level of the binaries; auto picks the best that the CPU has."
    )
    meter: Meter | None = Field(None, description="A meter that measures the power that the device draws.")


class HostTarget(_Target):
    """This machine."""

    kind: Literal["host"] = Field("host", description="Which kind of target this is.")
    sandbox: Literal["container", "bare"] = Field(
        "container", description="Run inside the runtime image, or as a plain process."
    )


class AndroidTarget(_Target):
    """An Android device behind an adb server (docs/devices/android.md)."""

    kind: Literal["android"] = Field(description="Which kind of target this is.")
    serial: str | None = Field(
        None, min_length=1, description="Which of several devices, as `meltrepro devices` names it."
    )
    lab: Name | None = Field(None, description="A virtual device of `meltrepro lab`, by its name.")
    root: str = Field(
        "/data/local/tmp/meltrepro",
        pattern=r"^/[^\x00-\x1f]*[^\x00-\x1f/]$",
        description="Folder on the device for everything that trials need; must allow to run programs.",
    )
    reconnect_s: float = Field(
        60, ge=0, le=3600, description="How long a device that went away is waited for before a trial fails."
    )

    @property
    def sandbox(self) -> Literal["bare"]:
        """Devices have no container engine."""
        return "bare"


class IosTarget(_Target):
    """An iPhone or iPad behind usbmuxd, with the runner app on it (docs/devices/ios.md)."""

    kind: Literal["ios"] = Field(description="Which kind of target this is.")
    udid: str | None = Field(
        None, pattern=r"^[0-9A-Fa-f-]{20,40}$", description="Which of several phones, as `meltrepro devices` names it."
    )
    lab: Name | None = Field(None, description="A virtual device of `meltrepro lab`, by its name.")
    app: str = Field(
        "org.meltrepro.runner",
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
    def sandbox(self) -> Literal["bare"]:
        """Devices have no container engine."""
        return "bare"


TARGET_KINDS = ("host", "android", "ios")


def target_kind(value: Any) -> str | None:
    """Which kind of target a mapping describes; this machine where it does not say."""
    if isinstance(value, dict):
        kind = value.get("kind", "host")
        return kind if kind in TARGET_KINDS else None
    return getattr(value, "kind", None)


Target = Annotated[
    Annotated[HostTarget, Tag("host")] | Annotated[AndroidTarget, Tag("android")] | Annotated[IosTarget, Tag("ios")],
    Discriminator(
        target_kind,
        custom_error_type="target_kind",
        custom_error_message="expected a target: kind host, android or ios",
    ),
]
