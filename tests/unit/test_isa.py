"""Which CPU level is chosen, for the CPUs of the table and for any CPU at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.frameworks.base import AUTO, Skip
from meltrepro.frameworks.llamacpp.options import Options
from meltrepro.frameworks.llamacpp.variants import LEVELS, choose
from meltrepro.targets.base import DeviceFacts

V2 = {"ssse3", "sse4_1", "sse4_2", "popcnt"}
V3 = V2 | {"avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
ALL = sorted(frozenset().union(*(level.requires for level in LEVELS.values())))


def chosen(features: frozenset[str], arch: str, level: str = AUTO) -> str | None:
    device = DeviceFacts("d", "host", "CPU", arch, features, 4, 10**9, 10**9)
    found = choose(Options(), "2026-10-01", device, level)
    return None if isinstance(found, Skip) else found.name


@pytest.mark.parametrize(
    ("features", "arch", "expected"),
    [
        (V2, "x86_64", "x86_64_v2"),
        (V3, "x86_64", "x86_64_v3"),
        (V3 - {"fma"}, "x86_64", "x86_64_v2"),
        (V4, "amd64", "x86_64_v4"),
        (V3 | {"avx_vnni"}, "x86_64", "x86_64_v3_vnni"),
        (V4 | {"avx512_vnni"}, "x86_64", "x86_64_v4_avx512vnni"),
        (V4 | {"avx512_vnni", "avx_vnni"}, "x86_64", "x86_64_v4_vnni"),
        ({"asimd"}, "aarch64", "armv8_a"),
        ({"asimd", "asimddp", "asimdhp"}, "arm64", "armv8_2"),
        ({"sse2"}, "x86_64", None),
        (V4, "riscv64", None),
        (V4, "aarch64", None),
    ],
)
def test_known_cpus(features: set[str], arch: str, expected: str | None) -> None:
    assert chosen(frozenset(features), arch) == expected


@given(st.frozensets(st.sampled_from(ALL)), st.sampled_from(["x86_64", "aarch64"]))
def test_the_choice_runs_and_nothing_better_would(features: frozenset[str], arch: str) -> None:
    runs = [each.name for each in LEVELS.values() if each.triple.startswith(arch) and each.requires <= features]
    assert chosen(features, arch) == (runs[0] if runs else None)
    for level in LEVELS:
        assert chosen(features, arch, level) == (level if level in runs else None)
