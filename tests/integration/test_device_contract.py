"""The target contract on devices behind links: a virtual phone with a real adbd and a real Android shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.lab.phone import VirtualPhone
from meltrepro.lab.server import AdbServer
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.android.target import Android
from meltrepro.targets.base import AGENT
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro.testing import targets as suite
from meltrepro.testing.targets import Bench
from tests.integration.scorer_rig import scores_there_as_here

pytestmark = [pytest.mark.integration, pytest.mark.contract]
ROOT = "/data/local/tmp/meltrepro"


class TestContract(suite.AnyProgramContract):
    """With the `bench` below."""


@pytest.fixture
def bench(phone_lab: tuple[VirtualPhone, AdbServer], native_bundle: Path, tmp_path: Path) -> Iterator[Bench]:
    phone, adb = phone_lab
    shell = Shell(AdbLink(adb.server, phone.address))
    target = RemoteTarget(shell, Android(), ROOT, reconnect_s=20)
    yield Bench(target, tmp_path, native_bundle / AGENT)
    assert target.stop_strays() == 0, "a trial leaves nothing behind"
    shell.expect(shell.run(["rm", "-rf", ROOT]), "clean up")


def test_the_bundles_scorer_comes_to_the_same_there(bench: Bench, native_bundle: Path, tmp_path: Path) -> None:
    scores_there_as_here(bench.target, native_bundle, tmp_path)


def test_a_phone_that_charges(bench: Bench, phone_lab: tuple[VirtualPhone, AdbServer]) -> None:
    phone, _ = phone_lab
    sources = {source.name: source for source in bench.target.sources()}
    assert sources["battery.current"].unit == "raw", "nobody knows its unit before it was calibrated"
    assert "supply.usb" in sources
    phone.power.charging = True
    try:
        phone.show()
        bench.job("exit 0")
        battery = bench.target.state().battery
        assert battery is not None
        assert battery.charging
    finally:
        phone.power.charging = False
        phone.show()
