"""The link to a device is cut at one protocol step after the other: nothing is lost, doubled or left behind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from meltrepro.errors import TargetLost
from meltrepro.lab.server import AdbServer
from meltrepro.targets.base import TrialResult
from tests.integration.adbd_rig import Rig, attached_adbd, native_bundle
from tests.support.adbd.device import Adbd
from tests.support.adbd.faults import Fault

pytestmark = [pytest.mark.integration, pytest.mark.fault]


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Adbd, AdbServer]]:
    with attached_adbd(tmp_path_factory.mktemp("adbd")) as lab:
        yield lab


@pytest.fixture
def rig(devices: tuple[Adbd, AdbServer], runner_bundles: Mapping[str, Path], tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(*devices, tmp_path, native_bundle(runner_bundles))
    yield rig
    rig.device.arm()


STRIDE, LONG_STRIDE = 11, 29
"""Commands take seven to thirteen packets, so that each kind of packet is met in several of them. Both tests also passed with
1 and 1, which takes eight minutes."""


def test_a_cut_at_every_step_ends_in_a_typed_error_or_does_not_matter(rig: Rig) -> None:
    """Nobody waits for the device to come back, as if each attempt were the last of its campaign."""
    failed = 0
    for at in itertools.count(0, STRIDE):
        rig.forget()
        rig.device.arm(Fault("cut", at=at))
        first = rig.attempt(reconnect_s=0)
        undisturbed = len(rig.device.gate.seen) <= at
        rig.device.arm()
        rig.reattach()
        if isinstance(first, TrialResult):
            assert (first.exit_code, rig.runs()) == (0, 1), at
        else:
            assert isinstance(first, TargetLost), f"{at}: {first!r}"
            failed += 1
        second = rig.attempt(reconnect_s=5, name="b")
        assert isinstance(second, TrialResult), f"{at}: {second!r}"
        assert (second.exit_code, rig.runs("b")) == (0, 1), at
        assert rig.runs() <= 1, at
        assert rig.left() == set(), at
        if undisturbed:
            break
    assert at > 200, "a deployment and a trial have more packets than this"
    assert failed > at / STRIDE / 2


def test_a_cut_at_every_step_is_survived_by_who_waits(rig: Rig) -> None:
    """adb's server finds the device again by itself; the trial runs once, wherever it was cut."""
    for at in itertools.count(3, LONG_STRIDE):
        rig.forget()
        rig.device.arm(Fault("cut", at=at))
        result = rig.attempt(reconnect_s=20)
        assert isinstance(result, TrialResult), f"{at}: {result!r}"
        assert (result.exit_code, rig.runs()) == (0, 1), at
        assert rig.left() == set(), at
        if len(rig.device.gate.seen) <= at:
            break
    assert at > 200
