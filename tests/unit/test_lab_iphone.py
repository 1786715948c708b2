"""What a lab does without what one of its devices needs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from meltrepro.errors import DriverMissing
from meltrepro.lab import supervisor
from meltrepro.manifest.schema import Manifest
from meltrepro.record.outcomes import SkipKind
from meltrepro.settings import load
from meltrepro.targets.ios import devices as ios_devices
from meltrepro.targets.ios import errors as ios_errors
from meltrepro.targets.presence import look


def test_without_the_library_the_lab_has_no_iphone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load({"MELTREPRO_CACHE": str(tmp_path / "cache"), "MELTREPRO_HOME": str(tmp_path / "home")})
    monkeypatch.setattr(ios_devices, "installed", lambda: False)
    with contextlib.ExitStack() as stack, pytest.raises(DriverMissing, match="pymobiledevice3"):
        supervisor.DEVICES["iphone"].start("iphone", settings, stack, {})
    assert not (tmp_path / "cache").exists()


def test_a_campaign_without_the_library_has_the_other_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load({"MELTREPRO_CACHE": str(tmp_path / "cache"), "MELTREPRO_HOME": str(tmp_path / "home")})
    monkeypatch.setattr(ios_devices, "installed", lambda: False)
    manifest = Manifest.model_validate(
        {
            "meltrepro": 1,
            "name": "lab",
            "models": {"m": {"source": {"file": "m"}, "chat_template": "plain", "quantizations": ["as-is"]}},
            "frameworks": {"llama.cpp": {"release": "2024-02-27"}},
            "targets": {"host": {"kind": "host"}, "iphone": {"kind": "ios", "lab": "iphone"}},
            "workloads": {"w": {"conversations": [["hello"]]}},
        }
    )
    seen = look(manifest, manifest.targets, settings)
    assert seen["host"].target is not None and seen["iphone"].target is None
    absence = seen["iphone"].absence
    assert absence is not None and absence.kind is SkipKind.driver
    assert "pymobiledevice3" in absence.reason and ios_errors.how_to_install() in absence.reason


def test_how_other_tools_reach_an_iphone_of_the_lab() -> None:
    place = {"kind": "ios", "usbmux": "127.0.0.1:5", "udid": "U"}
    said = supervisor.DEVICES["iphone"].command(place)
    assert said == "USBMUXD_SOCKET_ADDRESS=127.0.0.1:5 ideviceinfo -u U"
