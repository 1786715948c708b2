"""Every kind of target that is installed keeps the contract; so does a target that needs no device."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.registry import TARGETS
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.host.target import HostTarget
from meltrepro.testing.targets import AnyProgramContract, Bench, TargetKindContract

for kind in TARGETS.kinds():
    globals()[f"Test{kind.title()}Kind"] = type(
        f"Test{kind.title()}Kind", (TargetKindContract,), {"kind": TARGETS.get(kind)}
    )


class TestHost(AnyProgramContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return Bench(HostTarget(HostOptions(sandbox="bare"), disk=tmp_path, owner=str(tmp_path)), tmp_path)
