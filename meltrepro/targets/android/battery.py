"""A phone's battery: discharged on purpose and looked at meanwhile, for its calibration; and its service as a file.

Where the kernel hides the battery from the shell user, a shell on the phone writes down what `dumpsys battery` says, every
two seconds: one call takes tens of milliseconds of a small core. The service has new numbers only now and then: good enough
for a level or a temperature, not for the current, so that there is no energy from here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from meltrepro.errors import TargetError
from meltrepro.targets.base import RAW, Reading, Source
from meltrepro.targets.remote.shell import Shell
from meltrepro.untrusted import whole_number

_EVERY_S = 1.0
# By the kernel's files where they can be read; the service is asked for the rest.
_LOOK = """
read -r now rest < /proc/uptime
echo "uptime=$now"
whole=
read -r type < /sys/class/power_supply/battery/type && [ "$type" = Battery ] && whole=battery
for supply in /sys/class/power_supply/*; do
    read -r type < "$supply/type" || continue
    scope= && read -r scope < "$supply/scope"
    [ "$scope" != Device ] || continue
    if [ "$type" != Battery ]; then
        read -r value < "$supply/online" && echo "online=$value"
        continue
    fi
    case "$supply" in */"${whole:-${supply##*/}}") ;; *) continue ;; esac
    for name in current_now charge_counter voltage_now status; do
        read -r value < "$supply/$name" && echo "$name=$value"
    done
done 2>/dev/null
dumpsys battery
exit 0
"""
_BUSY = "while :; do :; done & read -r line; kill -9 $!"
"""Until its input ends, which it also does where the link is lost."""
FED_EVERY_S = 2.0
FED = "feed/battery"
"""Below the root of the target's folder."""
FEEDER = f"""
mkdir -p "$1" && cd "$1" || exit 1
while :; do
    said=$(dumpsys battery)
    case "$said" in
        *"powered: true"* | *"UPDATES STOPPED"*) plugged=1 ;;
        *) plugged=0 ;;
    esac
    printf 'plugged %s\\n%s\\n' "$plugged" "$said" > battery.part && mv battery.part battery
    sleep {FED_EVERY_S:g}
done
"""
"""Its argument is the folder in which the file is to be."""
_FED_FIELDS = (
    ("battery.level", "%", "level", 1.0),
    ("battery.voltage", RAW, "voltage", 1.0),
    ("battery.charge", "C", "Charge counter", 3600e-6),
    ("temperature.battery", "degC", "temperature", 0.1),
)


def discharge(
    shell: Shell,
    seconds: float,
    tell: Callable[[float], object] = lambda done_s: None,
    sleep: Callable[[float], object] = time.sleep,
) -> Sequence[Reading]:
    """Look at the battery every second while all CPUs are busy; `tell` hears for how long.

    Ends early where the device charges. Raises `TargetError` where it does not tell, `TargetLost`.
    """
    readings: list[Reading] = []
    with _busy(shell):
        began = time.monotonic()
        while (done_s := time.monotonic() - began) < seconds:
            tell(done_s)
            readings.append(look(shell))
            if readings[-1].charging:
                break
            sleep(_EVERY_S)
    return readings


def look(shell: Shell) -> Reading:
    """One look; raises `TargetError`, `TargetLost`."""
    return parse(shell.expect(shell.script(_LOOK), "read its battery").text, shell.link.name)


def parse(text: str, device: str) -> Reading:
    """What a look has shown: the kernel's files, then the service; raises `TargetError` for no time."""
    shown = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    said = dict(re.findall(r"^  ([\w ]+): (\S+)$", text, re.MULTILINE))

    def number(file: str, field: str) -> int | None:
        found = shown.get(file) or said.get(field) or ""
        return int(found) if re.fullmatch(r"-?\d{1,18}", found) else None

    if not re.fullmatch(r"\d+(\.\d+)?", shown.get("uptime", "")):
        raise TargetError(f"{device}: a garbled answer about its battery: {text[:80]!r}")
    online = re.findall(r"^online=(\d+)$", text, re.MULTILINE)
    powered = any(said.get(f"{name} powered") == "true" for name in ("AC", "USB", "Wireless", "Dock"))
    return Reading(
        t_s=float(shown["uptime"]),
        current=number("current_now", "current now"),
        charge_uah=number("charge_counter", "Charge counter"),
        voltage=number("voltage_now", "voltage"),
        batteries=max(1, len(re.findall(r"^current_now=", text, re.MULTILINE))),
        charging=powered
        or "UPDATES STOPPED" in text  # somebody has told the service what to say
        or any(int(value) for value in online)
        or shown.get("status") == "Charging",
    )


@contextmanager
def _busy(shell: Shell) -> Iterator[None]:
    """All CPUs of the device at work."""
    cores = shell.expect(shell.run(["nproc"]), "count its CPUs").text
    with ExitStack() as stack:
        for _ in range(min(whole_number(cores) or 1, 64)):
            stack.enter_context(closing(shell.open(["sh", "-c", _BUSY])))
        yield


def fed_sources(said: str, root: str) -> Sequence[Source]:
    """What can be read of the file that the feeder writes, from one answer of `dumpsys battery`; nothing where there is no battery."""
    path = f"{root.lstrip('/')}/{FED}"
    found = [
        Source(name, unit, "gauge", path, f"\n  {field}: ", scale=scale, refresh_s=FED_EVERY_S)
        for name, unit, field, scale in _FED_FIELDS
        if re.search(rf"^  {field}: -?\d+$", said, re.MULTILINE)
    ]
    if found and "powered: " in said:
        found.append(Source("supply.any", "1", "gauge", path, "plugged ", refresh_s=FED_EVERY_S))
    return found
