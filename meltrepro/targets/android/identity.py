"""Which phone it is: by its serial number, and by more where that is not its own.

Cheap phones come with one serial number for all of a kind, emulators too. What tells them apart is then `android_id`, which
lasts until the phone is set up anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from meltrepro.errors import TargetError
from meltrepro.targets.base import device_id
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.serials import is_own

SERIALS = ("ro.serialno", "ro.boot.serialno")
_HARDWARE = ("ro.boot.ap_serial", "ro.boot.cpuid", "ro.boot.chipid", "ro.boot.uid")
"""Numbers of chips that some makers show."""
_ANDROID_ID = ("settings", "get", "secure", "android_id")


def identify(shell: Shell, properties: Mapping[str, str], shared: Callable[[str], bool] = lambda usual: False) -> str:
    """The id of a phone, by its properties; `shared` tells of the id of a serial number whether several phones have it.

    Raises `TargetError` where nothing tells it from another one.
    """
    serials = [properties[name] for name in SERIALS if properties.get(name)]
    own = next((serial for serial in serials if is_own(serial)), None)
    usual = device_id("android", own or (serials or [shell.link.name])[0])
    doubled = shared(usual)
    if own is not None and not doubled:
        return usual
    more = shell.run(_ANDROID_ID).text
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", more):
        more = " ".join(properties[name] for name in _HARDWARE if properties.get(name))
    if more:
        return device_id("android", f"{own or (serials or [''])[0]} {more}")
    if doubled:
        raise TargetError(
            f"{shell.link.name}: several phones have its serial number, and it has no android_id to tell them apart",
            hint="attach one of them at a time",
        )
    return usual
