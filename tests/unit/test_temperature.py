"""What kernels show among their thermometers: only what is a temperature is one, in its own unit, in states and samples alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.record import temperature
from meltrepro.targets.remote import procfs
from meltrepro.targets.remote.sensors import linux_sources
from tests.support.machines import machine

PHONE = [
    ("mtktscpu", "41000"),
    ("mtkts_bts1", "125000"),
    ("mtkts_bts0", "38000"),
    ("mtktsAP", "-127000"),
    ("modem-mmw0-usr", "-273000"),
    ("quiet_therm", "-274000"),
    ("vbat", "4200000"),
    ("bcl", "2147483647"),
]
BOARD = [
    ("AO-therm", "41500"),
    ("CPU-therm", "34000"),
    ("GPU-therm", "31000"),
    ("PLL-therm", "31500"),
    ("PMIC-Die", "100000"),
    ("Tboard_tegra", "-256000"),
    ("Tdiode_tegra", "36250"),
]
CURRENTS = [
    ("cpu-0-0", "43100"),
    ("soc", "88"),
    ("socd", "12"),
    ("pm8550b-ibat-lvl0", "850"),
    ("pm8550-bcl-lvl1", "1"),
    ("pmic-vbat", "41000"),
    ("vbat_therm", "31000"),
    ("smpl_gm", "3000"),
    ("vdroop2", "11000"),
]
OLD = [
    ("tsens_tz_sensor0", "41"),
    ("tsens_tz_sensor1", "398"),
    ("battery", "310"),
    ("pm8994_tz", "38215"),
    ("odd", "36.5"),
]
LAPTOP = [
    ("acpitz", "27800"),
    ("acpitz", "16800"),
    ("iwlwifi_1", "48000"),
    ("x86_pkg_temp", "52000"),
    ("INT3400 Thermal", "20000"),
]
STRANGE = [("a", "nan"), ("b", ""), ("c", "41000 C"), ("d", "9" * 5000), ("e", "0"), ("f", "1e4"), ("g", "39000")]


def zones(listed: list[tuple[str, str]]) -> dict[str, str]:
    files = {}
    for number, (kind, shown) in enumerate(listed):
        files[f"sys/class/thermal/thermal_zone{number}/type"] = f"{kind}\n"
        files[f"sys/class/thermal/thermal_zone{number}/temp"] = f"{shown}\n"
    return files


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (PHONE, {"mtktscpu": 41.0, "mtkts_bts0": 38.0}),
        (BOARD, {"AO-therm": 41.5, "CPU-therm": 34.0, "GPU-therm": 31.0, "PLL-therm": 31.5, "Tdiode_tegra": 36.25}),
        (CURRENTS, {"cpu-0-0": 43.1, "vbat_therm": 31.0}),
        (OLD, {"tsens_tz_sensor0": 41.0, "tsens_tz_sensor1": 39.8, "battery": 31.0, "pm8994_tz": 38.215, "odd": 36.5}),
        (LAPTOP, {"acpitz": 16.8, "iwlwifi_1": 48.0, "x86_pkg_temp": 52.0, "INT3400 Thermal": 20.0}),
        (STRANGE, {"g": 39.0}),
    ],
    ids=["phone", "board", "currents", "other units", "laptop", "no numbers"],
)
def test_only_temperatures_are_temperatures(
    tmp_path: Path, listed: list[tuple[str, str]], expected: dict[str, float]
) -> None:
    root = machine(tmp_path, zones(listed))
    found = procfs.temperatures_c(root)
    assert {name.partition(":")[2]: value for name, value in found.items()} == expected
    assert len(found) == len(listed) - sum(kind not in expected for kind, _ in listed)
    sampled = {source.name: source for source in linux_sources(root) if source.unit == "degC"}
    assert set(sampled) == {f"temperature.{name}" for name in found}, "states and samples agree"
    for name, celsius in found.items():
        source = sampled[f"temperature.{name}"]
        assert float((root / source.path).read_text()) * source.scale == pytest.approx(celsius)


def test_zones_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    root = machine(tmp_path, zones(BOARD[:2]))
    (root / "sys/class/thermal/thermal_zone0/temp").unlink()
    (root / "sys/class/thermal/thermal_zone0/temp").mkdir()  # an error on reading, as from a radio that is off
    (root / "sys/class/thermal/thermal_zone1/type").unlink()
    assert procfs.temperatures_c(root) == {"thermal_zone1:unknown": 34.0}


def test_monitors_of_hardware(tmp_path: Path) -> None:
    files = {"name": "nct6798\n", "temp1_label": "SYSTIN\n", "temp1_input": "35000\n"}
    files |= {
        "temp2_label": "AUXTIN0\n",
        "temp2_input": "127500\n",
        "temp3_label": "AUXTIN1\n",
        "temp3_input": "-62000\n",
    }
    files |= {"temp4_label": "T\n", "temp4_input": "61000\n", "temp4_fault": "1\n"}
    files |= {
        "temp5_label": "T\n",
        "temp5_input": "33000\n",
        "temp5_fault": "0\n",
        "temp6_label": "T\n",
        "temp6_input": "34000\n",
    }
    files |= {"temp7_input": "41\n", "temp8_input": "36000\n", "temp8_enable": "0\n"}
    root = machine(tmp_path, {f"sys/class/hwmon/hwmon2/{name}": text for name, text in files.items()})
    found = procfs.temperatures_c(root)
    assert found == {"hwmon2:nct6798:SYSTIN": 35.0, "hwmon2:nct6798:T": 33.0, "hwmon2:nct6798:T temp6": 34.0}
    names = [source.name for source in linux_sources(root) if source.unit == "degC"]
    assert names == [f"temperature.{name}" for name in found]


def test_a_machine_whose_sensors_all_show_nothing_says_why(tmp_path: Path) -> None:
    root = machine(tmp_path, zones([("PMIC-Die", "100000"), ("modem", "-273000")]))
    state = procfs.state(root, wall_ns=0, monotonic_ns=0)
    assert state.temperatures_c == {}
    assert "thermometer" in state.unavailable["temperatures_c"]


@given(st.floats() | st.integers(-(10**30), 10**30).map(float))
def test_no_number_is_both_a_temperature_and_none(shown: float) -> None:
    celsius = temperature.meant(shown)
    assert celsius is None or -40 <= celsius <= 120
    unit = temperature.zone_unit("any", shown) if shown == shown else None
    assert unit is None or temperature.meant(shown * unit) is not None
