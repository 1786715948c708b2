"""What a Linux machine says about itself in /proc and /sys; used by every target that can show these files.

All readers take the root of the file system, so that tests can show them other machines. What cannot be read is left
out or `None`; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from meltrepro.record import temperature
from meltrepro.targets.base import Battery, DeviceState
from meltrepro.untrusted import whole_number

_UNLIMITED = 1 << 60
"""Memory limits of control groups from here on mean none (version 1 writes a huge number)."""
CPU_TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""Columns of /proc/stat, in hundredths of a second."""
_BOOT_OPTIONS = re.compile(
    r"^((amd_pstate|clocksource|default_hugepagesz|hugepages|idle|intel_idle|intel_pstate|isolcpus|maxcpus|mitigations|nohz_full"
    r"|nosmt|nr_cpus|numa_balancing|preempt|processor|rcu_nocbs|transparent_hugepage|tsc)\b|cpufreq\.)"
)
"""What a kernel may have been started with that changes how fast it computes; the rest of its command line is nobody's affair."""


@dataclass(frozen=True)
class Cpu:
    """The processor as /proc/cpuinfo describes it."""

    model: str
    microcode: str | None
    features: frozenset[str]
    """Features that every core has."""
    hypervisor: bool


def read(path: Path) -> str | None:
    """A small file without its white space at the ends; `None` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
    except OSError:
        return None


def integer(path: Path) -> int | None:
    """A file that holds one whole number; `None` for anything else."""
    text = read(path)
    return int(text) if text and re.fullmatch(r"-?[0-9]{1,20}", text) else None


def number(path: Path) -> float | None:
    """A file that holds one number; `None` for anything else."""
    text = read(path)
    return float(text) if text and re.fullmatch(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?", text) else None


def cpu(root: Path) -> Cpu:
    """The processor; features are those of the poorest core."""
    blocks = [dict(_fields(block)) for block in (read(root / "proc/cpuinfo") or "").split("\n\n")]
    features = [
        frozenset((block.get("flags") or block.get("Features") or "").split())
        for block in blocks
        if "flags" in block or "Features" in block
    ]
    first = {key: value for block in reversed(blocks) for key, value in block.items()}
    arm = " ".join(f"{key} {first[key]}" for key in ("CPU implementer", "CPU part") if key in first)
    board = read(root / "proc/device-tree/model")
    model = first.get("model name") or first.get("Hardware") or board or arm or "unknown"
    common = frozenset.intersection(*features) if features else frozenset[str]()
    return Cpu(model, first.get("microcode"), common, "hypervisor" in common)


def memory(root: Path) -> Mapping[str, int]:
    """/proc/meminfo in bytes, by field name."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", read(root / "proc/meminfo") or "", re.MULTILINE)
    return {name: int(kilobytes) * 1024 for name, kilobytes in found}


def memory_limit(root: Path) -> int | None:
    """The lowest memory limit of the control groups that this process is in, in bytes; `None` for none."""
    values = [
        integer(folder / name) for folder, name in _group_files(root, "memory", "memory.limit_in_bytes", "memory.max")
    ]
    return min((value for value in values if value is not None and value < _UNLIMITED), default=None)


def cpu_quota(root: Path) -> float | None:
    """The lowest CPU quota of the control groups that this process is in, in CPUs; `None` for none."""
    quotas: list[float] = []
    for folder, name in _group_files(root, "cpu", "cpu.cfs_quota_us", "cpu.max"):
        if name == "cpu.max":
            words = (read(folder / name) or "").split()
        else:
            words = [read(folder / name) or "", read(folder / "cpu.cfs_period_us") or ""]
        numbers = [number for word in words if (number := whole_number(word)) is not None]
        if len(words) == len(numbers) == 2 and numbers[1] > 0:
            quotas.append(numbers[0] / numbers[1])
    return min(quotas, default=None)


@dataclass(frozen=True)
class Thermometer:
    """A sensor that shows a temperature now."""

    name: str
    """`zone:type` or `monitor:chip:label`."""
    file: Path
    unit_c: float
    """Degrees Celsius for one of its numbers."""
    celsius: float


def thermometers(root: Path) -> Iterator[Thermometer]:
    """Thermal zones and hardware monitors, without what is no temperature (record/temperature.py)."""
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        kind, shown = read(zone / "type") or "unknown", number(zone / "temp")
        unit = None if shown is None else temperature.zone_unit(kind, shown)
        if shown is not None and unit is not None:
            yield Thermometer(f"{zone.name}:{kind}", zone / "temp", unit, round(shown * unit, 6))
    names: set[str] = set()
    for sensor in sorted(root.glob("sys/class/hwmon/hwmon*/temp*_input")):
        short, monitor, shown = sensor.name.removesuffix("_input"), sensor.parent, number(sensor)
        label = read(monitor / f"{short}_label") or short
        celsius = None if shown is None else temperature.meant(shown / 1000)
        broken = integer(monitor / f"{short}_fault") == 1 or integer(monitor / f"{short}_enable") == 0
        if celsius is None or broken or not temperature.named(label):
            continue
        name = f"{monitor.name}:{read(monitor / 'name') or 'unknown'}:{label}"
        yield Thermometer(f"{name} {short}" if name in names else name, sensor, 1e-3, celsius)
        names.add(name)


def temperatures_c(root: Path) -> Mapping[str, float]:
    """Thermal zones and hardware monitors in degrees Celsius, by `zone:type` or `monitor:chip:label`."""
    return {each.name: each.celsius for each in thermometers(root)}


def frequencies_khz(root: Path) -> Mapping[str, int]:
    """Current clock of each CPU, from cpufreq, else from /proc/cpuinfo."""
    found = {path.parent.parent.name: integer(path) for path in _per_cpu(root, "cpufreq/scaling_cur_freq")}
    known = {name: value for name, value in found.items() if value is not None}
    if known:
        return known
    clocks = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", read(root / "proc/cpuinfo") or "", re.MULTILINE)
    return {f"cpu{number}": round(float(clock) * 1000) for number, clock in enumerate(clocks)}


def governors(root: Path) -> Mapping[str, str]:
    """CPU frequency governor of each CPU."""
    return _of_cpus(root, "cpufreq/scaling_governor")


def load_1min(root: Path) -> float | None:
    """Load average of the last minute."""
    words = (read(root / "proc/loadavg") or "").split()
    return float(words[0]) if words and re.fullmatch(r"\d+(\.\d+)?", words[0]) else None


def cpu_idle_s(root: Path) -> float | None:
    """Time that all CPUs together have had nothing to do; the kernel counts it in hundredths of a second."""
    return cpu_times_s(root).get("idle")


def cpu_times_s(root: Path) -> Mapping[str, float]:
    """What all CPUs together have done since boot, by the names of `CPU_TIMES`, in seconds; old kernels have fewer."""
    found = re.match(r"cpu ((?: *\d+)+)", read(root / "proc/stat") or "")
    return {name: int(value) / 100 for name, value in zip(CPU_TIMES, found[1].split() if found else (), strict=False)}


def batteries(root: Path) -> list[Path]:
    """Folders of the batteries that feed the machine, each of which holds charge of its own.

    Not those of a mouse or a headset, whose scope is another device, nor of an empty bay. Phones show one battery
    several times, by its gauge, its charger and whole: the last is called `battery` by Android's own rule.
    """
    found = [
        supply
        for supply in sorted(root.glob("sys/class/power_supply/*"))
        if read(supply / "type") == "Battery" and of_machine(supply) and read(supply / "present") != "0"
    ]
    return [supply for supply in found if supply.name == "battery"] or found


def of_machine(supply: Path) -> bool:
    """Whether a power supply is the machine's own (Documentation/ABI/testing/sysfs-class-power: scope)."""
    return read(supply / "scope") != "Device"


def battery(root: Path) -> Battery | None:
    """The batteries of the machine together; `None` for one without."""
    found = [_battery(supply) for supply in batteries(root)]
    if len(found) <= 1:
        return found[0] if found else None
    states = [each.charging for each in found]
    heat = [each.temperature_c for each in found if each.temperature_c is not None]
    return Battery(
        percent=_level(batteries(root)),
        charging=True if True in states else None if None in states else False,
        temperature_c=max(heat, default=None),
    )


def _battery(supply: Path) -> Battery:
    status = read(supply / "status")
    return Battery(
        percent=integer(supply / "capacity"),
        charging=None if status in (None, "Unknown") else status == "Charging",
        voltage_mv=_scaled(supply / "voltage_now", 1000),
        current_ma=_scaled(supply / "current_now", 1000),
        temperature_c=temperature.meant(_scaled(supply / "temp", 10)),
    )


def _level(supplies: Sequence[Path]) -> float | None:
    """What several batteries hold of what they can hold, in percent; `None` where they do not all say it in one unit."""
    for unit in ("energy", "charge"):
        pairs = [(integer(supply / f"{unit}_now"), integer(supply / f"{unit}_full")) for supply in supplies]
        now = [held for held, _ in pairs if held is not None]
        full = [most for _, most in pairs if most]
        if len(now) == len(full) == len(supplies):
            return min(100.0, 100 * sum(now) / sum(full))
    return None


def state(root: Path, *, wall_ns: int, monotonic_ns: int) -> DeviceState:
    """The state of a machine whose file system, or a snapshot of it, has this root."""
    temperatures = temperatures_c(root)
    frequencies = frequencies_khz(root)
    policies = governors(root)
    load = load_1min(root)
    idle = cpu_idle_s(root)
    capped = _capped(root)
    available = memory(root).get("MemAvailable")
    power = battery(root)
    reasons = {
        "temperatures_c": None if temperatures else "the kernel shows no thermometer",
        "frequencies_khz": None if frequencies else "the kernel shows no CPU clocks",
        "governors": None if policies else "the kernel has no cpufreq driver for these CPUs",
        "load_1min": None if load is not None else "/proc/loadavg cannot be read",
        "cpu_idle_s": None if idle is not None else "/proc/stat does not tell it",
        "memory_available_bytes": None if available is not None else "/proc/meminfo does not tell it",
        "battery": None if power else "this machine has no battery",
    }
    return DeviceState(
        wall_ns=wall_ns,
        monotonic_ns=monotonic_ns,
        boot_id=read(root / "proc/sys/kernel/random/boot_id"),
        temperatures_c=temperatures,
        frequencies_khz=frequencies,
        governors=policies,
        load_1min=load,
        cpu_idle_s=idle,
        memory_available_bytes=available,
        battery=power,
        conditions={"frequency_cap": capped} if capped else {},
        unavailable={name: reason for name, reason in reasons.items() if reason},
    )


def facts(root: Path) -> Mapping[str, str]:
    """Everything else that may explain a result: name -> value, only what is there."""
    processor = cpu(root)
    quota = cpu_quota(root)
    limit = memory_limit(root)
    candidates = {
        "cpu_model": processor.model,
        "microcode": processor.microcode,
        "kernel": read(root / "proc/sys/kernel/osrelease"),
        "kernel_build": read(root / "proc/sys/kernel/version"),
        "os": _os_name(root),
        "governor": "/".join(sorted(set(governors(root).values()))),
        "cpufreq_driver": read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"),
        "boost": read(root / "sys/devices/system/cpu/cpufreq/boost"),
        "no_turbo": read(root / "sys/devices/system/cpu/intel_pstate/no_turbo"),
        "energy_preference": "/".join(sorted(set(_of_cpus(root, "cpufreq/energy_performance_preference").values()))),
        "platform_profile": read(root / "sys/firmware/acpi/platform_profile"),
        "smt": {"0": "off", "1": "on"}.get(read(root / "sys/devices/system/cpu/smt/active") or ""),
        "online_cpus": read(root / "sys/devices/system/cpu/online"),
        "numa_nodes": read(root / "sys/devices/system/node/online"),
        "memory_total_bytes": str(memory(root).get("MemTotal", "")),
        "swap_total_bytes": str(memory(root).get("SwapTotal", "")),
        "memory_limit_bytes": str(limit) if limit is not None else None,
        "cpu_quota": f"{quota:g}" if quota is not None else None,
        "cpu_weight": _weight(root),
        "cpuset": next(filter(None, (read(path / name) for path, name in _cpusets(root))), None),
        "transparent_hugepage": _selected(read(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        "transparent_hugepage_defrag": _selected(read(root / "sys/kernel/mm/transparent_hugepage/defrag")),
        "mitigations": _mitigations(root),
        "boot_options": " ".join(filter(_BOOT_OPTIONS.match, (read(root / "proc/cmdline") or "").split())),
        "aslr": read(root / "proc/sys/kernel/randomize_va_space"),
        "numa_balancing": read(root / "proc/sys/kernel/numa_balancing"),
        "sched_autogroup": read(root / "proc/sys/kernel/sched_autogroup_enabled"),
        "swappiness": read(root / "proc/sys/vm/swappiness"),
        "clocksource": read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "vendor": read(root / "sys/class/dmi/id/sys_vendor"),
        "product": read(root / "sys/class/dmi/id/product_name") or read(root / "proc/device-tree/model"),
        "virtualization": _virtualization(root, processor),
    }
    return {name: value for name, value in candidates.items() if value}


def _fields(block: str) -> Iterator[tuple[str, str]]:
    for line in block.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def _of_cpus(root: Path, name: str) -> Mapping[str, str]:
    """What a file says of each CPU, by the CPU's name."""
    found = {path.parent.parent.name: read(path) for path in _per_cpu(root, name)}
    return {name: value for name, value in found.items() if value}


def _capped(root: Path) -> str:
    """CPUs that may not run as fast as they could, which a user, a governor or a cooling device has decided."""
    most, allowed = (_of_cpus(root, f"cpufreq/{name}_max_freq") for name in ("cpuinfo", "scaling"))
    found = [
        f"{name} {int(allowed[name]) // 1000} of {int(most[name]) // 1000} MHz"
        for name in sorted(most.keys() & allowed.keys(), key=lambda name: int(name.removeprefix("cpu")))
        if allowed[name].isdigit() and most[name].isdigit() and int(allowed[name]) < int(most[name])
    ]
    return ", ".join(found)


def _mitigations(root: Path) -> str:
    """What the kernel does about faults of the processor, each of which costs something."""
    found = {path.name: read(path) for path in sorted(root.glob("sys/devices/system/cpu/vulnerabilities/*"))}
    said = {name: text.removeprefix("Mitigation: ") for name, text in found.items() if text and text != "Not affected"}
    return "; ".join(f"{name}: {text}" for name, text in said.items())


def _weight(root: Path) -> str | None:
    """The share of CPU time of the control group that this process is in, where it is not the usual one."""
    usual = {"cpu.weight": 100, "cpu.shares": 1024}
    folder, name = next(iter(_group_files(root, "cpu", "cpu.shares", "cpu.weight")), (root, "none"))
    weight = integer(folder / name)
    return None if weight in (None, usual.get(name)) else f"{weight} of usually {usual[name]}"


def _cpusets(root: Path) -> Iterator[tuple[Path, str]]:
    return _group_files(root, "cpuset", "cpuset.effective_cpus", "cpuset.cpus.effective")


def _per_cpu(root: Path, name: str) -> list[Path]:
    return sorted(root.glob(f"sys/devices/system/cpu/cpu[0-9]*/{name}"))


def _scaled(path: Path, divisor: float) -> float | None:
    value = integer(path)
    return None if value is None else value / divisor


def _selected(text: str | None) -> str | None:
    match = re.search(r"\[(\w+)\]", text or "")
    return match.group(1) if match else None


def _os_name(root: Path) -> str | None:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', read(root / "etc/os-release") or "", re.MULTILINE)
    return match.group(1) if match else None


def _virtualization(root: Path, processor: Cpu) -> str | None:
    contained = (root / ".dockerenv").exists() or (root / "run/.containerenv").exists()
    layers = [*(["virtual machine"] if processor.hypervisor else []), *(["container"] if contained else [])]
    return " and ".join(layers) or None


def _group_files(root: Path, controller: str, v1_name: str, v2_name: str) -> Iterator[tuple[Path, str]]:
    """Folder and file of a limit, for this process's group and all groups above it, in both versions."""
    base = root / "sys/fs/cgroup"
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            mounts, name = (base, base / "unified"), v2_name
        elif controller in controllers.split(","):
            mounts, name = (base / controllers, base / controller), v1_name
        else:
            continue
        inner = PurePosixPath(path).relative_to("/")
        for mount in dict.fromkeys(mounts):
            # A container may see a path of the machine outside; its own group is then the mount itself.
            yield from ((mount / folder, name) for folder in (inner, *inner.parents))
