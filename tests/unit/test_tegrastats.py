"""Lines of tegrastats as the releases write them; made up after their formats, none was recorded on a board."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.targets.jetson.tegrastats import ChipUnit, parse

L4T_35_AGX = (
    "RAM 3482/30536MB (lfb 5752x4MB) SWAP 12/15268MB (cached 3MB) CPU [2%@729,0%@729,off,off] EMC_FREQ 1%@2133 "
    "GR3D_FREQ 7%@[305,306] VIC_FREQ 729 APE 174 CV0@-256C CPU@47.5C Tboard@35C SOC2@43.906C Tdiode@34.25C tj@47.5C "
    "VDD_GPU_SOC 2412mW/2400mW VDD_CPU_CV 804mW/799mW VIN_SYS_5V0 3527mW/3520mW NC 0mW/0mW VDDQ_VDD2_1V8AO 604mW/600mW "
    "NC 0mW/0mW"
)
L4T_36_AGX = (
    "01-09-2025 12:11:10 RAM 2811/62841MB (lfb 3x4MB) SWAP 0/31420MB (cached 0MB) CPU [1%@1728,0%@1728,3%@729,off] "
    "EMC_FREQ 0%@3199 GR3D_FREQ 0%@[0,0] NVENC off NVDEC off NVJPG off NVJPG1 off VIC off OFA off NVDLA0 off PVA0_FREQ off "
    "APE 174 cpu@44.718C tboard@34C soc2@40.75C tdiode@34.25C soc0@41.062C tj@44.718C soc1@40.281C "
    "VDD_GPU_SOC 1607mW/1607mW VDD_CPU_CV 401mW/401mW VIN_SYS_5V0 2420mW/2420mW"
)
L4T_36_NANO = (
    "RAM 1822/7620MB (lfb 2x4MB) CPU [100%@1510,99%@1510,0%@729,0%@729,0%@729,0%@729] GR3D_FREQ 99%@[624] EMC_FREQ 12% "
    "cpu@52.3C gpu@51.9C VDD_IN 9123mW/8800mW VDD_CPU_GPU_CV 3100mW/3000mW VDD_SOC 1900mW/1890mW"
)
L4T_38_THOR = (
    "11-02-2025 09:00:01 RAM 5120/125772MB (lfb 7x4MB) CPU [0%@972,12%@2601] EMC_FREQ @4266 GR3D_FREQ @[0,0,0] "
    "NVENC0_FREQ @0 NVDEC0_FREQ @0 cpu@41.5C gpu@40.1C soc012@41.1C soc345@40.9C tj@41.5C "
    "VDD_GPU 0mW/0mW VDD_CPU_SOC_MSS 4310mW/4310mW VIN_SYS_5V0 -12mW/4200mW VIN 21870mW/21870mW"
)
L4T_39_ORIN = (
    "06-30-2026 10:20:30 RAM 4100/62000MB (lfb 3x4MB) SWAP 0/31000MB (cached 0MB) CPU [5%@2201,off] EMC_FREQ 3%@3199 "
    "GR3D_FREQ 55%@[1300,1300] gpu@48C NEW_THING <7> VDD_GPU_SOC 6400mW/6100mW VDD_CPU_CV 1200mW/1000mW"
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            L4T_35_AGX,
            {
                "memory_mb": {"RAM": (3482, 30536), "SWAP": (12, 15268)},
                "cpus": ((2, 729), (0, 729), None, None),
                "engines": {"EMC_FREQ": ChipUnit(1, (2133,)), "GR3D_FREQ": ChipUnit(7, (305, 306))},
                "temperatures_c": {"CPU": 47.5, "Tboard": 35, "SOC2": 43.906, "Tdiode": 34.25, "tj": 47.5},
                "rails_mw": {"VDD_GPU_SOC": 2412, "VDD_CPU_CV": 804, "VIN_SYS_5V0": 3527, "VDDQ_VDD2_1V8AO": 604},
                "others": ("VIC_FREQ", "729", "APE", "174"),
            },
        ),
        (
            L4T_36_AGX,
            {
                "cpus": ((1, 1728), (0, 1728), (3, 729), None),
                "rails_mw": {"VDD_GPU_SOC": 1607, "VDD_CPU_CV": 401, "VIN_SYS_5V0": 2420},
                "others": ("APE", "174"),
            },
        ),
        (
            L4T_36_NANO,
            {
                "memory_mb": {"RAM": (1822, 7620)},
                "engines": {"GR3D_FREQ": ChipUnit(99, (624,)), "EMC_FREQ": ChipUnit(12)},
                "rails_mw": {"VDD_IN": 9123, "VDD_CPU_GPU_CV": 3100, "VDD_SOC": 1900},
                "others": (),
            },
        ),
        (
            L4T_38_THOR,
            {
                "engines": {
                    "EMC_FREQ": ChipUnit(None, (4266,)),
                    "GR3D_FREQ": ChipUnit(None, (0, 0, 0)),
                    "NVENC0_FREQ": ChipUnit(None, (0,)),
                    "NVDEC0_FREQ": ChipUnit(None, (0,)),
                },
                "temperatures_c": {"cpu": 41.5, "gpu": 40.1, "soc012": 41.1, "soc345": 40.9, "tj": 41.5},
                "rails_mw": {"VDD_GPU": 0, "VDD_CPU_SOC_MSS": 4310, "VIN_SYS_5V0": -12, "VIN": 21870},
                "others": (),
            },
        ),
        (
            L4T_39_ORIN,
            {
                "engines": {"EMC_FREQ": ChipUnit(3, (3199,)), "GR3D_FREQ": ChipUnit(55, (1300, 1300))},
                "others": ("NEW_THING", "<7>"),
            },
        ),
    ],
    ids=["L4T 35, AGX Orin", "L4T 36, AGX Orin", "L4T 36, Orin Nano", "L4T 38, Thor", "L4T 39, Orin"],
)
def test_lines(line: str, expected: dict[str, Any]) -> None:
    found = parse(line)
    assert found.raw == line
    assert {name: getattr(found, name) for name in expected} == expected


def test_engines_that_are_off() -> None:
    engines = parse(L4T_36_AGX).engines
    assert engines["NVENC"] == ChipUnit(None, on=False)
    assert engines["GR3D_FREQ"] == ChipUnit(0, (0, 0))


@given(st.text())
def test_anything_else_is_kept(line: str) -> None:
    found = parse(line)
    assert found.raw == line


@given(st.lists(st.from_regex(r"[a-z]{1,9}<[0-9]{1,4}>", fullmatch=True), max_size=5))
def test_words_that_nobody_knows_are_kept_in_their_order(words: list[str]) -> None:
    found = parse(" ".join(["RAM 1/2MB (lfb 1x4MB)", *words, "VDD_IN 5mW/6mW"]))
    assert found.others == tuple(words)
    assert found.rails_mw == {"VDD_IN": 5}
