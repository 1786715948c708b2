"""Which iPhones there are, and where usbmuxd is asked."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.settings import Settings, load
from meltrepro.targets import registry
from meltrepro.targets.ios import devices as ios_devices
from meltrepro.targets.ios import errors as ios_errors
from meltrepro.targets.ios.options import IosOptions
from meltrepro.targets.ios.usbmux import plain_address


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({"MELTREPRO_CACHE": str(tmp_path / "cache"), "MELTREPRO_HOME": str(tmp_path / "home")})


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (None, None),
        ("", None),
        ("127.0.0.1:27015", "127.0.0.1:27015"),
        ("host:1", "host:1"),
        ("/var/run/usbmuxd", "/var/run/usbmuxd"),
        ("UNIX:/var/run/usbmuxd", "/var/run/usbmuxd"),
        ("unix:///var/run/usbmuxd", "/var/run/usbmuxd"),
    ],
)
def test_an_address_in_every_dialect(text: str | None, plain: str | None) -> None:
    assert plain_address(text) == plain


@pytest.mark.parametrize("text", ["27015", "[::1]:27015", "a:b:c", "/odd:path", "host:", "UNIX:relative", "host:port"])
def test_an_address_that_the_library_would_stumble_over(text: str) -> None:
    with pytest.raises(TargetError, match="USBMUXD_SOCKET_ADDRESS"):
        plain_address(text)


def test_without_the_library_an_error_says_how_to_get_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pymobiledevice3"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(TargetError) as caught:
        registry.open_target(IosOptions(kind="ios", udid="00008110-001A2B3C4D5E6F70"), settings)
    assert caught.value.hint == ios_errors.how_to_install()


def test_nothing_of_the_library_is_imported_by_opening_a_target(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ios_devices, "installed", lambda: True)
    before = "pymobiledevice3" in sys.modules
    registry.open_target(IosOptions(kind="ios", udid="00008110-001A2B3C4D5E6F70"), settings)
    assert ("pymobiledevice3" in sys.modules) is before


@pytest.mark.parametrize(
    ("there", "error", "says"),
    [
        ([], TargetLost, "no iPhone is attached"),
        (["A" * 24, "B" * 24], TargetError, "several"),
        (["A" * 24], None, ""),
    ],
)
def test_the_only_phone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, there: Sequence[str], error: Any, says: str
) -> None:
    monkeypatch.setattr(ios_devices, "installed", lambda: True)
    monkeypatch.setattr(ios_devices, "phones", lambda address=None: there)
    if error is None:
        assert ios_devices.open_phone(None, settings).name == "iPhone AAAAAAAA..."
        return
    with pytest.raises(error, match=says):
        ios_devices.open_phone(None, settings)


def test_phones_of_the_lab(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ios_devices, "installed", lambda: True)
    folder = settings.run / "lab"
    folder.mkdir(parents=True)
    (folder / "pixel.json").write_text(json.dumps({"kind": "android", "adb_port": 1, "serial": "x"}))
    (folder / "broken.json").write_text("{")
    (folder / "apple.json").write_text(json.dumps({"kind": "ios", "usbmux": "127.0.0.1:9", "udid": "C" * 24}))
    assert [phone.name for phone in ios_devices.lab_phones(settings)] == ["apple"]
    assert "CCCC" in ios_devices.open_phone(None, settings, "apple").name
    with pytest.raises(TargetLost, match="no iPhone 'pear'"):
        ios_devices.open_phone(None, settings, "pear")
