"""Boards in manifests, and what of a lab is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from meltrepro import settings as settings_module
from meltrepro.errors import TargetLost
from meltrepro.manifest.targets import Target
from meltrepro.targets.android.target import Android
from meltrepro.targets.base import device_id
from meltrepro.targets.jetson.target import Jetson
from meltrepro.targets.remote.linux import LinuxPlatform
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.remote.snapshot import snapshot
from meltrepro.targets.ssh.options import LinuxOptions
from meltrepro.targets.ssh.target import lab_boards, link_to
from tests.fuzz.answers import PART, PIECES, Told
from tests.support.links import LocalLink

ADAPTER: TypeAdapter[Target] = TypeAdapter(Target)


def test_defaults() -> None:
    entry = ADAPTER.validate_python({"kind": "linux", "host": "pi@board.local:2222"})
    assert isinstance(entry, LinuxOptions)
    assert (entry.root, entry.reconnect_s, entry.contained) == ("/var/tmp/meltrepro", 60, False)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "one of 'host' and 'lab'"),
        ({"host": "a", "lab": "b"}, "one of 'host' and 'lab'"),
        ({"host": "-oProxyCommand=evil"}, "pattern"),
        ({"host": "a b"}, "pattern"),
        ({"host": "a", "root": "relative"}, "pattern"),
        ({"host": "a", "serial": "x"}, "serial"),
    ],
)
def test_entries_that_are_wrong(more: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ADAPTER.validate_python({"kind": "linux", **more})


def test_a_lab_is_looked_up_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path))
    here = settings_module.load()
    link = link_to(LinuxOptions(kind="linux", lab="board"), here)
    with pytest.raises(TargetLost, match="the lab has no board 'board' now"):
        link.open("true")
    folder = here.run / "lab"
    folder.mkdir(parents=True)
    (folder / "phone.json").write_text('{"kind": "android"}')
    (folder / "broken.json").write_text('{"kind": "jetson"')
    (folder / "poor.json").write_text('{"kind": "jetson"}')
    place = {"kind": "jetson", "port": 7, "user": "root", "key": "/k", "known_hosts": "/h"}
    (folder / "board.json").write_text(json.dumps(place))
    (board,) = lab_boards(here)
    assert (board.name, board.address, board.port, board.agent) == ("board", "127.0.0.1", 7, None)


def test_a_plain_machine_says_what_it_is(tmp_path: Path) -> None:
    target = RemoteTarget(Shell(LocalLink(tmp_path)), LinuxPlatform("linux"), str(tmp_path / "root"))
    facts = target.identify()
    assert facts.cores >= 1
    assert not facts.virtual
    assert facts.facts["sandbox"] == "bare"
    assert (tmp_path / "root").is_dir(), "where nothing can be kept nothing can be measured"


@pytest.mark.parametrize(
    ("serial", "own"), [("1420921055981", "1420921055981"), ("0000000000000000", None), ("unknown", None), ("", None)]
)
def test_a_board_whose_serial_number_is_nobodys_is_known_by_its_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serial: str, own: str | None
) -> None:
    machine_id = "8d0bbf2e4c0f4d1e9d6b8b2f5a7c9e01"
    for name, text in (("serial", serial), ("machine-id", machine_id)):
        (tmp_path / name).write_text(f"{text}\0\n" if name == "serial" else f"{text}\n")
    places = tuple(str(tmp_path / name) for name in ("serial", "machine-id", "model", "virtual"))
    monkeypatch.setattr("meltrepro.targets.remote.linux._IDENTITY", places)
    facts = RemoteTarget(Shell(LocalLink(tmp_path)), LinuxPlatform("linux"), str(tmp_path / "root")).identify()
    assert facts.id == device_id("board", own or machine_id)


@pytest.mark.parametrize("platform", [Android(), LinuxPlatform("linux"), Jetson("all")])
def test_a_serial_number_leaves_a_device_as_a_digest(platform: Android | LinuxPlatform) -> None:
    serial = "1420921055981"
    said = "\n%%\n".join(PIECES).replace("0A1B2C", serial)
    said = said.replace(
        "@/etc/machine-id", f"@/sys/firmware/devicetree/base/serial-number\n={serial}\n@/etc/machine-id"
    )
    shell = Shell(Told(said.encode().split(PART)))
    with snapshot(shell) as tree:
        facts = platform.facts(shell, tree, "/data")
    assert facts.id == device_id("android" if isinstance(platform, Android) else "board", serial)
    assert serial not in str(facts)
