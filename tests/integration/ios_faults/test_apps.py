"""Apps on an iPhone that are installed, refused, missing."""

from __future__ import annotations

import pytest

from meltrepro.errors import TargetError
from meltrepro.lab.iphone.faults import Faults
from meltrepro.targets.base import PACKAGE
from meltrepro.targets.ios.target import IosTarget
from tests.integration.ios_faults.lab import Lab
from tests.support.ios_targets import APP
from tests.support.iphones import ios_package

pytestmark = [pytest.mark.integration, pytest.mark.fault]


def test_the_app_of_a_bundle_is_installed_once(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    job = lab.bench.job("exit 0")
    ipa = job.bundle.path / PACKAGE
    ipa.parent.mkdir()
    ios_package(ipa, APP, "Runner", {"Runner": b"#!/bin/sh\nexit 7\n"})
    lab.target.deploy(job.bundle, job.model)
    assert (lab.cas / job.model.digest).exists(), "its documents stay"
    lab.device.faults = Faults(install_refused="it was not to be asked")
    lab.target.deploy(job.bundle, job.model)
    lab.device.heal()
    assert lab.target.run_trial(job).exit_code == 7
    assert not list((lab.device.folder / "media").rglob("*.ipa")), "the package does not stay in the phone's media"
    assert capfd.readouterr() == ("", ""), "the library would draw a bar on the terminal"


def test_a_package_that_the_phone_refuses(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    ipa = job.bundle.path / PACKAGE
    ipa.parent.mkdir()
    ios_package(ipa, APP, "Runner", {"Runner": b"#!/bin/sh\nexit 7\n"})
    lab.device.faults = Faults(install_refused="ApplicationVerificationFailed")
    with pytest.raises(TargetError, match="signature") as caught:
        lab.target.deploy(job.bundle, job.model)
    assert "profile" in str(caught.value.hint)


def test_an_app_that_is_not_there(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    other = IosTarget(lab.phone, "org.example.none")
    with pytest.raises(TargetError, match="not installed"):
        other.deploy(job.bundle, job.model)
    with pytest.raises(TargetError, match="not installed"):
        lab.phone.launch("org.example.none", {})


def test_a_launch_that_the_phone_refuses(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    lab.device.faults = Faults(launch_refused="the profile has run out")
    with pytest.raises(TargetError, match="does not trust") as caught:
        lab.target.run_trial(job)
    assert "VPN & Device Management" in str(caught.value.hint)
