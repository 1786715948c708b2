"""Which adb server is meant: the one that adb itself would talk to, here or elsewhere, and never another in its place."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.settings import Settings
from meltrepro.targets.android import KIND, adb_server
from meltrepro.targets.android.adb import ADDRESS, SERVER_PORT, SOCKET, AdbLink, Server
from meltrepro.targets.android.target import attached
from tests.unit.test_adb import FakeServer


@pytest.fixture(autouse=True)
def nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SOCKET, ADDRESS, SERVER_PORT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(adb_server, "own_port", lambda: pytest.fail("a server was started here"))


def told(monkeypatch: pytest.MonkeyPatch, **said: str) -> Server:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    return Server.usual()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Server(5037, "127.0.0.1")),
        ({SERVER_PORT: "5038"}, Server(5038)),
        ({SOCKET: "tcp:172.30.112.1:5037"}, Server(5037, "172.30.112.1")),
        ({SOCKET: "tcp:5039"}, Server(5039)),
        ({SOCKET: "tcp:localhost:5039"}, Server(5039, "localhost")),
        ({SOCKET: "tcp:[fe80::1%eth0]:5037"}, Server(5037, "fe80::1%eth0")),
        ({SOCKET: "tcp:host.docker.internal:5037\n"}, Server(5037, "host.docker.internal")),
        ({SOCKET: "localfilesystem:/run/adb.sock"}, Server(path="/run/adb.sock")),
        ({SOCKET: "localabstract:adb"}, Server(path="\0adb")),
        ({ADDRESS: "172.30.112.1"}, Server(5037, "172.30.112.1")),
        ({ADDRESS: "172.30.112.1", SERVER_PORT: "5038"}, Server(5038, "172.30.112.1")),
        ({ADDRESS: "::1"}, Server(5037, "::1")),
        ({SOCKET: "tcp:10.0.0.1:1", ADDRESS: "10.0.0.2", SERVER_PORT: "2"}, Server(1, "10.0.0.1")),
        ({SOCKET: "", ADDRESS: "", SERVER_PORT: ""}, Server()),
    ],
)
def test_it_is_read_as_adb_reads_it(monkeypatch: pytest.MonkeyPatch, said: dict[str, str], expected: Server) -> None:
    server = told(monkeypatch, **said)
    assert server == expected
    assert not server.problem


@pytest.mark.parametrize(
    "said",
    [
        {SOCKET: "172.30.112.1:5037"},
        {SOCKET: "tcp:172.30.112.1"},
        {SOCKET: "tcp:"},
        {SOCKET: "tcp:a:0"},
        {SOCKET: "tcp:a b:5037"},
        {SOCKET: "localabstract:"},
        {SOCKET: "vsock:2:5037"},
        {SOCKET: "acceptfd:3"},
        {SERVER_PORT: "70000"},
        {SERVER_PORT: "5037x"},
    ],
)
def test_what_names_no_server_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], tmp_path: Path
) -> None:
    server = told(monkeypatch, **said)
    ((variable, value),) = said.items()
    with pytest.raises(TargetError, match=variable) as caught:
        AdbLink(server, None).open("true")
    assert type(caught.value) is TargetError, "nobody waits for it"
    assert value in caught.value.message
    (row,) = attached(Settings(tmp_path, tmp_path, offline=True, mirrors=None, jobs=1))
    assert variable in (row.todo or ""), "other kinds of devices are listed all the same"


@pytest.mark.parametrize(
    "said",
    [{SOCKET: "tcp:127.0.0.1:{port}"}, {ADDRESS: "127.0.0.1", SERVER_PORT: "{port}"}, {SOCKET: "tcp:localhost:{port}"}],
)
def test_a_server_that_somebody_named_is_used_and_never_replaced(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str]
) -> None:
    with FakeServer(devices="A\tdevice\n").running() as running:
        server = told(monkeypatch, **{name: value.format(port=running.port) for name, value in said.items()})
        assert [device.serial for device in server.ready().devices()] == ["A"]
    (variable, *_) = said
    gone = told(monkeypatch, **{name: value.format(port=adb_server.free_port()) for name, value in said.items()})
    with pytest.raises(
        TargetLost, match=rf"no adb server answers at (127\.0\.0\.1|localhost):\d+ \({variable}\)"
    ) as caught:
        AdbLink(gone, "A").open("true")
    assert variable in (caught.value.hint or "")
    assert variable in (KIND.absent() or "")


@pytest.mark.parametrize("host", ["a" * 70, "ä" * 70, "..."])
def test_a_host_that_nobody_knows_is_a_loss(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with pytest.raises(TargetLost, match="no adb server answers"):
        told(monkeypatch, **{ADDRESS: host}).check()


@pytest.mark.parametrize("abstract", [True, False])
def test_a_server_at_a_local_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abstract: bool) -> None:
    name = f"adb-test-{os.getpid()}" if abstract else str(tmp_path / "adb.sock")
    fake = FakeServer(devices="A\tdevice\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}" if abstract else name)
        listener.listen()
        threading.Thread(target=fake._serve, args=(listener,), daemon=True).start()
        server = told(monkeypatch, **{SOCKET: f"{'localabstract' if abstract else 'localfilesystem'}:{name}"})
        assert [device.serial for device in server.ready().devices()] == ["A"]
    with pytest.raises(TargetLost, match=SOCKET):
        Server(path=str(tmp_path / "none"), variable=SOCKET).check()


def test_what_is_no_adb_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(version=40).running() as running:
        server = told(monkeypatch, **{SOCKET: f"tcp:127.0.0.1:{running.port}"})
        with pytest.raises(TargetError, match=rf"{running.port} \({SOCKET}\) speaks version 40"):
            server.ready()
