"""Small files of a device, read in one go, as a file tree here: so every reader of /proc and /sys serves all targets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from meltrepro.errors import TargetError
from meltrepro.targets.remote import procfs
from meltrepro.targets.remote.shell import Shell
from meltrepro.untrusted import whole_number

_CPUS, _ZONES = 16, 100
_CLOCKS = (
    "scaling_cur_freq",
    "scaling_governor",
    "scaling_max_freq",
    "cpuinfo_max_freq",
    "energy_performance_preference",
)
_LOOK = 'uname -m && nproc && mkdir -p "$1" && stat -f -c "%a %S" "$1"'
FILES = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/loadavg",
    "/proc/stat",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/version",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/numa_balancing",
    "/proc/sys/kernel/sched_autogroup_enabled",
    "/proc/sys/vm/swappiness",
    "/proc/cmdline",
    "/proc/pressure/*",
    "/proc/device-tree/model",
    "/etc/os-release",
    "/etc/machine-id",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/smt/active",
    "/sys/devices/system/cpu/vulnerabilities/*",
    "/sys/devices/system/cpu/cpufreq/boost",
    "/sys/devices/system/cpu/intel_pstate/no_turbo",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver",
    "/sys/devices/system/node/online",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/transparent_hugepage/defrag",
    "/sys/firmware/acpi/platform_profile",
    "/sys/class/dmi/id/sys_vendor",
    "/sys/class/dmi/id/product_name",
    "/sys/class/hwmon/hwmon*/name",
    "/sys/class/hwmon/hwmon*/*_label",
    "/sys/class/hwmon/hwmon*/*_input",
    "/sys/class/hwmon/hwmon*/temp*_fault",
    "/sys/class/hwmon/hwmon*/temp*_enable",
    "/sys/class/power_supply/*/type",
    "/sys/class/power_supply/*/scope",
    "/sys/class/power_supply/*/present",
    "/sys/class/power_supply/*/status",
    "/sys/class/power_supply/*/online",
    "/sys/class/power_supply/*/capacity",
    "/sys/class/power_supply/*/*_now",
    "/sys/class/power_supply/*/*_full",
    "/sys/class/power_supply/*/charge_counter",
    "/sys/class/power_supply/*/temp",
    # Phones may forbid to list these folders and yet allow to read the files in them.
    *(f"/sys/devices/system/cpu/cpu{i}/cpufreq/{name}" for i in range(_CPUS) for name in _CLOCKS),
    *(f"/sys/class/thermal/thermal_zone{i}/type" for i in range(_ZONES)),
    *(f"/sys/class/thermal/thermal_zone{i}/temp" for i in range(_ZONES)),
)
"""What is read; shell patterns."""

# Built-in commands alone: a phone takes milliseconds to start a process. No `echo`, which changes backslashes; Android's
# shell has no other `printf` than a program.
_SCRIPT = """
if [ -n "${KSH_VERSION-}" ]; then
    say() { print -r -- "$1"; }
else
    say() { printf '%s\\n' "$1"; }
fi
for pattern in "$@"; do
    for file in $pattern; do
        [ -f "$file" ] && [ -r "$file" ] || continue
        say "@$file"
        while IFS= read -r line || [ -n "$line" ]; do say "=$line"; done < "$file"
    done
done 2>/dev/null
exit 0
"""


@contextmanager
def snapshot(shell: Shell, files: Sequence[str] = FILES) -> Iterator[Path]:
    """The root of a temporary tree with the files as they are now; raises `TargetError`, `TargetLost`."""
    with tempfile.TemporaryDirectory(prefix="meltrepro-") as folder:
        root = Path(folder)
        unpack(shell.expect(shell.script(_SCRIPT, *files), "read its state").out.decode(errors="replace"), root)
        yield root


def unpack(text: str, root: Path) -> None:
    """Write the files below the root; a device that names other places than it was asked for is refused."""
    path: Path | None = None
    contents: dict[Path, list[str]] = {}
    for line in text.split("\n"):  # not splitlines, which knows many other ends of lines
        if line.startswith("@/"):
            name = PurePosixPath(line[2:])
            if ".." in name.parts:
                raise TargetError(f"the device answers with a path that leads out: {line[1:120]!r}")
            path = root / name
            contents[path] = []
        elif line.startswith("=") and path is not None:
            contents[path].append(line[1:])
        elif line:
            raise TargetError(f"the device gives a garbled answer: {line[:120]!r}")
    for path, lines in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except (OSError, ValueError) as error:
            raise TargetError(f"the device names a file that cannot be: {path.name[:80]!r}") from error


class Capacity(NamedTuple):
    """What a device has to work with."""

    arch: str
    cores: int
    memory_bytes: int
    disk_free_bytes: int


def capacity(shell: Shell, tree: Path, root: str) -> Capacity:
    """Those of the device of a snapshot, with the disk of the folder `root`; raises `TargetError`, `TargetLost`."""
    look = shell.expect(shell.script(_LOOK, root), f"use {root}").text.split()
    memory = procfs.memory(tree).get("MemTotal")
    numbers = [number for word in look[1:] if (number := whole_number(word)) is not None]
    if len(look) != 4 or len(numbers) != 3 or memory is None:
        raise TargetError(f"{shell.link.name}: does not say what it is: {' '.join(look)[:100]!r}")
    return Capacity(look[0], numbers[0], memory, numbers[1] * numbers[2])
