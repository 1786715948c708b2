"""Power mode, clocks and fan of a Jetson: how they are, and the commands that set them and put them back.

Commands are given, never run, here. Those that need root go through `sudo -n`, which fails where it would ask, and are few
enough for a list of what may be run so (`SUDOERS`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meltrepro.errors import TargetError
from meltrepro.targets.remote.procfs import integer, read

NVPMODEL, CLOCKS = "/usr/sbin/nvpmodel", "/usr/bin/jetson_clocks"
CONF = "/etc/nvpmodel.conf"
QUERY = (NVPMODEL, "-q")
"""Tells the power mode; needs no root on most releases."""
SHOW = ("sudo", "-n", CLOCKS, "--show")


@dataclass(frozen=True)
class Mode:
    """A power mode; its number depends on how the board was flashed, so that only the name says what it is."""

    name: str
    number: int


def parse_mode(said: str) -> Mode | None:
    """The answer of `nvpmodel -q`; `None` where it holds no mode."""
    found = re.search(r"^NV Power Mode:[ \t]*(\S+)[ \t]*\n(?:[^\n]*\n)*?(\d+)[ \t]*$", said, re.MULTILINE)
    return Mode(found[1].removeprefix("MODE_"), int(found[2])) if found else None


def parse_modes(conf: str) -> Mapping[str, int]:
    """Numbers by name, as /etc/nvpmodel.conf declares them."""
    found = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", conf, re.MULTILINE)
    return {name.removeprefix("MODE_"): int(number) for number, name in found}


def default_mode(conf: str) -> str | None:
    """The mode that the board starts in unless told otherwise."""
    found = re.search(r"^\s*<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>", conf, re.MULTILINE)
    return next((name for name, number in parse_modes(conf).items() if found and number == int(found[1])), None)


def set_mode(name: str, conf: str) -> tuple[str, ...]:
    """The command for a mode by its name; raises `TargetError` where the board has none of that name.

    It stays over reboots. Some changes take effect with a reboot alone, which the command then asks about: it must get no
    input, and the mode is to be read again.
    """
    modes = parse_modes(conf)
    if name not in modes:
        raise TargetError(f"the board has no power mode {name!r}", hint=f"it has {', '.join(modes) or 'none'}")
    return ("sudo", "-n", NVPMODEL, "-m", str(modes[name]))


def pin_clocks() -> tuple[str, ...]:
    """The command that holds all clocks at what the power mode allows at most, until a reboot or `restore_clocks`."""
    return ("sudo", "-n", CLOCKS)


def store_clocks(path: str) -> tuple[str, ...]:
    """The command that keeps how clocks and fan are, before they are changed."""
    return ("sudo", "-n", CLOCKS, "--store", path)


def restore_clocks(path: str) -> tuple[str, ...]:
    """The command that puts them back."""
    return ("sudo", "-n", CLOCKS, "--restore", path)


def fan_fastest() -> tuple[str, ...]:
    """The command that lets the fan turn as fast as it can; `restore_clocks` puts it back too."""
    return ("sudo", "-n", CLOCKS, "--fan")


def sudoers(user: str, path: str) -> str:
    """A file for /etc/sudoers.d that allows a user just these commands without a password; `path` is that of the store.

    Raises `TargetError` for names that mean something else in such a file.
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_-]*", user) or not re.fullmatch(r"/[\w./-]+", path):
        raise TargetError(f"{user!r} and {path!r} cannot stand in a sudoers file")
    modes = [f"{NVPMODEL} -m {number}" for number in range(10)]
    clocks = [CLOCKS + more for more in (' ""', " --show", " --fan", f" --store {path}", f" --restore {path}")]
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


def parse_clocks(said: str) -> Mapping[str, Mapping[str, str]]:
    """The answer of `jetson_clocks --show`: by unit (`cpu0`, `GPU`, `EMC`, `FAN`) what it says of it."""
    found = {}
    for line in said.splitlines():
        unit, _, rest = line.strip().partition(" ")
        pairs = dict(re.findall(r"(\w[\w ]*?)=(\S+)", rest))
        if pairs:
            found[unit.rstrip(":")] = pairs
    return found


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
