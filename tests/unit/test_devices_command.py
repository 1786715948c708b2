"""Which device the commands of `meltrepro devices` mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meltrepro import settings as settings_module
from meltrepro.cli.app import main
from meltrepro.errors import UsageError
from meltrepro.settings import Settings
from meltrepro.targets.android.options import AndroidOptions
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.ios.options import IosOptions
from meltrepro.targets.jetson.options import JetsonOptions
from meltrepro.targets.registry import named
from meltrepro.targets.ssh.options import LinuxOptions


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path))
    settings = settings_module.load()
    (settings.run / "lab").mkdir(parents=True)
    place = {"kind": "jetson", "port": 7, "user": "root", "key": "/k", "known_hosts": "/h"}
    (settings.run / "lab/jetson.json").write_text(json.dumps(place))
    (settings.run / "lab/phone.json").write_text('{"kind": "android", "adb_port": 7, "serial": "127.0.0.1:9"}')
    (settings.run / "lab/iphone.json").write_text('{"kind": "ios", "usbmux": "127.0.0.1:5", "udid": "0000FFFF-1234"}')
    return settings


def test_each_name_means_one_device(here: Settings) -> None:
    assert named("host", None, here) == HostOptions(sandbox="bare")
    assert named("jetson:orin", "/a", here) == JetsonOptions(kind="jetson", host="orin", root="/a")
    assert named("linux:pi@pi.local:2222", None, here) == LinuxOptions(kind="linux", host="pi@pi.local:2222")
    assert named("jetson", None, here) == JetsonOptions(kind="jetson", lab="jetson")
    assert named("phone", None, here) == AndroidOptions(kind="android", lab="phone")
    assert named("127.0.0.1:9", None, here) == AndroidOptions(kind="android", lab="phone")
    assert named("192.168.1.7:5555", None, here) == AndroidOptions(kind="android", serial="192.168.1.7:5555")
    assert named("iphone", None, here) == named("0000FFFF-1234", None, here) == IosOptions(kind="ios", lab="iphone")
    udid = "00008110-001A2B3C4D5E6F70"
    assert named(f"ios:{udid}", "folder", here) == IosOptions(kind="ios", udid=udid, root="folder")
    assert named(None, None, here) == AndroidOptions(kind="android")


@pytest.mark.parametrize(
    ("device", "root"),
    [("jetson:-oProxyCommand=x", None), ("linux:a b", None), ("jetson:a", "here"), ("ios:phone", None)],
)
def test_names_that_no_device_has(here: Settings, device: str, root: str | None) -> None:
    with pytest.raises(UsageError, match="names no device"):
        named(device, root, here)


def test_what_may_be_run_as_root(here: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "sudoers", "jetson:melt@orin", "--root", "/home/melt/there"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("melt ALL=(root) NOPASSWD: /usr/sbin/nvpmodel -m 0, ")
    assert "/usr/bin/jetson_clocks --restore /home/melt/there/clocks.conf" in line
    assert main(["devices", "sudoers", "jetson", "--user", "other"]) == 0
    assert capsys.readouterr().out.startswith("other ALL=(root)")
    assert main(["devices", "sudoers", "linux:orin"]) == 2
    assert "no setting of a target of kind linux needs root" in capsys.readouterr().err


def test_this_machine_has_nothing_to_clean_or_put_back(here: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "restore", "host"]) == 0
    assert "no setting was to be put back" in capsys.readouterr().out
    assert main(["devices", "clean", "host"]) != 0
    assert "nothing is deployed to this machine" in capsys.readouterr().err
