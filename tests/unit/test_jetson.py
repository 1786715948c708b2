"""What is particular to Jetson boards: rails by their labels, power modes by their names, clocks, fan and releases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from meltrepro.errors import TargetError
from meltrepro.targets.jetson import controls
from meltrepro.targets.jetson import target as jetson
from meltrepro.targets.jetson.rails import chosen, rail_sources, rails
from tests.support.jetsons import AGX, NANO, NVPMODEL_AGX, THOR, monitors, write

Board = Mapping[str, tuple[str, Sequence[str]]]


@pytest.mark.parametrize(
    ("board", "profile", "counted"),
    [
        (AGX, "melt", {"VDD_GPU_SOC", "VDD_CPU_CV"}),
        (AGX, "all", {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}),
        (NANO, "melt", {"VDD_CPU_GPU_CV", "VDD_SOC"}),
        (NANO, "all", {"VDD_IN"}),
        (THOR, "all", {"VIN"}),
        (THOR, ["VDD_GPU", "VDD_CPU_SOC_MSS"], {"VDD_GPU", "VDD_CPU_SOC_MSS"}),
        ({}, "melt", set()),
    ],
)
def test_only_what_a_profile_names_makes_the_energy(
    tmp_path: Path, board: Board, profile: str | Sequence[str], counted: set[str]
) -> None:
    found = rails(monitors(tmp_path, board))
    labels = [rail.label for rail in found]
    assert set(labels) == {label for _, names in board.values() for label in names} - {"NC"}
    sources = list(rail_sources(found, chosen(profile, labels)))
    names = [source.name for source in sources]
    assert len(set(names)) == len(names)
    assert {name.split(".")[1] for name in names if name.startswith("rail.")} == counted
    assert {name.split(".")[1] for name in names} == set(labels), "the others are recorded all the same"


def test_a_rail_is_two_files_or_one(tmp_path: Path) -> None:
    root = monitors(tmp_path, THOR)
    sources = {source.name: source for source in rail_sources(rails(root), ("VDD_CPU_SOC_MSS", "VIN"))}
    current = sources["rail.VDD_CPU_SOC_MSS.current"]
    assert (current.path, current.unit, current.scale) == ("sys/class/hwmon/hwmon5/curr2_input", "A", 1e-3)
    assert sources["rail.VDD_CPU_SOC_MSS.voltage"].path.endswith("hwmon5/in2_input")
    power = sources["rail.VIN.power"]
    assert (power.path, power.unit, power.scale) == ("sys/class/hwmon/hwmon6/power1_input", "W", 1e-6)


def test_files_that_may_not_be_read_are_no_rails(tmp_path: Path) -> None:
    root = monitors(tmp_path, NANO)
    (root / "sys/class/hwmon/hwmon1/curr2_input").unlink()
    assert [rail.label for rail in rails(root)] == ["VDD_IN", "VDD_SOC"]


@pytest.mark.parametrize(
    ("profile", "labels", "words"),
    [
        ("melt", ["VDD_GPU", "VIN_SYS_5V0"], "none of the rails that MELT added up"),
        (["VDD_IN", "VDD_X"], ["VDD_IN"], "no rail VDD_X"),
        (["VDD_IN"], [], "no rail VDD_IN"),
    ],
)
def test_rails_that_are_missed(profile: str | list[str], labels: list[str], words: str) -> None:
    with pytest.raises(TargetError, match=words):
        chosen(profile, labels)


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed", "36.4.3"),
        ("# R35 (release), REVISION: 6.0, GCID: 1, BOARD: t186ref", "35.6.0"),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "39.2.0"),
        ("", None),
        ("Ubuntu", None),
    ],
)
def test_releases(text: str, release: str | None) -> None:
    assert jetson.parse_release(text) == release


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ("NV Power Mode: MODE_30W\n2", "30W"),
        ("NV Fan Mode:quiet\nNV Power Mode: MAXN\n0", "MAXN"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN_SUPER\n2\n", "MAXN_SUPER"),
        ("NV Power Mode: 15W\nPOWER_MODEL is odd\n0", "15W"),
        ("NVPM ERROR: Error opening /var/lib/nvpmodel/status: 13", None),
        ("", None),
    ],
)
def test_power_modes(said: str, mode: str | None) -> None:
    assert controls.parse_mode(said) == mode


def test_power_modes_have_names() -> None:
    assert controls.parse_modes(NVPMODEL_AGX) == ["MAXN", "15W", "30W", "50W"]


def test_clocks_that_are_held(tmp_path: Path) -> None:
    assert controls.pinned(tmp_path) is None
    cpu = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_{}_freq"
    limits = {cpu.format(n, limit): 2_201_600 for n in range(2) for limit in ("min", "max")}
    assert controls.pinned(write(tmp_path, limits)) is True
    assert controls.pinned(write(tmp_path, {cpu.format(1, "min"): 729_600})) is False


def test_fans_are_always_read(tmp_path: Path) -> None:
    write(tmp_path, {"sys/class/hwmon/hwmon2/name": "pwmfan", "sys/class/hwmon/hwmon2/pwm1": 58})
    write(tmp_path, {"sys/class/hwmon/hwmon3/name": "pwm_tach", "sys/class/hwmon/hwmon3/rpm": 1800})
    assert controls.fan(tmp_path) == {"pwmfan.pwm1": "58", "pwm_tach.rpm": "1800"}
