"""Android devices: what is particular to them, told by properties and by `dumpsys` where /proc and /sys do not.

docs/devices/android.md says which of it was tried on what.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from meltrepro.atomic import write_bytes
from meltrepro.errors import MeltreproError, TargetLost
from meltrepro.record.temperature import meant
from meltrepro.settings import Settings
from meltrepro.targets.android.adb import AdbLink, Server
from meltrepro.targets.android.battery import FED, FEEDER, discharge, fed_sources
from meltrepro.targets.android.controls import CONTROLS, wanted
from meltrepro.targets.android.identity import identify
from meltrepro.targets.android.options import AndroidOptions
from meltrepro.targets.base import (
    VOLTAGES_MV,
    Attached,
    Battery,
    DeviceFacts,
    DeviceState,
    Reading,
    Source,
    within,
)
from meltrepro.targets.lab import running
from meltrepro.targets.remote import procfs as linux
from meltrepro.targets.remote.remote import RemoteTarget, Requested
from meltrepro.targets.remote.sensors import linux_sources, of_several, raw
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.remote.snapshot import capacity

_PROPERTIES = {
    "manufacturer": "ro.product.manufacturer",
    "soc": "ro.soc.model",
    "soc_manufacturer": "ro.soc.manufacturer",
    "hardware": "ro.hardware",
    "android": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "security_patch": "ro.build.version.security_patch",
    "build": "ro.build.fingerprint",
    "abi": "ro.product.cpu.abi",
}
"""Facts worth keeping, by the property that tells them."""
_MAKERS = ("battery.current", "battery.power", "battery.voltage")
"""Sources whose unit and sign are as the maker likes them."""
_VIRTUAL = ("ro.meltrepro.virtual", "ro.boot.qemu", "ro.kernel.qemu")
_CHARGING, _FULL = 2, 5
"""BatteryManager.BATTERY_STATUS_*."""
_NO_TEMPERATURES = ("6", "7", "8")
"""Types of what the thermal service lists besides temperatures."""


def open_target(options: AndroidOptions, settings: Settings) -> AndroidTarget:
    """The target as campaigns use it; raises `TargetLost` where the lab is meant and does not run."""
    link = AdbLink(*_place(options, settings))
    kill = {"background_apps": ("am", "kill-all")} if options.settings.kill_background_apps else {}
    return AndroidTarget(
        Shell(link),
        Android(partial(_shared, link, settings.home / "devices")),
        options.root,
        reconnect_s=options.reconnect_s,
        requested=Requested(wanted(options.settings), kill, options.cores),
        wireless=lambda: options.lab is None and link.wireless,
    )


class AndroidTarget(RemoteTarget):
    """A device whose battery can be calibrated."""

    def discharge(self, seconds: float, tell: Callable[[float], object]) -> Sequence[Reading]:
        return discharge(self._shell, seconds, tell)


@dataclass(frozen=True)
class LabAndroid:
    """A virtual device that runs now."""

    name: str
    server: Server
    serial: str


def lab_phones(settings: Settings) -> list[LabAndroid]:
    return running(
        settings, "android", lambda name, at: LabAndroid(name, Server(int(at["adb_port"])), str(at["serial"]))
    )


def attached(settings: Settings) -> list[Attached]:
    """Devices of the usual adb server and of the lab's; a server is not started just to look."""
    rows = []
    servers = [(Server.usual(), None), *((phone.server, phone) for phone in lab_phones(settings))]
    for server, lab in servers:
        try:
            listed = server.devices() if server.problem or server.answers() else []
        except MeltreproError as error:
            rows.append(Attached("android", server.place, "unusable", "", error.one_line))
            continue
        for device in listed:
            if lab is not None and device.serial != lab.serial:
                continue
            found, todo = "", device.fix
            if device.usable:
                options = AndroidOptions(
                    kind="android", serial=device.name, lab=lab.name if lab else None, reconnect_s=0
                )
                try:
                    found = open_target(options, settings).identify().described
                except MeltreproError as error:
                    todo = error.message
            rows.append(Attached("android", device.name, device.state, found, todo))
    return rows


def absent() -> str:
    """What to say where nothing is attached."""
    server = Server.usual()
    if server.variable and not server.answers():
        return f"no Android device is attached: no adb server answers at {server.place}"
    return "no Android device is attached; adb must see it first: adb devices (docs/devices/android.md)"


def _place(options: AndroidOptions, settings: Settings) -> tuple[Server, str | None]:
    if options.lab is None:
        return Server.usual(), options.serial
    for phone in lab_phones(settings):
        if phone.name == options.lab and phone.server.answers():
            return phone.server, phone.serial
    raise TargetLost(f"the lab has no phone {options.lab!r} now", hint="start it with: meltrepro lab up")


def _shared(link: AdbLink, reports: Path, usual: str) -> bool:
    """Whether several phones have the serial number of this id: two that are attached now, or were once.

    Remembered beside the reports on devices, so that each keeps its id while it is alone.
    """
    mark = reports / f"{usual}.shared"
    if link.doubled and not mark.exists():
        write_bytes(mark, b"several phones have this serial number\n")
    return mark.exists()


class Android:
    """The platform of phones and tablets."""

    controls = CONTROLS

    def __init__(self, shared: Callable[[str], bool] = lambda usual: False) -> None:
        """`shared` tells of the id that a serial number makes whether several phones have it."""
        self._shared = shared

    def facts(self, shell: Shell, tree: Path, root: str) -> DeviceFacts:
        """What the device is; its serial number leaves it as a digest only."""
        properties = parse_properties(shell.expect(shell.run(["getprop"]), "read its properties").text)
        there = capacity(shell, tree, root)
        found = {name: properties.get(key, "") for name, key in _PROPERTIES.items()}
        processor = linux.cpu(tree)
        return DeviceFacts(
            id=identify(shell, properties, self._shared),
            kind="android",
            model=properties.get("ro.product.model") or processor.model,
            **there._asdict(),
            features=processor.features,
            system=f"Android {found['android']}" if found["android"] else "",
            virtual=any(properties.get(name) == "1" for name in _VIRTUAL),
            facts={**linux.facts(tree), **{name: value for name, value in found.items() if value}, "sandbox": "bare"},
        )

    def state(self, shell: Shell, tree: Path, state: DeviceState) -> DeviceState:
        """Battery and temperatures by the services of Android, which every app may ask; sysfs is often closed."""
        battery = parse_battery(shell.run(["dumpsys", "battery"]).text)
        thermal = shell.run(["dumpsys", "thermalservice"]).text
        sensors, status = parse_thermal(thermal), parse_thermal_status(thermal)
        temperatures = {**state.temperatures_c, **sensors}
        missing = dict(state.unavailable)
        if battery is not None:
            missing.pop("battery", None)
            if battery.temperature_c is not None:
                temperatures["battery"] = battery.temperature_c
        if temperatures:
            missing.pop("temperatures_c", None)
        missing.pop("thermal_status", None)
        if status is None:
            missing["thermal_status"] = "dumpsys thermalservice does not tell it"
        return replace(
            state,
            battery=_merged(battery, state.battery),
            temperatures_c=temperatures,
            thermal_status=status,
            unavailable=missing,
        )

    def sources(self, shell: Shell, tree: Path, root: str) -> Sequence[Source]:
        """What the kernel lets the shell user read, completed by what the battery's service says."""
        kernel = [source for source in linux_sources(tree) if not of_several(source)]
        shown = [raw(source) if source.name in _MAKERS else source for source in kernel]
        names = {source.name for source in shown}
        if "battery.level" in names and _shows_supplies(tree):
            return shown
        said = fed_sources(shell.run(["dumpsys", "battery"]).text, root)
        return [*shown, *(source for source in said if source.name not in names)]

    def feeder(self, sources: Sequence[Source]) -> str | None:
        """The script that writes what some of these sources are in, if any is."""
        return FEEDER if any(source.path.endswith(FED) for source in sources) else None


def _shows_supplies(tree: Path) -> bool:
    """Whether the kernel tells of every supply that there is whether it feeds the device."""
    kinds = tree.glob("sys/class/power_supply/*/type")
    supplies = [kind.parent for kind in kinds if linux.read(kind) != "Battery" and linux.of_machine(kind.parent)]
    return bool(supplies) and all(linux.integer(supply / "online") is not None for supply in supplies)


def parse_properties(text: str) -> Mapping[str, str]:
    """The answer of `getprop`: `[name]: [value]`; a value may hold line breaks."""
    return dict(re.findall(r"^\[([^\]\n]+)\]: \[(.*?)\]$", text, re.MULTILINE | re.DOTALL))


def parse_battery(text: str) -> Battery | None:
    """The answer of `dumpsys battery`; what cannot be meant is left out, `None` where there is no battery."""
    fields = dict(re.findall(r"^\s*([\w ]+?):\s*(\S+)\s*$", text, re.MULTILINE))
    if fields.get("present") == "false" or "level" not in fields:
        return None
    level, scale = _number(fields.get("level")), _number(fields.get("scale")) or 100.0
    status = _number(fields.get("status"))
    return Battery(
        percent=None if level is None or not 0 <= level <= scale else 100 * level / scale,
        charging=None if status is None else status in (_CHARGING, _FULL),
        voltage_mv=within(VOLTAGES_MV, _number(fields.get("voltage"))),
        temperature_c=meant(_tenths(_number(fields.get("temperature")))),
    )


def parse_thermal(text: str) -> Mapping[str, float]:
    """Temperatures in degrees Celsius from `dumpsys thermalservice`, by sensor name.

    The section that the hardware answers is taken where there is one; the cached one may be old. What a sensor is, its type
    says (android.os.Temperature): 6 to 8 are voltage, current and charge of a battery, -1 may be anything. Of several
    sensors of one name the hottest is taken.
    """
    _, found, current = text.partition("Current temperatures from HAL:")
    section = re.split(r"^\S.*:\s*$", current, maxsplit=1, flags=re.MULTILINE)[0] if found else text
    known: dict[str, float] = {}
    for shown, kind, name in re.findall(
        r"Temperature\{mValue=([^,}]+), mType=(-?\d+), mName=([^\n]*?), mStatus=", section
    ):
        celsius = meant(_number(shown))
        if celsius is not None and kind not in _NO_TEMPERATURES and not kind.startswith("-"):
            known[name] = max(celsius, known.get(name, celsius))
    return known


def parse_thermal_status(text: str) -> int | None:
    """How far Android throttles because of heat: 0 (not at all) to 6 (about to switch off)."""
    found = re.search(r"^Thermal Status:\s*(\d+)\s*$", text, re.MULTILINE)
    return int(found[1]) if found else None


def _merged(service: Battery | None, kernel: Battery | None) -> Battery | None:
    """What the service says, completed by what the kernel shows."""
    if service is None or kernel is None:
        return service or kernel
    names = ("percent", "charging", "voltage_mv", "current_ma", "temperature_c")
    pairs = {name: (getattr(service, name), getattr(kernel, name)) for name in names}
    return Battery(**{name: other if one is None else one for name, (one, other) in pairs.items()})


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(E-?[0-9]{1,2})?", text) else None


def _tenths(value: float | None) -> float | None:
    return None if value is None else value / 10
