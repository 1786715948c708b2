"""Power rails of Jetson boards: the monitors that the kernel shows, and which of their rails make an energy.

Rails are known by their labels alone: numbers of monitors differ from boot to boot. No board has a rail for everything
that it draws, and some rails feed others, so that rails are added up only as a profile names them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from meltrepro.errors import TargetError
from meltrepro.targets.base import Source
from meltrepro.targets.remote.procfs import integer, read

_MONITORS = ("ina3221", "ina238", "ina237", "ina226")
_UNUSED = ("NC", "")
_LAST_CHANNEL = 3
"""Of the INA3221; what comes behind are voltages over shunts and their sum."""
_REFRESH_S = 0.1
"""Monitors are read ten times a second: they average over some milliseconds, and a read takes about one."""
_MELT = (("VDD_GPU_SOC", "VDD_CPU_CV"), ("VDD_CPU_GPU_CV", "VDD_SOC"))
"""What MELT's evaluation added up: on AGX Orin, and on Orin Nano and NX."""
_WHOLE = ("VDD_IN", "VIN")
"""Rails before all others: of the module, or of the board."""


@dataclass(frozen=True)
class Rail:
    """One rail as the kernel shows it; paths are below the root of the file system."""

    label: str
    voltage: str | None
    current: str | None
    power: str | None
    """Of a monitor that multiplies on its own; the two others are `None` then."""


def rails(root: Path) -> tuple[Rail, ...]:
    """All rails that can be read, monitor by monitor."""
    found: dict[str, Rail] = {}
    for monitor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if read(monitor / "name") in _MONITORS:
            for rail in _of_monitor(root, monitor):
                found.setdefault(rail.label, rail)
    return tuple(found.values())


def _of_monitor(root: Path, monitor: Path) -> Iterator[Rail]:
    def place(name: str) -> str | None:
        path = monitor / name
        return path.relative_to(root).as_posix() if integer(path) is not None else None

    for channel in range(1, _LAST_CHANNEL + 1):
        label = read(monitor / f"in{channel}_label") or read(monitor / f"power{channel}_label") or ""
        voltage, current = place(f"in{channel}_input"), place(f"curr{channel}_input")
        power = place(f"power{channel}_input")
        if label in _UNUSED:
            continue
        if power is not None:
            yield Rail(label, None, None, power)
        elif voltage is not None and current is not None:
            yield Rail(label, voltage, current, None)


def chosen(profile: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Labels of the rails that make the energy by a profile: `melt`, `all`, or labels; none for a board without rails.

    Raises `TargetError` where the board lacks what the profile names.
    """
    if not isinstance(profile, str):
        missing = [label for label in profile if label not in known]
        if missing:
            raise TargetError(f"the board has no rail {', '.join(missing)}", hint=_has(known))
        return tuple(profile)
    if not known:
        return ()
    if profile == "melt":
        for labels in _MELT:
            if set(labels) <= set(known):
                return labels
        raise TargetError("the board has none of the rails that MELT added up", hint=_has(known))
    whole = next((label for label in _WHOLE if label in known), None)
    return (whole,) if whole else tuple(known)


def rail_sources(found: Sequence[Rail], counted: Sequence[str]) -> Iterator[Source]:
    """Every rail as sources: `rail.LABEL...` where it counts, `aside.LABEL...` where it is recorded alone."""
    for rail in found:
        name = f"{'rail' if rail.label in counted else 'aside'}.{rail.label}"
        if rail.power is not None:
            yield _source(f"{name}.power", "W", rail.power, 1e-6)
        if rail.voltage is not None and rail.current is not None:
            yield _source(f"{name}.voltage", "V", rail.voltage, 1e-3)
            yield _source(f"{name}.current", "A", rail.current, 1e-3)


def _source(name: str, unit: str, path: str, scale: float) -> Source:
    return Source(name, unit, "gauge", path, scale=scale, refresh_s=_REFRESH_S)


def _has(known: Sequence[str]) -> str:
    return f"it has {', '.join(known)}; name some of them by 'rails', or take all" if known else "it shows no rails"
