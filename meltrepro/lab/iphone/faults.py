"""What goes wrong with a virtual iPhone, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PairingAnswer(StrEnum):
    """What becomes of a host's wish to pair."""

    accepted = "accepted"
    denied = "denied"
    """The user says that this computer is not to be trusted."""
    pending = "pending"
    """The dialog stays open."""
    locked = "locked"
    """The passcode has to be entered first."""


class How(StrEnum):
    cut = "cut"
    """It ends in the middle of the message."""
    hang = "hang"
    """The message never comes, and the connection stays open."""
    garbage = "garbage"
    """Bytes of the right number come that mean nothing."""


@dataclass(frozen=True)
class Break:
    """One connection goes wrong at the n-th message that the device sends on it."""

    service: str
    """`usbmuxd`, `lockdownd`, or the name of a service, such as `com.apple.mobile.house_arrest`."""
    how: How = How.cut
    message: int = 1
    times: int = 1
    """How many connections this happens to; later ones are well."""


@dataclass(frozen=True)
class Faults:
    """Everything that is wrong with a device at one time; the default is nothing."""

    pairing: PairingAnswer = PairingAnswer.accepted
    locked: bool = False
    """Behind its passcode: no pairing, no services, no launches."""
    developer_mode: bool = True
    """Without it there are no developer services, and no image can be mounted that has them."""
    breaks: tuple[Break, ...] = ()
    install_refused: str | None = None
    """What the phone says of a package that it does not take."""
    launch_refused: str | None = None
    """What the phone says of an app that it does not start."""
    jetsam_after_s: float | None = None
    """An app is killed for want of memory so long after its launch."""
    memory_limit: int | None = None
    """Bytes; an app whose footprint is larger is killed."""
    keeps: int | None = None
    """Bytes of a file that reach the storage; the rest is acknowledged and lost."""
    free: int | None = None
    """Bytes that can still be written, from now on; then the storage is full."""


NONE = Faults()
