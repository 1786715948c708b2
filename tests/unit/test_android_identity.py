"""Phones whose serial numbers are no ones: each has an id of its own, and all others keep theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import cast

import pytest

from meltrepro.errors import TargetError
from meltrepro.settings import Settings
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.android.identity import identify
from meltrepro.targets.android.options import AndroidOptions
from meltrepro.targets.android.target import open_target
from meltrepro.targets.base import device_id
from meltrepro.targets.remote.shell import Reply, Shell
from meltrepro.targets.serials import is_own
from tests.unit.test_adb import FakeServer, said


@dataclass
class Phone:
    """A shell that answers the one question that is asked."""

    android_id: str = "null"
    name: str = "192.168.1.7:5555"

    @property
    def link(self) -> SimpleNamespace:
        return SimpleNamespace(name=self.name)

    def run(self, argv: tuple[str, ...]) -> Reply:
        assert argv == ("settings", "get", "secure", "android_id")
        return Reply(0, f"{self.android_id}\n".encode(), "")


def named(
    phone: Phone,
    serial: str,
    shared: Callable[[str], bool] = lambda usual: False,
    more: Mapping[str, str] = MappingProxyType({}),
) -> str:
    return identify(cast("Shell", phone), {"ro.serialno": serial, **more}, shared)


@pytest.mark.parametrize(
    "serial",
    ["3A021JEHN02756", "R58M123ABCD", "MELTPHONE", "a1b2c3d4", "ZY22 3/x:'$(reboot)\"", "ce0717171c16e33b0d", "é´ñ123"],
)
def test_a_phone_with_a_serial_number_of_its_own_keeps_its_id(serial: str) -> None:
    assert named(Phone("1111222233334444"), serial) == device_id("android", serial)
    assert named(Phone("5555666677778888"), serial) == device_id("android", serial), "set up anew"


@pytest.mark.parametrize(
    "serial",
    [
        *("0123456789ABCDEF", "0123456789abcdef", "1234567890ABCDEF", "12345678", "unknown", "UNKNOWN", "", "0", "?"),
        *("0000000000", "ffffffffffffffff", "EMULATOR34X1X19X0", "null", "abcdef0123"),
    ],
)
def test_phones_with_a_serial_number_of_nobody_are_told_apart(serial: str) -> None:
    assert not is_own(serial)
    one, other = (named(Phone(android_id), serial) for android_id in ("1111222233334444", "5555666677778888"))
    assert one != other
    assert one == named(Phone("1111222233334444", name="usb:1-2"), serial), "wherever it is attached"
    assert "1111222233334444" not in one


def test_what_else_tells_them_apart() -> None:
    boot = {"ro.boot.serialno": "3A021JEHN02756"}
    assert named(Phone(), "unknown", more=boot) == device_id("android", "3A021JEHN02756")
    chips = [named(Phone(), "unknown", more={"ro.boot.cpuid": chip}) for chip in ("0xaa11", "0xbb22")]
    assert chips[0] != chips[1]
    assert named(Phone(), "0123456789ABCDEF") == device_id("android", "0123456789ABCDEF"), (
        "as it was, where nothing does"
    )
    with pytest.raises(TargetError, match="several phones have its serial number") as caught:
        named(Phone(), "0123456789ABCDEF", lambda usual: True)
    assert caught.value.hint


def test_twins_with_a_serial_number_that_looks_good() -> None:
    ids = [named(Phone(android_id), "20080411AX", lambda usual: True) for android_id in ("a" * 7 + "1", "b" * 7 + "2")]
    assert len({*ids, device_id("android", "20080411AX")}) == 3


def _answers(serial: str, android_id: str) -> bytes:
    """What a phone writes to whatever it is asked: enough for what tells phones apart."""
    return said(f"{serial}\n{android_id}\n")


def test_twins_that_were_seen_once_are_told_apart_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tmp_path, tmp_path, offline=True, mirrors=None, jobs=1)
    alone = FakeServer(devices="A1B2C3D4\tdevice\n", says={"A1B2C3D4": _answers("A1B2C3D4", "11112222")})
    twins = FakeServer(
        devices="A1B2C3D4\tdevice\n" * 2,
        details="A1B2C3D4  device usb:1-2 transport_id:1\nA1B2C3D4  device usb:1-3 transport_id:2\n",
        says={f"usb:1-{n}": _answers("A1B2C3D4", android_id) for n, android_id in ((2, "11112222"), (3, "33334444"))},
    )

    def shared(fake: FakeServer, serial: str) -> bool:
        """What the target's platform is told of the phone's usual id."""
        with fake.running() as server:
            monkeypatch.setattr("meltrepro.targets.android.target._place", lambda options, settings: (server, serial))
            target = open_target(AndroidOptions(kind="android", serial=serial), settings)
            link = cast("AdbLink", target._shell.link)
            link.open("true").close()
            return cast("bool", target._platform._shared("android-0"))  # type: ignore[attr-defined]

    assert not shared(alone, "A1B2C3D4")
    assert shared(twins, "usb:1-3")
    assert shared(alone, "A1B2C3D4")
