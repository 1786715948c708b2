"""The user's adb server is used where one runs; else one of our own, which ends with us, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.errors import TargetLost
from meltrepro.targets.android import adb_server
from meltrepro.targets.android.adb import AdbLink, Server
from tests.unit.test_adb import FakeServer

STAND_IN = """#!{python}
import os, socket, sys
port, ready = int(sys.argv[2]), int(sys.argv[4])
assert sys.argv[5:] == ["nodaemon", "server"]
listener = socket.create_server(("127.0.0.1", port))
os.write(ready, b"OK\\n")
while True:
    client, _ = listener.accept()
    with client:
        while size := client.recv(4):
            asked = client.recv(int(size, 16)).decode()
            text = "0029" if asked == "host:version" else "A\\tdevice\\n"
            client.sendall(f"OKAY{{len(text):04x}}{{text}}".encode())
"""
"""An adb that knows a device, with the command line of adb's server."""


@pytest.fixture(autouse=True)
def nobody_runs_a_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb_server.free_port()))
    monkeypatch.setattr(adb_server, "_server", None)
    yield
    if adb_server._server is not None:
        adb_server.end(adb_server._server[0])


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "adb"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(adb_server, "program", lambda: str(program))
    return program


def test_the_users_server_is_used_and_none_is_started(adb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(devices="A\tdevice\n").running() as server:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
        assert Server.usual().ready() == server
    assert adb_server._server is None


def test_one_of_our_own_stands_in_at_another_port_and_is_shared(adb: Path) -> None:
    usual = Server.usual()
    server = usual.ready()
    assert server.port != usual.port
    assert [each.serial for each in server.devices()] == ["A"]
    assert usual.ready() == server
    assert not usual.answers(), "the usual port was taken"


def test_a_server_that_is_meant_by_its_port_is_never_stood_in_for(adb: Path) -> None:
    with pytest.raises(TargetLost, match="no adb server answers"):
        AdbLink(Server(adb_server.free_port()), "A").open("true")
    assert adb_server._server is None


def test_one_that_died_is_started_anew(adb: Path) -> None:
    first = Server.usual().ready()
    assert adb_server._server is not None
    adb_server.end(adb_server._server[0])
    assert not first.answers()
    assert Server.usual().ready().answers()


def test_it_ends_with_a_process_that_is_killed(adb: Path) -> None:
    code = (
        "import sys, time; from meltrepro.targets.android import adb_server; adb_server.program = lambda: sys.argv[1]; "
        "print(adb_server.own_port(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(adb)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = Server(int(process.stdout.readline()))
        assert server.answers()
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while server.answers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not server.answers()


@pytest.mark.parametrize("content", ["echo no such option >&2; exit 1", "echo no such option; exit 0"])
def test_an_adb_that_does_not_start_is_an_error_with_what_it_said(adb: Path, content: str) -> None:
    adb.write_text(f"#!/bin/sh\n{content}\n")
    began = time.monotonic()
    with pytest.raises(TargetLost, match="an adb server could not be started: no such option") as caught:
        Server.usual().ready()
    assert caught.value.hint
    assert time.monotonic() - began < 10, "it was waited for although it had ended"
