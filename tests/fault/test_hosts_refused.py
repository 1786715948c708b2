"""Bad input of a lab of many hosts: a line each, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meltrepro.errors import DriverMissing, LabError, UsageError
from meltrepro.hosts import attend, wire
from meltrepro.hosts.link import LabLink
from meltrepro.hosts.node import LabNode, listed, plugged_in
from meltrepro.registry import TARGETS
from meltrepro.settings import Settings
from meltrepro.targets.base import device_id
from meltrepro.targets.host import target as host
from meltrepro.targets.host.options import HostOptions
from tests.fault import project as projects
from tests.fault.hosts import Lab, lab_of

HOST = HostOptions(kind="host", sandbox="bare")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    project = projects.equip(tmp_path_factory.mktemp("lab"))
    with lab_of(project.folder, ("one",)) as up:
        yield up


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "cache", tmp_path / "home", offline=True, mirrors=None, jobs=1)


@pytest.fixture
def secret(lab: Lab, settings: Settings) -> str:
    return wire.token(settings, str(lab.token))


@pytest.fixture
def said() -> list[str]:
    return []


def joins(
    lab: Lab, secret: str, settings: Settings, said: list[str], monkeypatch: pytest.MonkeyPatch, **how: object
) -> None:
    """Be a node for a moment, in this process."""
    name = str(how.get("name", "four"))
    own = str(how.get("device", name))
    monkeypatch.setattr(host, "host_id", lambda root=Path("/"): device_id("host", own))

    async def until_offered() -> None:
        while not any(line.startswith("offered") for line in said):
            await asyncio.sleep(0.02)

    monkeypatch.setattr(attend, "until_signal", until_offered)
    node = LabNode(name, settings, tell=said.append)
    attend.attend(node, lambda _: [HOST, HOST] if how.get("twice") else [HOST], lab.address, secret)


def test_a_node_with_another_token(
    lab: Lab, settings: Settings, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LabError, match="does not take this token"):
        joins(lab, "x" * 64, settings, said, monkeypatch)
    assert [each["node"] for each in lab.status()["devices"]] == ["one"]


def test_a_client_with_another_token(lab: Lab) -> None:
    with pytest.raises(LabError, match="does not take this token"):
        LabLink(lab.address, "x" * 64)


def test_a_node_of_another_version(
    lab: Lab, secret: str, settings: Settings, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "versions", lambda: {"meltrepro": "0.0.1", "dask.distributed": "1"})
    with pytest.raises(LabError, match=r"four has meltrepro 0\.0\.1, the head has .*: install the same version"):
        joins(lab, secret, settings, said, monkeypatch)


@pytest.mark.parametrize(("hours", "where"), [(1, "ahead of"), (-1, "behind")])
def test_a_clock_that_is_an_hour_off(
    lab: Lab, secret: str, settings: Settings, said: list[str], monkeypatch: pytest.MonkeyPatch, hours: int, where: str
) -> None:
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + hours * 3600 * 10**9)
    with pytest.raises(LabError, match=rf"the clock of four is 3\d\d\d s {where} the head's: set it"):
        joins(lab, secret, settings, said, monkeypatch)


def test_a_device_that_a_node_names_twice(
    lab: Lab, secret: str, settings: Settings, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    joins(lab, secret, settings, said, monkeypatch, twice=True)
    (line,) = (line for line in said if line.startswith("not offered"))
    assert line.endswith("is named twice; one is enough")


def test_a_device_that_another_node_has(
    lab: Lab, secret: str, settings: Settings, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    joins(lab, secret, settings, said, monkeypatch, name="five", device="one")
    assert [line for line in said if line.startswith("not offered")] == [
        f"not offered: {device_id('host', 'one')} is offered by one already"
    ]
    assert {each["id"]: each["node"] for each in lab.status()["devices"]}[device_id("host", "one")] == "one"


def test_a_node_without_a_driver(settings: Settings, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    class Broken:
        kind = "android"

        def attached(self, settings: Settings) -> list[object]:
            raise DriverMissing("adb is not installed", hint="apt-get install adb")

    real: Callable[[str], object] = TARGETS.get
    monkeypatch.setattr(TARGETS, "get", lambda kind: Broken() if kind == "android" else real(kind))
    found = plugged_in(settings, said.append)
    assert "host" in {entry.kind for entry in found}
    assert [line for line in said if "android" in line] == [
        "not offered: devices of kind android: adb is not installed; apt-get install adb"
    ]


@pytest.mark.parametrize("text", ["targets: [1]", "{", "targets: {x: {kind: host, color: red}}", ""])
def test_a_file_of_devices_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "devices.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="expected targets of devices"):
        listed(path)


def test_a_token_that_is_none(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        wire.token(settings, None)
    (tmp_path / "token").write_text("password")
    with pytest.raises(UsageError, match="holds no token"):
        wire.token(settings, str(tmp_path / "token"))
    assert wire.token(settings, None, make=True) == wire.token(settings, None)
    assert wire.token_path(settings).stat().st_mode & 0o077 == 0


def test_a_head_that_is_not_there(secret: str) -> None:
    with pytest.raises(LabError, match="no head of a lab answers"):
        LabLink("tls://127.0.0.1:9", secret)


@pytest.mark.parametrize("text", ["tcp://x", "tls://x:99999", "tls://", "a b"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        wire.address(text)


def test_addresses() -> None:
    assert wire.address("lab") == wire.address("tls://lab") == "tls://lab:8786"
    assert wire.address("tls://[::1]:9/") == "tls://[::1]:9"
