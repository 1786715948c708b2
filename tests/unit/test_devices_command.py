"""Which device the commands of `meltrepro devices` mean."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from meltrepro import settings as settings_module
from meltrepro.cli.app import main
from meltrepro.errors import TargetError, TargetLost, UsageError
from meltrepro.registry import TARGETS
from meltrepro.settings import Settings
from meltrepro.targets import registry
from meltrepro.targets.android.options import AndroidOptions
from meltrepro.targets.base import Attached, Target
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.ios.options import IosOptions
from meltrepro.targets.jetson.options import JetsonOptions
from meltrepro.targets.registry import makers, named
from meltrepro.targets.ssh.options import LinuxOptions
from meltrepro.workflow import devices
from tests.support.gadgets import gadgets
from tests.support.manifests import GOOD


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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("orin", "did you mean jetson:orin or linux:orin?"),
        ("jetsn:orin", "did you mean jetson:orin"),
        ("iphon", "did you mean iphone or jetson:iphon or linux:iphon?"),
        ("00008110-001A2B3C4D5E6F70", "did you mean ios:00008110-001A2B3C4D5E6F70 or jetson:"),
        ("192.168.1.7:5555", "see: meltrepro devices"),
    ],
)
def test_a_name_that_leads_nowhere_brings_others_to_mind(
    here: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    rows = [Attached("ios", "iphone", "device", "", None), Attached("host", "", "device", "", None)]
    monkeypatch.setattr(devices, "attached", lambda **_: (rows, ()))

    def away(*_: object) -> Target:
        raise TargetLost(f"{name} is not attached", hint="see: meltrepro devices")

    monkeypatch.setattr(registry, "open_target", away)
    assert main(["devices", "probe", name]) == TargetLost.exit_code
    assert said in capsys.readouterr().err


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


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is installed whose kind of target, `toy`, cannot be loaded."""
    (tmp_path / "toy_that_is_broken.py").write_text('raise RuntimeError("two\\nlines")')
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("toy", "toy_that_is_broken:KIND", TARGETS.group)
    monkeypatch.setitem(vars(TARGETS), "_points", {"toy": point})


@pytest.mark.usefixtures("broken")
def test_a_broken_package_hides_no_devices(here: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told in one line, in place of what it would have shown."""
    assert main(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("host ")
    (told,) = (line for line in lines if "toy" in line)
    assert told.startswith(
        "kind of target 'toy' cannot be loaded from toy_that_is_broken:KIND: RuntimeError: two lines"
    )
    assert "mend or remove that package" in told
    assert main(["devices", "--json"]) == 0
    assert {row["kind"] for row in json.loads(capsys.readouterr().out)} >= {"host", "jetson"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TargetError("no server answers", hint="start it"), "kind gadget: no server answers; start it"),
        (PermissionError(13, "Permission denied", "/home/x/.config"), "gadget: its driver failed: PermissionError"),
        (ImportError("no module"), "gadget: its driver failed: ImportError: no module"),
    ],
)
def test_a_kind_that_cannot_be_looked_for_hides_no_other(
    here: Settings, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    with gadgets() as world:
        world.faults["*"] = {"attached": error}
        assert main(["devices"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("host ") and "jetson" in out
        assert said in out
        assert main(["devices", "--json"]) == 0
        out, err = capsys.readouterr()
        assert {row["kind"] for row in json.loads(out)} >= {"host", "jetson"}
        assert said in err


@pytest.mark.usefixtures("broken")
def test_a_broken_package_stops_its_own_targets_alone(
    here: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named("jetson", None, here) == JetsonOptions(kind="jetson", lab="jetson")
    assert "mac-ssh" in makers()
    for kind, status in (("host", 0), ("toy", 2)):
        spec = tmp_path / f"{kind}.yaml"
        spec.write_text(f"{GOOD}targets: {{it: {{kind: {kind}}}}}\n")
        assert main(["validate", str(spec)]) == status
    assert "kind of target 'toy' cannot be loaded" in capsys.readouterr().err
    with pytest.raises(UsageError, match="kind of target 'toy' cannot be loaded"):
        named("toy:1", None, here)
