"""Which CPU level is chosen, for the CPUs of the table and for any CPU at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.frameworks.llamacpp.module import ISAS
from meltrepro.plan import isa
from meltrepro.plan.model import Isa

V2 = {"ssse3", "sse4_1", "sse4_2", "popcnt"}
V3 = V2 | {"avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


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
    chosen = isa.choose(frozenset(features), arch, ISAS)
    assert (chosen.name if chosen else None) == expected


FEATURES = st.frozensets(st.sampled_from("abcdef"))
LEVELS = st.lists(
    st.builds(
        Isa,
        name=st.text("xyz", min_size=1, max_size=4),
        triple=st.sampled_from(["x86_64-linux-musl", "aarch64-linux-musl"]),
        requires=FEATURES,
        enable=st.just(()),
        rank=st.integers(0, 5),
    ),
    max_size=8,
)


@given(FEATURES, st.sampled_from(["x86_64", "aarch64", "arm64"]), LEVELS)
def test_the_choice_runs_and_nothing_better_would(features: frozenset[str], arch: str, offered: list[Isa]) -> None:
    def runs(level: Isa) -> bool:
        return level.triple.startswith(isa.machine(arch)) and level.requires <= features

    chosen = isa.choose(features, arch, offered)
    if chosen is None:
        assert not any(map(runs, offered))
    else:
        assert runs(chosen)
        assert chosen.rank == max(level.rank for level in offered if runs(level))
        assert isa.choose(features, arch, list(reversed(offered))) == chosen or len({x.name for x in offered}) < len(
            offered
        )
