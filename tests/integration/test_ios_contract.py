"""The target contract on a virtual iPhone: pymobiledevice3 as it is, usbmuxd, TLS, files and developer services as real
protocols, the runner app played by a program of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.errors import TargetError
from meltrepro.targets.base import RUNNER
from tests.contract import test_targets as suite
from tests.contract.test_targets import Bench
from tests.support.ios_targets import paired, target, virtual_iphone

pytestmark = [pytest.mark.integration, pytest.mark.contract]
OTHER_PROGRAMS = {"test_another_program_of_the_bundle", "test_another_program_that_is_killed"}
"""What only devices that run programs can do; cells that need it are skipped for an iPhone."""
globals().update(
    {name: test for name, test in vars(suite).items() if name.startswith("test_") and name not in OTHER_PROGRAMS}
)
"""The suite itself; `bench` below takes the place of its own."""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    with virtual_iphone(tmp_path / "phone", tmp_path / "bundle" / RUNNER) as device:
        there = target(paired(device, tmp_path / "pairings"))
        yield Bench(there, tmp_path)
        assert there.stop_strays() == 0, "a trial leaves nothing behind"
        assert not list(device.documents().glob("meltrepro/jobs/*"))
    assert not [path for path in home.rglob("*") if path.is_file()], "the library keeps nothing in the home folder"


def test_the_app_is_no_other_program(bench: Bench) -> None:
    with pytest.raises(TargetError, match="no other program than the runner"):
        bench.target.run_trial(suite.scoring(bench))
