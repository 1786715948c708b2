"""iPhones that do not trust, are locked, are not there, or whose services break off."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.lab.iphone.faults import Break, Faults, How, PairingAnswer
from meltrepro.targets.ios.phone import Phone
from tests.integration.ios_faults.lab import DVT, Lab
from tests.support.ios_targets import APP, services

pytestmark = [pytest.mark.integration, pytest.mark.fault]

HOUSE = "com.apple.mobile.house_arrest"


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        (Faults(pairing=PairingAnswer.pending), "still asks"),
        (Faults(pairing=PairingAnswer.denied), "not to trust"),
        (Faults(pairing=PairingAnswer.locked), "is locked"),
    ],
)
def test_pairing_that_does_not_succeed_ends_in_time(lab: Lab, tmp_path: Path, faults: Faults, says: str) -> None:
    lab.device.forget()
    lab.device.faults = faults
    began = time.monotonic()
    with pytest.raises(TargetError, match=says) as caught:
        Phone(services(lab.device, tmp_path / "others")).pair(1)
    assert time.monotonic() - began < 10
    assert caught.value.hint
    assert not caught.value.transient


def test_a_phone_that_has_forgotten_us(lab: Lab) -> None:
    """The library swallows that, and returns a session without trust."""
    lab.device.forget()
    lab.device.unplug()
    with pytest.raises(TargetLost):
        lab.phone.values()
    lab.device.plug()
    with pytest.raises(TargetError, match="does not know this computer") as caught:
        lab.phone.battery()
    assert "devices --pair" in str(caught.value.hint)


def test_pairing_saves_where_it_was_told_even_where_the_library_forgets_the_address(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", "127.0.0.1:1")
    lab.device.forget()
    phone = Phone(services(lab.device, tmp_path / "others"))
    phone.pair(5)
    assert phone.values()["UniqueDeviceID"] == lab.device.udid
    assert [path.suffix for path in (tmp_path / "others").iterdir()] == [".plist"]
    assert (tmp_path / "others").stat().st_mode & 0o077 == 0
    assert os.environ["USBMUXD_SOCKET_ADDRESS"] == "127.0.0.1:1"
    assert not (tmp_path / "home").exists() or not any(path.is_file() for path in (tmp_path / "home").rglob("*"))


def test_a_locked_phone(lab: Lab) -> None:
    lab.device.faults = Faults(locked=True)
    with pytest.raises(TargetError, match="is locked") as caught:
        lab.phone.battery()
    assert "Auto-Lock" in str(caught.value.hint)


def test_a_phone_that_is_not_there(lab: Lab) -> None:
    lab.device.unplug()
    with pytest.raises(TargetLost, match="not attached") as caught:
        lab.target.state()
    assert caught.value.transient


@pytest.mark.parametrize("how", list(How))
@pytest.mark.parametrize("service", ["usbmuxd", "lockdownd", DVT, HOUSE, "com.apple.mobile.diagnostics_relay"])
@pytest.mark.parametrize("message", [1, 2, 4])
def test_whatever_a_service_does_ends_in_time_and_in_our_words(lab: Lab, service: str, how: How, message: int) -> None:
    lab.device.unplug()
    lab.device.plug()
    lab.device.faults = Faults(breaks=(Break(service, how, message=message, times=99),))
    quick = Phone(lab.phone._services, answer_s=1.5, piece_s=1.5, open_s=2.5)

    def look() -> None:
        quick.battery()
        quick.clock_ns()
        with quick.documents(APP, "x") as files:
            files.make_folder("")
            files.read("none")

    began = time.monotonic()
    try:
        look()
    except TargetError as error:
        assert error.message.startswith("iPhone")
    assert time.monotonic() - began < 12
    lab.device.heal()
    lab.device.unplug()
    lab.device.plug()
    until = time.monotonic() + 5
    while True:
        try:
            look()
            return
        except TargetLost:
            assert time.monotonic() < until


def test_a_phone_without_developer_mode(lab: Lab) -> None:
    lab.device.stop()
    lab.device.start(developer_image=False)
    lab.device.faults = Faults(developer_mode=False)
    with pytest.raises(TargetError, match="Developer Mode is off"):
        lab.phone.clock_ns()


def test_a_disk_image_that_cannot_be_downloaded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library raises an error of `requests`, which is an `OSError` like that of a lost link."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    lab.device.stop()
    lab.device.start(developer_image=False)
    with pytest.raises(TargetError, match="cannot be downloaded") as caught:
        lab.phone.clock_ns()
    assert not caught.value.transient
    assert "internet" in str(caught.value.hint)
