"""iPhones for `meltrepro devices`: who is attached, and pairing."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from meltrepro.errors import MeltreproError
from meltrepro.settings import Settings

_PATIENCE_S = 60.0
"""How long somebody may take to find the phone and tap."""


def found(settings: Settings) -> Iterator[tuple[str, str, str, str | None]]:
    """UDID, state, description and what to do, for every phone of the usual usbmuxd and of the lab's."""
    from meltrepro.targets.ios import devices as ios_devices

    if not ios_devices.installed():
        return
    try:
        there = {phone.udid: None for phone in ios_devices.phones()}
    except MeltreproError:  # no usbmuxd: nobody here works with iPhones
        there = {}
    lab = {phone.udid: phone.name for phone in ios_devices.lab_phones(settings)}
    for udid, name in {**there, **lab}.items():
        try:
            values = ios_devices.open_phone(udid, settings, name).values()
        except MeltreproError as error:
            yield udid, "not usable", "", error.one_line
            continue
        known = [
            values.get("ProductType"),
            values.get("ProductVersion") and f"iOS {values['ProductVersion']}",
            values.get("DeviceName") if values.get("MeltreproVirtual") else None,
            "virtual" if values.get("MeltreproVirtual") else None,
        ]
        yield udid, "device", ", ".join(str(each) for each in known if each), None


def advice() -> str | None:
    """What to install where iPhones cannot be seen."""
    from meltrepro.targets.ios import devices as ios_devices
    from meltrepro.targets.ios import errors as ios_errors

    return None if ios_devices.installed() else f"iPhones are not looked for: {ios_errors.how_to_install()}"


def pair(udid: str, settings: Settings) -> None:
    """Have a phone ask its user; raises `TargetError` where that comes to nothing."""
    from meltrepro.targets.ios import devices as ios_devices

    lab = {phone.udid: phone.name for phone in ios_devices.lab_phones(settings)}
    phone = ios_devices.open_phone(udid, settings, lab.get(udid))
    typer.echo(f"tap Trust on the phone within {_PATIENCE_S:.0f} s", err=True)
    phone.pair(_PATIENCE_S)
