"""The battery by its service, as a file that a sampler can read, where the kernel hides it from the shell user.

A shell on the phone writes down what `dumpsys battery` says, every two seconds: one call takes tens of milliseconds of a
small core, so that it is done only for what is not to be had otherwise. The service has new numbers only now and then: good
enough for a level or a temperature, not for the current, so that there is no energy from here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from meltrepro.targets.base import RAW, Source

PERIOD_S = 2.0
FILE = "feed/battery"
"""Below the root of the target's folder."""
SCRIPT = f"""
mkdir -p "$1" && cd "$1" || exit 1
while :; do
    said=$(dumpsys battery)
    case "$said" in
        *"powered: true"* | *"UPDATES STOPPED"*) plugged=1 ;;
        *) plugged=0 ;;
    esac
    printf 'plugged %s\\n%s\\n' "$plugged" "$said" > battery.part && mv battery.part battery
    sleep {PERIOD_S:g}
done
"""
"""Its argument is the folder in which the file is to be."""
_FIELDS = (
    ("battery.level", "%", "level", 1.0),
    ("battery.voltage", RAW, "voltage", 1.0),
    ("battery.charge", "C", "Charge counter", 3600e-6),
    ("temperature.battery", "degC", "temperature", 0.1),
)


def sources(said: str, root: str) -> Sequence[Source]:
    """What can be read of the file, from one answer of `dumpsys battery`; nothing where there is no battery."""
    path = f"{root.lstrip('/')}/{FILE}"
    found = [
        Source(name, unit, "gauge", path, f"\n  {field}: ", scale=scale, refresh_s=PERIOD_S)
        for name, unit, field, scale in _FIELDS
        if re.search(rf"^  {field}: -?\d+$", said, re.MULTILINE)
    ]
    if found and "powered: " in said:
        found.append(Source("supply.any", "1", "gauge", path, "plugged ", refresh_s=PERIOD_S))
    return found
