"""What a Linux kernel shows in small files, as sources for a sampler: where each number stands and what it means.

Only what is there when a campaign begins is listed. Names are `quantity.part`; units are SI, bytes and degrees Celsius.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from meltrepro.record.temperature import CHANNELS
from meltrepro.targets.base import PROCESS, RAW, Source
from meltrepro.targets.remote.procfs import batteries, cpu_times_s, integer, of_machine, read, thermometers

_SLOW_S = 1.0
"""Sensors behind a bus are not asked more often: reading them can take milliseconds."""


def linux_sources(root: Path) -> tuple[Source, ...]:
    """The sources of a machine whose file system has this root."""
    return tuple(
        source
        for find in (
            *(_process, _memory, _cpu, _pressure, _temperatures, _throttling, _frequencies, _energy),
            *(_supplies, _battery),
        )
        for source in find(root)
    )


def _process(root: Path) -> Iterator[Source]:
    """Memory of the runner."""
    for name, field in (("rss_anon", "RssAnon"), ("rss_file", "RssFile"), ("swap", "VmSwap")):
        yield Source(f"process.{name}", "B", "gauge", f"proc/{PROCESS}/status", f"{field}:", scale=1024)


def _memory(root: Path) -> Iterator[Source]:
    text = read(root / "proc/meminfo") or ""
    for name, field in (("available", "MemAvailable"), ("swap_free", "SwapFree")):
        if f"{field}:" in text:
            yield Source(f"memory.{name}", "B", "gauge", "proc/meminfo", f"{field}:", scale=1024)


def _cpu(root: Path) -> Iterator[Source]:
    """What all CPUs together did with their time; the kernel counts it in hundredths of a second."""
    for index, name in enumerate(cpu_times_s(root)):
        yield Source(f"cpu.{name}", "s", "counter", "proc/stat", "cpu ", index=index, scale=0.01)


def _pressure(root: Path) -> Iterator[Source]:
    """Time in which something had to wait (PSI, Documentation/accounting/psi.rst); kept in microseconds."""
    for name in ("cpu", "memory", "io"):
        if "total=" in (read(root / "proc/pressure" / name) or ""):
            yield Source(f"pressure.{name}", "s", "counter", f"proc/pressure/{name}", "total=", scale=1e-6)


def _temperatures(root: Path) -> Iterator[Source]:
    for each in thermometers(root):
        yield _sensor(root, f"{CHANNELS}{each.name}", "degC", each.file, each.unit_c)


def _throttling(root: Path) -> Iterator[Source]:
    """How often a CPU was slowed down because of heat."""
    for count in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")):
        if integer(count) is not None:
            yield Source(f"throttled.{count.parent.parent.name}", "1", "counter", _below(root, count))


def _frequencies(root: Path) -> Iterator[Source]:
    for clock in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")):
        if integer(clock) is not None:
            yield Source(f"frequency.{clock.parent.parent.name}", "Hz", "gauge", _below(root, clock), scale=1000)


def _energy(root: Path) -> Iterator[Source]:
    """Energy counters of the processor (RAPL), packages and the whole platform; parts of a package count in it."""
    for zone in sorted(root.glob("sys/class/powercap/*/energy_uj")):
        largest = integer(zone.parent / "max_energy_range_uj")
        name = read(zone.parent / "name") or ""
        if integer(zone) is not None and largest and (name.startswith("package") or name == "psys"):
            wraps_at = (largest + 1) * 1e-6
            yield Source(f"energy.{name}", "J", "counter", _below(root, zone), scale=1e-6, wraps_at=wraps_at)


def raw(source: Source) -> Source:
    """The same source in the numbers of its driver."""
    return replace(source, unit=RAW, scale=1.0)


def _supplies(root: Path) -> Iterator[Source]:
    """Whether a machine with a battery is on external power, supply by supply."""
    for online in sorted(root.glob("sys/class/power_supply/*/online")):
        own = of_machine(online.parent) and read(online.parent / "type") != "Battery"
        if own and integer(online) is not None:
            yield _sensor(root, f"supply.{online.parent.name}", "1", online, 1.0)


def _battery(root: Path) -> Iterator[Source]:
    """The batteries, by their names where there are several. Signs are as the driver gives them: they differ between devices
    and are judged later."""
    found = batteries(root)
    for supply in found:
        prefix = "battery" if len(found) == 1 else f"battery.{supply.name}"
        # Phones have a counter in place of the charge; it is a gauge all the same, which rises while they are charged.
        charge = "charge_now" if integer(supply / "charge_now") is not None else "charge_counter"
        for name, unit, file, scale in (
            ("voltage", "V", "voltage_now", 1e-6),
            ("current", "A", "current_now", 1e-6),
            ("power", "W", "power_now", 1e-6),
            ("charge", "C", charge, 3600e-6),
            ("stored", "J", "energy_now", 3600e-6),
            ("level", "%", "capacity", 1.0),
        ):
            if integer(supply / file) is not None:
                yield _sensor(root, f"{prefix}.{name}", unit, supply / file, scale)


def of_several(source: Source) -> bool:
    """Whether a source is of one of several batteries."""
    return source.name.startswith("battery.") and source.name.count(".") > 1


def _sensor(root: Path, name: str, unit: str, file: Path, scale: float) -> Source:
    return Source(name, unit, "gauge", _below(root, file), scale=scale, refresh_s=_SLOW_S)


def _below(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()
