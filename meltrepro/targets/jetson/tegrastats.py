"""Lines of NVIDIA's `tegrastats`: taken apart by their tokens, because boards and releases differ in which there are.

What no rule knows is kept as it stands, so that nothing which a line says is lost. The averages after the slash are since
tegrastats began, and left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_DEAD_C = -100.0
"""A sensor that is switched off shows -256."""
_TIME = re.compile(r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d")
_FIELDS = re.compile(
    r"(?P<memory>RAM|SWAP|IRAM) (?P<used>\d+)/(?P<total>\d+)(?P<unit>[kM])B(?: ?\([^)]*\))?"
    r"|CPU \[(?P<cpus>[^\]]*)\]"
    r"|(?P<sensor>[A-Za-z][\w.-]*)@(?P<degrees>-?\d+(?:\.\d+)?)C"
    r"|(?P<rail>[A-Z][A-Z0-9_]*) (?P<now>-?\d+)mW/(?P<average>-?\d+)mW"
    r"|(?P<engine>[A-Z][A-Z0-9_]*) (?P<load>off|\d+%(?:@\S+)?|@\S+)"
    r"|(?P<other>\S+)"
)
_CPU = re.compile(r"(\d+)%@(-?\d+)")
_LOAD = re.compile(r"(?:(?P<percent>\d+)%)?(?:@\[?(?P<mhz>-?\d+(?:,-?\d+)*)\]?)?")


@dataclass(frozen=True)
class ChipUnit:
    """A unit of the chip other than its CPUs: the GPU (GR3D_FREQ), memory controller (EMC_FREQ), video, ..."""

    percent: int | None
    """How busy it is; `None` where the line does not say."""
    mhz: tuple[int, ...] = ()
    """Its clocks, one for each cluster; empty where the line does not say, as without root for the memory controller."""
    on: bool = True


@dataclass(frozen=True)
class Stats:
    """One line."""

    raw: str
    memory_mb: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Used and whole, by `RAM`, `SWAP`."""
    cpus: tuple[tuple[int, int] | None, ...] = ()
    """Load (%) and clock (MHz) by CPU; `None` for one that is off."""
    engines: Mapping[str, ChipUnit] = field(default_factory=dict)
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    """By sensor, those that are on."""
    rails_mw: Mapping[str, int] = field(default_factory=dict)
    """Power of the moment by rail; those of no use (`NC`) are left out."""
    others: tuple[str, ...] = ()
    """Words that nothing here knows."""


def parse(line: str) -> Stats:
    """What a line says; never raises, because a line that cannot be understood is kept whole in `others`."""
    memory: dict[str, tuple[int, int]] = {}
    cpus: tuple[tuple[int, int] | None, ...] = ()
    engines: dict[str, ChipUnit] = {}
    temperatures: dict[str, float] = {}
    rails: dict[str, int] = {}
    others: list[str] = []
    for found in _FIELDS.finditer(_TIME.sub("", line, count=1)):
        if name := found["memory"]:
            per_mb = 1024 if found["unit"] == "k" else 1
            memory[name] = (int(found["used"]) // per_mb, int(found["total"]) // per_mb)
        elif found["cpus"] is not None:
            cpus = tuple(_cpu(word) for word in found["cpus"].split(","))
        elif name := found["sensor"]:
            if float(found["degrees"]) > _DEAD_C:
                temperatures[name] = float(found["degrees"])
        elif name := found["rail"]:
            if name != "NC":
                rails[name] = int(found["now"])
        elif name := found["engine"]:
            engines[name] = _engine(found["load"])
        else:
            others.append(found["other"])
    return Stats(line, memory, cpus, engines, temperatures, rails, tuple(others))


def _cpu(word: str) -> tuple[int, int] | None:
    found = _CPU.fullmatch(word.strip())
    return (int(found[1]), int(found[2])) if found else None


def _engine(load: str) -> ChipUnit:
    found = _LOAD.fullmatch(load)
    if load == "off" or found is None:
        return ChipUnit(None, on=load != "off")
    percent = int(found["percent"]) if found["percent"] else None
    return ChipUnit(percent, tuple(int(each) for each in found["mhz"].split(",")) if found["mhz"] else ())
