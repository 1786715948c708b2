"""Lines of tegrastats as the releases write them; made up after their formats, none was recorded on a board."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.targets.jetson.tegrastats import fed_sources

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


def sampled(line: str, unit: str) -> dict[str, int]:
    """What a sampler would read of a line: the number after the text that each source names."""
    found = {}
    for source in fed_sources(line, "/root"):
        if source.unit == unit:
            number = re.match(r"-?\d+", f" {line}".partition(source.after)[2])
            assert number and source.path == "root/feed/tegrastats"
            found[source.name.removeprefix("tegrastats.")] = int(number[0])
    return found


@pytest.mark.parametrize(
    ("line", "rails_mw", "loads"),
    [
        (
            L4T_35_AGX,
            {"VDD_GPU_SOC": 2412, "VDD_CPU_CV": 804, "VIN_SYS_5V0": 3527, "VDDQ_VDD2_1V8AO": 604},
            {"EMC_FREQ": 1, "GR3D_FREQ": 7},
        ),
        (
            L4T_36_AGX,
            {"VDD_GPU_SOC": 1607, "VDD_CPU_CV": 401, "VIN_SYS_5V0": 2420},
            {"EMC_FREQ": 0, "GR3D_FREQ": 0},
        ),
        (
            L4T_36_NANO,
            {"VDD_IN": 9123, "VDD_CPU_GPU_CV": 3100, "VDD_SOC": 1900},
            {"GR3D_FREQ": 99, "EMC_FREQ": 12},
        ),
        (L4T_38_THOR, {"VDD_GPU": 0, "VDD_CPU_SOC_MSS": 4310, "VIN_SYS_5V0": -12, "VIN": 21870}, {}),
        (L4T_39_ORIN, {"VDD_GPU_SOC": 6400, "VDD_CPU_CV": 1200}, {"EMC_FREQ": 3, "GR3D_FREQ": 55}),
    ],
    ids=["L4T 35, AGX Orin", "L4T 36, AGX Orin", "L4T 36, Orin Nano", "L4T 38, Thor", "L4T 39, Orin"],
)
def test_lines(line: str, rails_mw: dict[str, int], loads: dict[str, int]) -> None:
    assert sampled(line, "mW") == rails_mw
    assert sampled(line, "%") == loads


@given(st.text())
def test_no_line_is_too_odd(line: str) -> None:
    assert all(source.unit in ("mW", "%") for source in fed_sources(line, "/root"))


@given(st.lists(st.from_regex(r"[a-z]{1,9}<[0-9]{1,4}>", fullmatch=True), max_size=5))
def test_words_that_nobody_knows_are_passed_over(words: list[str]) -> None:
    assert sampled(" ".join(["RAM 1/2MB (lfb 1x4MB)", *words, "VDD_IN 5mW/6mW"]), "mW") == {"VDD_IN": 5}
