"""Which iPhones there are: attached ones, and virtual ones of the lab."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from meltrepro.errors import MeltreproError, TargetError, TargetLost
from meltrepro.settings import Settings
from meltrepro.targets.base import Attached
from meltrepro.targets.ios import errors as ios_errors
from meltrepro.targets.ios.loop import Silent, shared
from meltrepro.targets.ios.phone import ANSWER_S, Phone
from meltrepro.targets.ios.usbmux import RsdTunnel, UsbmuxServices
from meltrepro.targets.ios.usbmux import attached as on_usbmux
from meltrepro.targets.lab import running

_TAP_S = 60.0
"""How long somebody may take to find the phone and tap."""


@dataclass(frozen=True)
class LabIphone:
    """A virtual phone that runs now."""

    name: str
    address: str
    """Of its usbmuxd."""
    udid: str


def installed() -> bool:
    """Whether pymobiledevice3 is there; it is not imported for that."""
    return importlib.util.find_spec("pymobiledevice3") is not None


def lab_phones(settings: Settings) -> list[LabIphone]:
    return running(settings, "ios", lambda name, at: LabIphone(name, str(at["usbmux"]), str(at["udid"])))


def phones(address: str | None = None) -> Sequence[str]:
    """UDIDs of what usbmuxd shows, at the usual place where no address is named; raises `TargetLost`, `TargetError`."""
    require_driver()
    try:
        return tuple(shared().run(on_usbmux(address), ANSWER_S))
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
        raise TargetError(f"several iPhones are attached: {', '.join(there)}", hint="say which one: udid")
    return there[0]


def require_driver() -> None:
    """Raise `DriverMissing` where pymobiledevice3 is not installed."""
    if not installed():
        raise ios_errors.missing()


def attached(settings: Settings) -> list[Attached]:
    """Phones of the usual usbmuxd and of the lab's."""
    if not installed():
        return []
    try:
        there: dict[str, str | None] = dict.fromkeys(phones())
    except MeltreproError:  # no usbmuxd: nobody here works with iPhones
        there = {}
    rows = []
    for udid, name in {**there, **{phone.udid: phone.name for phone in lab_phones(settings)}}.items():
        try:
            values = open_phone(udid, settings, name).values()
        except MeltreproError as error:
            rows.append(Attached("ios", udid, "not usable", "", error.one_line))
            continue
        known = [
            values.get("ProductType"),
            values.get("ProductVersion") and f"iOS {values['ProductVersion']}",
            values.get("DeviceName") if values.get("MeltreproVirtual") else None,
            "virtual" if values.get("MeltreproVirtual") else None,
        ]
        rows.append(Attached("ios", udid, "device", ", ".join(str(each) for each in known if each), None))
    return rows


def pair(udid: str, settings: Settings, tell: Callable[[str], object]) -> None:
    """Have a phone ask its user; raises `TargetError` where that comes to nothing."""
    lab = {phone.udid: phone.name for phone in lab_phones(settings)}
    phone = open_phone(udid, settings, lab.get(udid))
    tell(f"tap Trust on the phone within {_TAP_S:.0f} s")
    phone.pair(_TAP_S)
