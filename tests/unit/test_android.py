"""What Android says of itself, in the words of several makers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.targets.android.adb import is_wireless
from meltrepro.targets.android.battery import FED, FED_EVERY_S, FEEDER, fed_sources
from meltrepro.targets.android.target import parse_battery, parse_properties, parse_thermal, parse_thermal_status
from meltrepro.targets.base import Battery

PIXEL = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 2793000
  status: 2
  health: 2
  present: true
  level: 64
  scale: 100
  voltage: 4102
  temperature: 283
  technology: Li-ion
"""
SAMSUNG = PIXEL.replace("Charge counter: 2793000", "Charge counter: 0\n  current now: -432").replace(
    "status: 2", "status: 3"
)
BOX = "Current Battery Service state:\n  status: 2\n  present: true\n  level: 100\n  scale: 100\n  voltage: 13\n  temperature: 26\n"
MAINS = "Current Battery Service state:\n  AC powered: true\n  present: false\n  level: 0\n  scale: 100\n"

THERMAL = """IsStatusOverride: false
ThermalEventListeners:
	callbacks: 3
Thermal Status: 1
Cached temperatures:
	Temperature{mValue=21.0, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
HAL Ready: true
HAL connection:
	ThermalHAL 2.0 connected: yes
Current temperatures from HAL:
	Temperature{mValue=37.2, mType=3, mName=VIRTUAL-SKIN, mStatus=1}
	Temperature{mValue=61.0, mType=0, mName=BIG, mStatus=0}
	Temperature{mValue=0.0, mType=2, mName=nothing, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
Temperature static thresholds from HAL:
	TemperatureThreshold{mType=3, mName=VIRTUAL-SKIN, mHotThrottlingThresholds=[NaN, 39.0, 43.0], ...}
"""


def test_a_battery() -> None:
    assert parse_battery(PIXEL) == Battery(percent=64, charging=True, voltage_mv=4102, temperature_c=28.3)
    found = parse_battery(SAMSUNG)
    assert found is not None
    assert found.charging is False


def test_a_battery_that_says_nonsense() -> None:
    found = parse_battery(BOX)
    assert found is not None
    assert (found.percent, found.voltage_mv) == (100, None)
    assert parse_battery(MAINS) is None
    assert parse_battery("Can't find service: battery") is None
    assert parse_battery(PIXEL.replace("level: 64", "level: 640")) == Battery(
        percent=None, charging=True, voltage_mv=4102, temperature_c=28.3
    )


def test_temperatures_are_those_of_now() -> None:
    assert parse_thermal(THERMAL) == {"VIRTUAL-SKIN": 37.2, "BIG": 61.0}
    assert parse_thermal_status(THERMAL) == 1


def test_what_a_sensor_is_its_type_says() -> None:
    listed = {
        "CPU0": (0, "38.0"),
        "battery": (2, "33.0"),
        "socd": (8, "88.0"),
        "vbat": (6, "4.2"),
        "ibat": (7, "100.0"),
        "vdroop1": (6, "1050.0"),
        "TPU": (9, "37.0"),
        "WIFI": (13, "41.5"),
        "USB2-MINUS-QI": (-1, "-0.82"),
        "QUIET": (-1, "52.0"),
        "parked": (3, "125.0"),
        "broken": (3, "-273.15"),
        "unread": (3, "NaN"),
        "endless": (3, "3.4028235E38"),
        "tiny": (3, "1.0E-4"),
        "warm, or so": (3, "3.6E1"),
    }
    lines = [
        f"\tTemperature{{mValue={value}, mType={kind}, mName={name}, mStatus=0}}\n"
        for name, (kind, value) in listed.items()
    ]
    twice = "\tTemperature{mValue=35.0, mType=0, mName=CPU0, mStatus=0}\n"
    said = "".join(["Current temperatures from HAL:\n", *lines, twice, "Current cooling devices from HAL:\n"])
    assert parse_thermal(said) == {"CPU0": 38.0, "battery": 33.0, "TPU": 37.0, "WIFI": 41.5, "warm, or so": 36.0}


def test_temperatures_without_a_hardware_layer() -> None:
    cached = THERMAL[: THERMAL.index("HAL Ready")] + "HAL Ready: false\n"
    assert parse_thermal(cached) == {"VIRTUAL-SKIN": 21.0}
    assert parse_thermal("") == {}
    assert parse_thermal_status("") is None


def test_properties() -> None:
    text = "[ro.product.model]: [Pixel 8]\n[ro.odd]: [two\nlines]\n[ro.empty]: []\n"
    assert parse_properties(text) == {"ro.product.model": "Pixel 8", "ro.odd": "two\nlines", "ro.empty": ""}


def test_the_service_stands_in_for_a_kernel_that_says_nothing(tmp_path: Path) -> None:
    said = {source.name: source for source in fed_sources(SAMSUNG, "/data/local/tmp/meltrepro")}
    assert set(said) == {
        "battery.level",
        "battery.voltage",
        "battery.charge",
        "temperature.battery",
        "supply.any",
    }
    assert fed_sources("Can't find service: battery", "/root") == []
    assert {source.path for source in said.values()} == {"data/local/tmp/meltrepro/feed/battery"}
    # What the script writes is what the sources read.
    (tmp_path / "dumpsys").write_text(f"#!/bin/sh\ncat <<'E'\n{SAMSUNG}E\n")
    (tmp_path / "dumpsys").chmod(0o755)
    script = FEEDER.replace(f"sleep {FED_EVERY_S:g}", "exit")
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", script, "feed", tmp_path / "feed"], env={"PATH": path}, check=True)
    written = (tmp_path / FED).read_text()

    def value(name: str) -> float:
        source = said[name]
        found = written[written.index(source.after) + len(source.after) :].split()[0]
        return float(found) * source.scale

    assert value("battery.level") == 64
    assert value("battery.voltage") == 4102
    assert value("temperature.battery") == pytest.approx(28.3)
    assert value("supply.any") == 1, "it is plugged in"


@pytest.mark.parametrize(
    ("serial", "wireless"),
    [("3A021JEHN02756", False), ("192.168.1.7:5555", True), ("adb-3A02-x7._adb-tls-connect._tcp", True), (None, False)],
)
def test_wireless_links_are_known_by_their_serials(serial: str | None, wireless: bool) -> None:
    assert is_wireless(serial) is wireless


@given(st.text(max_size=300))
def test_no_answer_crashes(text: str) -> None:
    parse_battery("  level: 50\n" + text)
    parse_thermal("Current temperatures from HAL:\n" + text)
    parse_thermal_status(text)
    parse_properties(text)
