"""Power mode, clocks and fan of a Jetson as settings that a manifest may ask for: set, seen to hold, put back.

What needs root goes through `sudo -n` by the commands of `jetson_settings.sudoers` alone. How clocks and fan were is kept by
`jetson_clocks --store`, once, before either is changed, in `<root>/clocks.conf`.
"""

from __future__ import annotations

from collections.abc import Sequence

from meltrepro.targets.jetson.options import JetsonSettings
from meltrepro.targets.jetson.settings import CLOCKS, CONF, NVPMODEL, QUERY, parse_mode
from meltrepro.targets.remote.controls import Control

FREE, PINNED = "free", "pinned"
CONTROLLED, FASTEST = "controlled", "fastest"
# Numbers of modes differ by how a board was flashed, so that the board itself looks them up. A mode that needs a reboot has
# nvpmodel ask for one; it gets no answer, and leaves everything as it was.
_SET_MODE = f"""
number=$(sed -n "s/^[[:space:]]*<[[:space:]]*POWER_MODEL[[:space:]]\\{{1,\\}}ID=\\([0-9]\\{{1,\\}}\\)[[:space:]]\\{{1,\\}}NAME=\\(MODE_\\)\\{{0,1\\}}$1[[:space:]]*>.*/\\1/p" {CONF} | head -n 1)
if [ -z "$number" ]; then
    echo "the board has no power mode $1 in {CONF}" >&2
    exit 1
fi
said=$(sudo -n {NVPMODEL} -m "$number" 2>&1 < /dev/null)
status=$?
case "$said" in
    *[Rr][Ee][Bb][Oo][Oo][Tt]*) echo "power mode $1 needs a reboot, which is never done: $said" >&2; exit 1 ;;
esac
[ "$status" = 0 ] || echo "$said" >&2
exit "$status"
"""
_SET_CLOCKS = f"""
mkdir -p "${{1%/*}}" && {{ [ -f "$1" ] || sudo -n {CLOCKS} --store "$1" < /dev/null; }} && shift && exec sudo -n {CLOCKS} "$@" < /dev/null
"""
_RESTORE = f"""
[ ! -f "$1" ] || {{ sudo -n {CLOCKS} --restore "$1" < /dev/null && rm -f "$1"; }}
"""
_GET_CLOCKS = """
for cpu in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
    [ -f "$cpu/scaling_min_freq" ] || continue
    read -r low < "$cpu/scaling_min_freq" && read -r high < "$cpu/scaling_max_freq" || exit 1
    [ "$low" = "$high" ] || { echo free; exit; }
    found=pinned
done
echo "$found"
"""
_GET_FAN = """
for duty in /sys/class/hwmon/hwmon*/pwm1; do
    [ -f "$duty" ] || continue
    read -r now < "$duty" || exit 1
    [ "$now" = 255 ] || { echo controlled; exit; }
    found=fastest
done
echo "$found"
"""


def wanted(settings: JetsonSettings) -> dict[str, str]:
    """What a manifest asks for, in the order in which it is set: clocks are pinned to what the power mode allows."""
    found: dict[str, str | None] = {
        "power_mode": settings.power_mode,
        "clocks": settings.clocks,
        "fan": settings.fan,
    }
    return {name: value for name, value in found.items() if value is not None}


def controls(root: str) -> Sequence[Control]:
    """The settings of a board whose folder is `root`."""
    # In a folder of the user's own: root's file in /var/tmp, where settings are remembered, could not be removed.
    kept = f"{root}/clocks.conf"

    def changed(value: str, at_rest: str, *options: str) -> tuple[str, ...]:
        if value == at_rest:
            return ("sh", "-c", _RESTORE, "sh", kept)
        return ("sh", "-c", _SET_CLOCKS, "sh", kept, *options)

    return (
        Control(
            "power_mode",
            QUERY,
            lambda said: mode.name if (mode := parse_mode(said)) else None,
            lambda value: ("sh", "-c", _SET_MODE, "sh", value),
            lambda now: now,  # which other mode does no harm, and needs no reboot, nobody knows
        ),
        Control(
            "clocks",
            ("sh", "-c", _GET_CLOCKS),
            lambda said: said or None,
            lambda value: changed(value, FREE),
            lambda now: FREE if now == PINNED else PINNED,
        ),
        Control(
            "fan",
            ("sh", "-c", _GET_FAN),
            lambda said: said or None,
            lambda value: changed(value, CONTROLLED, "--fan"),
            lambda now: CONTROLLED if now == FASTEST else FASTEST,
        ),
    )
