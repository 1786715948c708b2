"""Which iPhones there are: attached ones, and virtual ones of the lab."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meltrepro.errors import TargetError, TargetLost
from meltrepro.settings import Settings
from meltrepro.targets.ios import errors as ios_errors
from meltrepro.targets.ios.link import Attached
from meltrepro.targets.ios.loop import Silent, shared
from meltrepro.targets.ios.phone import ANSWER_S, Phone
from meltrepro.targets.ios.tunnel import RsdTunnel
from meltrepro.targets.ios.usbmux import UsbmuxServices, attached


@dataclass(frozen=True)
class LabPhone:
    """A virtual phone that runs now."""

    name: str
    address: str
    """Of its usbmuxd."""
    udid: str


def installed() -> bool:
    """Whether pymobiledevice3 is there; it is not imported for that."""
    return importlib.util.find_spec("pymobiledevice3") is not None


def lab_phones(settings: Settings) -> list[LabPhone]:
    """The virtual phones that run now, as the lab has written it down."""
    found = []
    for path in sorted((settings.run / "lab").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text(encoding="utf-8"))
            if known.get("kind") == "ios":
                found.append(LabPhone(path.stem, str(known["usbmux"]), str(known["udid"])))
    return found


def phones(address: str | None = None) -> Sequence[Attached]:
    """What usbmuxd shows, at the usual place where no address is named; raises `TargetLost`, `TargetError`."""
    require_driver()
    try:
        return tuple(shared().run(attached(address), ANSWER_S))
    except Silent:
        raise ios_errors.silent("usbmuxd", "list phones", ANSWER_S) from None
    except Exception as error:
        raise ios_errors.explain(error, "usbmuxd", "list phones") from error


def open_phone(udid: str | None, settings: Settings, lab: str | None = None) -> Phone:
    """One phone, by its UDID where several are attached. Raises `TargetLost`, `TargetError`."""
    require_driver()
    address = None
    if lab is not None:
        found = next((phone for phone in lab_phones(settings) if phone.name == lab), None)
        if found is None:
            raise TargetLost(f"the lab has no iPhone {lab!r} now", hint="start it with: meltrepro lab up")
        address, udid = found.address, found.udid
    return open_attached(udid or _only(address), records(settings), address)


def open_attached(udid: str, records: Path, address: str | None = None) -> Phone:
    """One phone by its UDID, with its pairings in the folder `records`; asks nothing of it yet."""
    return Phone(UsbmuxServices(udid, records, address, RsdTunnel()))


def records(settings: Settings) -> Path:
    """Where pairings are kept: they are keys, and not safe to lose either."""
    return settings.home / "pairings"


def _only(address: str | None) -> str:
    there = phones(address)
    if not there:
        raise TargetLost("no iPhone is attached", hint="plug it in, unlock it, tap Trust; meltrepro devices shows it")
    if len(there) > 1:
        names = ", ".join(phone.udid for phone in there)
        raise TargetError(f"several iPhones are attached: {names}", hint="say which one: udid")
    return there[0].udid


def require_driver() -> None:
    """Raise `DriverMissing` where pymobiledevice3 is not installed."""
    if not installed():
        raise ios_errors.missing()
