"""Whose battery it is, and what several of them give together: never a mouse's, never a part for the whole."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from meltrepro.measure.calibration import calibrate
from meltrepro.measure.energy import energy, supply_of
from meltrepro.measure.integrals import NoValue, SampleLimits
from meltrepro.record.samples import Header, Recording
from meltrepro.record.series import SensorChannel, SensorSeries
from meltrepro.record.trace import Span
from meltrepro.targets.android.battery import look
from meltrepro.targets.android.target import Android
from meltrepro.targets.remote import procfs
from meltrepro.targets.remote.sensors import linux_sources
from meltrepro.targets.remote.shell import Reply, Shell
from tests.support.machines import machine

S = 10**9
Supplies = Mapping[str, Mapping[str, object]]
MOUSE = {"type": "Battery", "scope": "Device", "capacity": 5, "status": "Discharging", "voltage_now": 3_700_000}
THINKPAD: Supplies = {
    "AC": {"type": "Mains", "online": 0},
    "BAT0": {
        "type": "Battery",
        "status": "Unknown",
        "power_now": 0,
        "energy_now": 20_000_000,
        "energy_full": 23_000_000,
    },
    "BAT1": {
        "type": "Battery",
        "status": "Discharging",
        "present": 1,
        "capacity": 40,
        "power_now": 12_000_000,
        "energy_now": 10_000_000,
        "energy_full": 37_000_000,
    },
}
PHONE: Supplies = {
    "battery": {
        "type": "Battery",
        "status": "Discharging",
        "capacity": 77,
        "current_now": -432_000,
        "charge_counter": 3_000_000,
    }
    | {"voltage_now": 3_900_000},
    "bms": {"type": "Battery", "capacity": 76, "current_now": -431, "charge_counter": 2_900_000},
    "maxfg": {"type": "Battery", "capacity": 75, "current_now": 431_000},
    "main": {"type": "Battery", "current_now": 0},
    "usb": {"type": "USB", "online": 0},
    "stylus": {"type": "Battery", "scope": "Device", "capacity": 3, "current_now": 1},
}


def made(root: Path, supplies: Supplies) -> Path:
    files = {
        f"sys/class/power_supply/{name}/{file}": f"{value}\n"
        for name, supply in supplies.items()
        for file, value in supply.items()
    }
    return machine(root, files)


def shown(root: Path) -> dict[str, str]:
    """Names of what is sampled of batteries and supplies, and the folders they are read in."""
    sources = (source for source in linux_sources(root) if source.name.startswith(("battery.", "supply.")))
    return {source.name: Path(source.path).parent.name for source in sources}


@pytest.mark.parametrize("name", ["hidpp_battery_0", "AA_mouse", "zz_wacom"])
def test_a_mouse_feeds_nothing(tmp_path: Path, name: str) -> None:
    pad = {"type": "Mains", "scope": "Device", "online": 1}
    alone = made(tmp_path / "desktop", {name: MOUSE, "wacom_ac": pad})
    assert procfs.battery(alone) is None
    assert shown(alone) == {}
    laptop = made(tmp_path / "laptop", {name: MOUSE, "BAT0": {"type": "Battery", "scope": "System", "capacity": 60}})
    battery = procfs.battery(laptop)
    assert battery is not None
    assert battery.percent == 60
    assert shown(laptop) == {"battery.level": "BAT0"}


def test_an_empty_bay_is_no_battery(tmp_path: Path) -> None:
    root = made(
        tmp_path, {"BAT0": {"type": "Battery", "present": 0, "capacity": 0}, "BAT1": {"type": "Battery", "capacity": 9}}
    )
    assert shown(root) == {"battery.level": "BAT1"}


def test_an_uninterruptible_supply_is_none(tmp_path: Path) -> None:
    assert procfs.battery(made(tmp_path, {"ups": {"type": "UPS", "capacity": 100}})) is None


def test_two_batteries_of_a_laptop_are_both_read(tmp_path: Path) -> None:
    root = made(tmp_path, THINKPAD)
    names = shown(root)
    assert {name for name in names if name.endswith(".power")} == {"battery.BAT0.power", "battery.BAT1.power"}
    assert not {name for name in names if name.startswith("battery.") and name.count(".") == 1}
    battery = procfs.battery(root)
    assert battery is not None
    assert battery.percent == pytest.approx(50)
    assert battery.charging is None, "one of them does not say"


def test_of_the_supplies_of_a_phone_the_whole_battery_is_taken(tmp_path: Path) -> None:
    root = made(tmp_path, PHONE)
    names = shown(root)
    assert {name: folder for name, folder in names.items() if name.startswith("battery.")} == {
        f"battery.{quantity}": "battery" for quantity in ("level", "current", "voltage", "charge")
    }
    sources = Android().sources(cast("Shell", Said("")), root, "/data")
    assert {source.unit for source in sources if source.name == "battery.current"} == {"raw"}
    several = made(tmp_path / "two", {name: supply for name, supply in PHONE.items() if name != "battery"})
    found = [source.name for source in Android().sources(cast("Shell", Said("")), several, "/data")]
    assert not {name for name in found if name.startswith("battery.")}, "which of them is all of it nobody knows"


class Said:
    """A shell on a phone whose supplies are files here."""

    link = SimpleNamespace(name="phone")

    def __init__(self, supplies: str) -> None:
        self._supplies = supplies

    def run(self, argv: list[str]) -> Reply:
        return Reply(0, b"", "")

    def script(self, text: str) -> Reply:
        there = text.replace("/sys/class/power_supply", self._supplies).replace("dumpsys battery", "true")
        done = subprocess.run(["sh", "-c", there], capture_output=True, check=False)
        return Reply(done.returncode, done.stdout, "")

    def expect(self, reply: Reply, what: str) -> Reply:
        return reply


@pytest.mark.parametrize(
    ("without", "current", "batteries"),
    [
        ((), -432_000, 1),
        (("battery", "bms", "main"), 431_000, 1),
        (("battery",), None, 3),
        (("usb", "stylus"), -432_000, 1),
    ],
)
def test_a_calibration_looks_at_the_same_battery(
    tmp_path: Path, without: tuple[str, ...], current: int | None, batteries: int
) -> None:
    root = made(tmp_path, {name: supply for name, supply in PHONE.items() if name not in without})
    reading = look(cast("Shell", Said(str(root / "sys/class/power_supply"))))
    assert reading.batteries == batteries
    assert not reading.charging
    if current is not None:
        assert reading.current == current
    else:
        assert "several batteries" in calibrate([reading, reading]).why


Shape = Callable[[int], float]


def recorded(**channels: tuple[str, Shape]) -> Recording:
    """Channels once a second for a minute, each at moments of its own, as a sampler reads them."""
    series = tuple(
        SensorSeries(
            SensorChannel(
                name.replace("__", "."), unit, "counter" if unit == "J" and "energy" in name else "gauge", name, 1.0
            ),
            tuple(t * S + 1000 * number for t in range(61)),
            tuple(float(value(t)) for t in range(61)),
        )
        for number, (name, (unit, value)) in enumerate(channels.items())
    )
    return Recording(
        Header("virtual", 1.0, tuple(each.channel for each in series), None), series, (), None, None, torn=False
    )


def mean_w(recording: Recording) -> float:
    return energy(supply_of(recording), [Span(10 * S, 50 * S)], SampleLimits(gap_s=3.0)).mean.value


def flat(value: float) -> Shape:
    return lambda t: value


def test_what_several_batteries_give_is_their_sum() -> None:
    idle = ("W", flat(0.0))
    assert mean_w(recorded(battery__BAT0__power=idle, battery__BAT1__power=("W", flat(12.0)))) == pytest.approx(12)
    change = recorded(
        battery__BAT0__power=("W", lambda t: 0.0 if t < 30 else 12.0),
        battery__BAT1__power=("W", lambda t: 12.0 if t < 30 else 0.0),
    )
    assert mean_w(change) == pytest.approx(12, rel=0.01), "one is drained after the other"
    amperes = {"battery__B1__current": ("A", flat(-1.0)), "battery__B1__voltage": ("V", flat(12.0))}
    assert mean_w(recorded(battery__B0__power=("W", flat(-3.0)), **amperes)) == pytest.approx(15)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"battery__BAT1__power": ("W", flat(-12.0))}, "charged by another"),
        (
            {"battery__BAT1__power": ("W", flat(12.0)), "battery__BAT1__stored": ("J", lambda t: 36_000 + 10 * t)},
            "BAT1 was being charged by another",
        ),
        ({"battery__BAT1__level": ("%", flat(40.0))}, "BAT1 shows no power"),
        ({"battery__BAT1__power": ("W", flat(3.0)), "supply__AC": ("1", flat(1.0))}, "external power"),
    ],
)
def test_batteries_that_do_not_tell_what_is_drawn(more: dict[str, tuple[str, Shape]], why: str) -> None:
    battery = {"battery__BAT0__power": ("W", flat(5.0))}
    with pytest.raises(NoValue, match=why):
        supply_of(recorded(**battery, **more))
    counter = {"energy__package-0": ("J", lambda t: 7.0 * t)}
    assert mean_w(recorded(**battery, **more, **counter)) == pytest.approx(7), (
        "the processor's counter is taken instead"
    )
