"""The target contract on a virtual iPhone: pymobiledevice3 as it is, usbmuxd, TLS, files and developer services as real
protocols, the runner app played by a program of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.errors import TargetError
from meltrepro.targets.base import RUNNER
from meltrepro.testing import targets as suite
from meltrepro.testing.targets import Bench
from tests.support.ios_targets import paired, target, virtual_iphone

pytestmark = [pytest.mark.integration, pytest.mark.contract]


class TestContract(suite.TargetContract):
    """With the `bench` below; cells that need another program are skipped for an iPhone."""


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
