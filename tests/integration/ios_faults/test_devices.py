"""iPhones on the command line and in manifests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meltrepro.errors import TargetError
from meltrepro.lab.iphone.faults import Faults, PairingAnswer
from tests.integration.ios_faults.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.fault]


def test_devices_shows_a_phone_says_what_to_do_and_pairs(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from meltrepro.cli.app import main

    monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", f"{lab.device.address}")
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))

    def shown() -> dict[str, str | None]:
        rows: list[dict[str, str | None]] = json.loads(capsys.readouterr().out)
        (row,) = (row for row in rows if row["kind"] == "ios")
        return row

    lab.device.forget()
    # usbmuxd offers every program the pairing of the first; a phone that has forgotten it says so only now.
    assert main(["devices", "--json"]) == 0
    row = shown()
    assert (row["serial"], row["state"]) == (lab.device.udid, "not usable")
    assert "--pair" in str(row["todo"])
    assert main(["devices", "--json", "--pair", lab.device.udid]) == 0
    row = shown()
    assert (row["state"], row["todo"]) == ("device", None)
    assert "VirtualiPhone1,1, iOS 16.7" in str(row["device"])
    lab.device.forget()
    lab.device.faults = Faults(pairing=PairingAnswer.denied)
    assert main(["devices", "--pair", lab.device.udid]) == TargetError.exit_code


def test_a_phone_of_the_lab_is_a_target(lab: Lab, tmp_path: Path) -> None:
    from meltrepro.settings import load
    from meltrepro.targets import registry
    from meltrepro.targets.ios.options import IosOptions

    settings = load({"MELTREPRO_CACHE": str(tmp_path / "cache"), "MELTREPRO_HOME": str(tmp_path / "own")})
    (settings.run / "lab").mkdir(parents=True)
    place = {"kind": "ios", "usbmux": lab.device.address, "udid": lab.device.udid}
    (settings.run / "lab" / "apple.json").write_text(json.dumps(place))
    facts = registry.open_target(IosOptions(kind="ios", lab="apple"), settings).identify()
    assert facts.virtual
    assert facts.kind == "ios"
