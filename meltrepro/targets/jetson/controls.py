"""Power mode, clocks and fan of a Jetson as settings that a manifest may ask for: set, seen to hold, put back.

What needs root goes through `sudo -n` by the commands that `sudoers` lists, and fails where it would ask. How clocks and fan were is kept by
`jetson_clocks --store`, once, before either is changed, in `<root>/clocks.conf`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from meltrepro.errors import TargetError
from meltrepro.targets.remote.controls import Control
from meltrepro.targets.remote.procfs import integer, read

NVPMODEL, CLOCKS = "/usr/sbin/nvpmodel", "/usr/bin/jetson_clocks"
CONF = "/etc/nvpmodel.conf"
QUERY = (NVPMODEL, "-q")
"""Tells the power mode; needs no root on most releases."""
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


def parse_mode(said: str) -> str | None:
    """The power mode in the answer of `nvpmodel -q`, by its name: its number depends on how the board was flashed."""
    found = re.search(r"^NV Power Mode:[ \t]*(\S+)[ \t]*\n(?:[^\n]*\n)*?\d+[ \t]*$", said, re.MULTILINE)
    return found[1].removeprefix("MODE_") if found else None


def parse_modes(conf: str) -> list[str]:
    """Names of the power modes that /etc/nvpmodel.conf declares."""
    found = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=\d+\s+NAME=(\S+?)\s*>", conf, re.MULTILINE)
    return [name.removeprefix("MODE_") for name in found]


def controls(root: str) -> Sequence[Control]:
    """The settings of a board whose folder is `root`."""
    # In a folder of the user's own: root's file in /var/tmp, where settings are remembered, could not be removed.
    kept = stored_clocks(root)

    def changed(value: str, at_rest: str, *options: str) -> tuple[str, ...]:
        if value == at_rest:
            return ("sh", "-c", _RESTORE, "sh", kept)
        return ("sh", "-c", _SET_CLOCKS, "sh", kept, *options)

    return (
        Control(
            "power_mode",
            QUERY,
            parse_mode,
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


def stored_clocks(root: str) -> str:
    """Where on the board it is kept how clocks and fan were."""
    return f"{root}/clocks.conf"


def sudoers(user: str, root: str) -> str:
    """A file for /etc/sudoers.d that allows a user just these commands without a password; `root` is the folder there.

    Raises `TargetError` for names that mean something else in such a file.
    """
    path = stored_clocks(root)
    if not re.fullmatch(r"[a-z_][a-z0-9_-]*", user) or not re.fullmatch(r"/[\w./-]+", path):
        raise TargetError(f"{user!r} and {root!r} cannot stand in a sudoers file")
    modes = [f"{NVPMODEL} -m {number}" for number in range(10)]
    clocks = [CLOCKS + more for more in (' ""', " --fan", f" --store {path}", f" --restore {path}")]
    return f"{user} ALL=(root) NOPASSWD: " + ", ".join([*modes, *clocks]) + "\n"


def pinned(root: Path) -> bool | None:
    """Whether clocks are held, as the kernel shows it to everybody: no CPU may leave its highest one.

    `None` where no CPU shows its limits.
    """
    limits = [
        (integer(folder / "scaling_min_freq"), integer(folder / "scaling_max_freq"))
        for folder in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq")
    ]
    known = [(low, high) for low, high in limits if low is not None and high is not None]
    return all(low == high for low, high in known) if known else None


def fan(root: Path) -> Mapping[str, str]:
    """Fans by monitor: duty (0 to 255) and, where there is a tachometer, turns a minute; what controls them is not in files."""
    found = {}
    for file in sorted(root.glob("sys/class/hwmon/hwmon*/pwm[0-9]")):
        name = read(file.parent / "name") or "fan"
        found[f"{name}.{file.name}"] = read(file) or "unknown"
    for file in sorted([*root.glob("sys/class/hwmon/hwmon*/rpm"), *root.glob("sys/class/hwmon/hwmon*/fan[0-9]_input")]):
        name = read(file.parent / "name") or "fan"
        found[f"{name}.{file.name}"] = read(file) or "unknown"
    return found
