"""What an iPhone tells of itself, in this project's terms. Values that cannot be meant are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meltrepro.errors import TargetError
from meltrepro.record.temperature import meant
from meltrepro.targets.base import (
    VOLTAGES_MV,
    Battery,
    DeviceFacts,
    DeviceState,
    Source,
    device_id,
    within,
)
from meltrepro.targets.ios.options import IOS, UNPROVEN

SOURCES = (
    Source("process.footprint", "B", "gauge", "app/footprint"),
    Source("memory.available", "B", "gauge", "app/available"),
    Source("thermal.state", "", "gauge", "app/thermal_state"),
)
"""What the runner app knows of itself; thermal.state is 0 (nominal) to 3 (critical)."""
_FACTS = {
    "name": "DeviceClass",
    "hardware": "HardwareModel",
    "soc": "HardwarePlatform",
    "ios": "ProductVersion",
    "build": "BuildVersion",
    "cpu": "CPUArchitecture",
}
_VIRTUAL, _PROGRAMS = "MeltreproVirtual", "MeltreproPrograms"
_CURRENTS_MA = (-20_000.0, 20_000.0)
_NOT_TOLD = "iOS does not tell hosts"


def facts(
    values: Mapping[str, Any],
    hardware: Mapping[str, Any],
    memory_bytes: int | None,
    free_bytes: int | None,
    name: str,
) -> DeviceFacts:
    """What the device is; its UDID leaves it as a digest only. Raises `TargetError` where it does not say enough."""
    udid, model = values.get("UniqueDeviceID"), values.get("ProductType")
    cores = next((hardware[key] for key in ("numberOfPhysicalCpus", "numberOfCpus") if _count(hardware.get(key))), None)
    missing = [
        what
        for what, value in (("its id", udid), ("its model", model), ("its CPUs", cores), ("its memory", memory_bytes))
        if not value
    ]
    if missing:
        raise TargetError(
            f"{name}: does not say {', '.join(missing)}", hint="are its developer services there? docs/devices/ios.md"
        )
    found = {ours: str(values[theirs]) for ours, theirs in _FACTS.items() if values.get(theirs)}
    arch, features = linux_programs(values) or (IOS, frozenset({"asimd"}))
    virtual = values.get(_VIRTUAL) is True
    if not virtual:
        found["proof"] = UNPROVEN
    return DeviceFacts(
        id=device_id("ios", str(udid)),
        kind="ios",
        model=str(model),
        arch=arch,
        features=features,
        cores=int(cores or 0),
        memory_bytes=int(memory_bytes or 0),
        disk_free_bytes=free_bytes or 0,
        virtual=virtual,
        facts={**found, "sandbox": "bare"},
    )


def linux_programs(values: Mapping[str, Any]) -> tuple[str, frozenset[str]] | None:
    """Machine and CPU features of the programs of Linux that a virtual phone says it runs; `None` for every other phone."""
    told = values.get(_PROGRAMS)
    if values.get(_VIRTUAL) is not True or not isinstance(told, dict):
        return None
    machine, features = told.get("machine"), told.get("features")
    if not isinstance(machine, str) or not isinstance(features, list) or not all(isinstance(f, str) for f in features):
        return None
    return machine, frozenset(features)


def state(values: Mapping[str, Any], battery: Mapping[str, Any], monotonic_ns: int) -> DeviceState:
    """How the device is; raises `TargetError` where it has no time of day."""
    wall_s = values.get("TimeIntervalSince1970")
    if not isinstance(wall_s, int | float) or isinstance(wall_s, bool) or not 0 < wall_s < 2**33:
        raise TargetError(f"an iPhone without a time of day: {wall_s!r}"[:200])
    found = parse_battery(battery)
    known = ("boot_id", "frequencies_khz", "governors", "load_1min", "cpu_idle_s", "memory_available_bytes")
    missing = dict.fromkeys(known, _NOT_TOLD)
    temperatures = {}
    if found is None:
        missing["battery"] = "the phone shows no battery"
    elif found.temperature_c is not None:
        temperatures["battery"] = found.temperature_c
    if not temperatures:
        missing["temperatures_c"] = "the phone shows no temperature of its battery, and hosts are told of no other"
    return DeviceState(
        wall_ns=round(wall_s * 1e6) * 1000,
        monotonic_ns=monotonic_ns,
        temperatures_c=temperatures,
        battery=found,
        unavailable=missing,
    )


def parse_battery(registry: Mapping[str, Any]) -> Battery | None:
    """The battery as the kernel's registry has it: percent, mV, mA, hundredths of a degree; `None` where there is none.

    A phone at a cable counts as charging, whatever it does with the current: what its battery gives is then not what
    the phone draws.
    """
    if not registry or registry.get("BatteryInstalled") is False:
        return None
    level, most = _number(registry.get("CurrentCapacity")), _number(registry.get("MaxCapacity")) or 100.0
    hundredths = _number(registry.get("Temperature"))
    flags = [registry.get(name) for name in ("IsCharging", "ExternalConnected")]
    charging = any(flag is True or flag == 1 for flag in flags) if any(flag is not None for flag in flags) else None
    return Battery(
        percent=None if level is None or not 0 <= level <= most else 100 * level / most,
        charging=charging,
        voltage_mv=within(VOLTAGES_MV, _number(registry.get("Voltage"))),
        current_ma=within(_CURRENTS_MA, _signed(registry.get("InstantAmperage"))),
        temperature_c=meant(None if hundredths is None else hundredths / 100),
    )


def _signed(value: object) -> float | None:
    """A current that some versions print as the unsigned number that its bits are."""
    if isinstance(value, int) and not isinstance(value, bool):
        bits = next((bits for bits in (16, 32, 64) if 2 ** (bits - 1) <= value < 2**bits), None)
        return float(value if bits is None else value - 2**bits)
    return _number(value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 4096
