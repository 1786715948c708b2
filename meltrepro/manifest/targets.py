"""Targets in a manifest: each kind of device by what a user says of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator, model_validator

from meltrepro.manifest.apps import APP
from meltrepro.manifest.base import Name, Strict
from meltrepro.manifest.meters import Meter

Cores = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$")]


IMAGE = r"^([a-z0-9][a-z0-9._/:-]{0,200}@)?sha256:[0-9a-f]{64}$"
"""An image by digest, or by its id."""


def cpus(text: str) -> frozenset[int]:
    """The CPUs in a list as Linux writes it (`0,4-7`); raises `ValueError`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


class _Target(Strict):
    """What all devices have in common."""

    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of the runner; the number of usable cores where absent."
    )
    isa: Name | Literal["auto"] = Field(
        "auto", description="CPU level of the binaries; auto picks the best that the CPU has."
    )
    meter: Meter | None = Field(None, description="A meter that measures the power that the device draws.")

    @property
    def server(self) -> str | None:
        """The machine that the user's SSH login is for; `None` for what is here or hangs at a cable."""
        return None


class HostTarget(_Target):
    """This machine."""

    kind: Literal["host"] = Field("host", description="Which kind of target this is.")
    sandbox: Literal["container", "bare"] = Field(
        "container",
        description="Run in a sandbox of the engine (a container, or bubblewrap), without network, or as a plain process.",
    )


class RemoteTarget(_Target):
    """What all devices behind a link have in common."""

    cores: Cores | None = Field(
        None,
        description="CPUs that the runner may use, as Linux lists them: 4-7, or 0,4-5. It is seen to that it does.",
    )
    reconnect_s: float = Field(
        60, ge=0, le=3600, description="How long a device that went away is waited for before a trial fails."
    )

    @model_validator(mode="after")
    def _has_cores(self) -> Self:
        if self.cores is not None and not cpus(self.cores):
            raise ValueError(f"expected CPUs in ascending order, as in 4-7, got {self.cores!r}")
        if self.cores is not None and self.threads is not None and self.threads > len(cpus(self.cores)):
            raise ValueError(f"expected at most as many threads as cores: {self.threads} threads on CPUs {self.cores}")
        return self

    @property
    def sandbox(self) -> Literal["bare"]:
        """Containers on devices are their own affair, not that of this machine's engine."""
        return "bare"


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


class AndroidTarget(RemoteTarget):
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
    settings: AndroidSettings = AndroidSettings()


class BoardTarget(RemoteTarget):
    """A Linux board behind SSH (docs/devices/jetson.md)."""

    host: str | None = Field(
        None,
        pattern=r"^[^\s-][^\s]*$",
        description="How ssh calls it: an alias of ~/.ssh/config, or user@host:port.",
    )
    lab: Name | None = Field(None, description="A virtual device of `meltrepro lab`, by its name.")
    root: str = Field(
        "/var/tmp/meltrepro",
        pattern=r"^/[^\x00-\x1f]*[^\x00-\x1f/]$",
        description="Folder on the device for everything that trials need; must allow to run programs.",
    )

    container: bool | Annotated[str, StringConstraints(pattern=IMAGE)] = Field(
        False,
        description="Run trials in a container there: in the image of the bundle, or in one that the board has, by digest.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.host is None) == (self.lab is None):
            raise ValueError("a board is named by one of 'host' and 'lab'")
        return self

    @property
    def server(self) -> str | None:
        """The board, unless it is one of the lab."""
        return self.host


class LinuxTarget(BoardTarget):
    """Any Linux machine behind SSH (docs/devices/jetson.md)."""

    kind: Literal["linux"] = Field(description="Which kind of target this is.")


class JetsonSettings(Strict):
    """Settings of a board that hold while trials run, and are put back afterwards; what is absent is left alone."""

    power_mode: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_]{1,64}$", description="Power mode by its name in /etc/nvpmodel.conf, such as MAXN."
    )
    clocks: Literal["pinned", "free"] | None = Field(
        None, description="Whether jetson_clocks holds all clocks at what the power mode allows."
    )
    fan: Literal["fastest", "controlled"] | None = Field(None, description="Whether the fan turns as fast as it can.")

    @field_validator("power_mode")
    @classmethod
    def _short(cls, name: str | None) -> str | None:
        """The file says `MODE_30W`, people say `30W`: one name for both, so that both are the same setting."""
        return None if name is None else name.removeprefix("MODE_")


class JetsonTarget(BoardTarget):
    """An NVIDIA Jetson behind SSH (docs/devices/jetson.md)."""

    kind: Literal["jetson"] = Field(description="Which kind of target this is.")
    rails: Literal["melt", "all"] | Annotated[list[str], Field(min_length=1)] = Field(
        "melt",
        description="Which power rails make its energy: those that MELT summed, all that do not count one another, or "
        "these, by their labels.",
    )
    settings: JetsonSettings = JetsonSettings()
    tegrastats: bool = Field(False, description="Sample what tegrastats says besides, once a second, to compare with.")


class IosTarget(_Target):
    """An iPhone or iPad behind usbmuxd, with the runner app on it (docs/devices/ios.md)."""

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
    def sandbox(self) -> Literal["bare"]:
        """Containers on devices are their own affair, not that of this machine's engine."""
        return "bare"


TARGET_KINDS = ("host", "android", "jetson", "linux", "ios")


def usable_cores(target: _Target) -> int | None:
    """How many CPUs a runner is confined to; `None` for no fewer than there are."""
    return len(cpus(target.cores)) if isinstance(target, RemoteTarget) and target.cores else None


def target_kind(value: Any) -> str | None:
    """Which kind of target a mapping describes; this machine where it does not say."""
    if isinstance(value, dict):
        kind = value.get("kind", "host")
        return kind if kind in TARGET_KINDS else None
    return getattr(value, "kind", None)


Target = Annotated[
    Annotated[HostTarget, Tag("host")]
    | Annotated[AndroidTarget, Tag("android")]
    | Annotated[JetsonTarget, Tag("jetson")]
    | Annotated[LinuxTarget, Tag("linux")]
    | Annotated[IosTarget, Tag("ios")],
    Discriminator(
        target_kind,
        custom_error_type="target_kind",
        custom_error_message="expected a target: kind host, android, ios, jetson or linux",
    ),
]
