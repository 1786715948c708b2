"""Adb servers and what they list: which states there are, what to do about each, and whose server is left alone."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.android.adb import AdbDevice, AdbLink, Server


@dataclass
class FakeServer:
    """Speaks the protocol between client and server, for as many devices as it is told of."""

    version: int = 41
    devices: str = ""
    refusal: str | None = None
    garbage: bytes | None = None
    """What it answers to everything, where it is broken."""
    written: bytes = b""
    """What every command on a device writes, packets and all."""
    asked: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()
            yield Server(listener.getsockname()[1])

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            while size := client.recv(4):
                request = client.recv(int(size, 16)).decode()
                self.asked.append(request)
                client.sendall(self._answer(request))

    def _answer(self, request: str) -> bytes:
        if self.garbage is not None:
            return self.garbage
        if request == "host:version":
            return b"OKAY" + _block(f"{self.version:04x}")
        if request == "host:devices":
            return b"OKAY" + _block(self.devices)
        if request.startswith("shell") and self.refusal is None:
            return b"OKAY" + self.written
        return b"OKAY" if self.refusal is None else b"FAIL" + _block(self.refusal)


def _block(text: str) -> bytes:
    return f"{len(text):04x}{text}".encode()


def test_devices_in_every_state() -> None:
    listed = "A1\tdevice\nB2\tunauthorized\nC3\tno permissions (user in plugdev group; are your udev rules wrong?)\nD4\todd\n"
    with FakeServer(devices=listed).running() as server:
        found = server.devices()
    assert [device.serial for device in found] == ["A1", "B2", "C3", "D4"]
    assert [device.usable for device in found] == [True, False, False, False]
    fixes = [device.fix or "" for device in found]
    assert fixes[0] == ""
    for fix, word in zip(fixes[1:], ("allow USB debugging", "udev rules", "'odd'"), strict=True):
        assert word in fix


@pytest.mark.parametrize(
    ("listed", "serial", "error", "words"),
    [
        ("", None, TargetLost, "no Android device is attached"),
        ("A\tdevice\nB\tdevice\n", None, TargetError, "several devices are attached: A, B"),
        ("A\tdevice\n", "Z", TargetLost, "Z is not attached"),
        ("A\tunauthorized\n", "A", TargetError, "A is unauthorized"),
        ("A\tunauthorized\n", None, TargetError, "A is unauthorized"),
        ("A\toffline\n", "A", TargetLost, "A is offline"),
    ],
)
def test_a_device_that_cannot_be_used(listed: str, serial: str | None, error: type[TargetError], words: str) -> None:
    with FakeServer(devices=listed).running() as server, pytest.raises(error, match=words) as caught:
        server.require(serial)
    assert type(caught.value) is error
    assert caught.value.hint


def test_the_only_device_is_meant() -> None:
    with FakeServer(devices="A\tdevice\n").running() as server:
        assert server.require(None) == "A"


def test_a_server_of_another_version_is_left_alone() -> None:
    fake = FakeServer(version=40, devices="A\tdevice\n")
    with fake.running() as server, pytest.raises(TargetError, match="speaks version 40 of the protocol, not 41"):
        AdbLink(server, "A").open("true")
    assert not any("kill" in request for request in fake.asked)


def test_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert not Server(port).answers()
    with pytest.raises(TargetLost, match=f"no adb server answers at 127.0.0.1:{port}"):
        AdbLink(Server(port), "A").open("true")


def test_what_the_server_refuses_is_explained_by_the_devices_state() -> None:
    with (
        FakeServer(devices="A\tunauthorized\n", refusal="device unauthorized.").running() as server,
        pytest.raises(TargetError, match="A is unauthorized") as caught,
    ):
        AdbLink(server, "A").open("true")
    assert "allow USB debugging" in (caught.value.hint or "")


def test_garbage_from_the_server() -> None:
    for answer in (b"what?", b"OKAYzzzz", b"FAILmore"):
        with FakeServer(garbage=answer).running() as server, pytest.raises(TargetError, match="garbled"):
            server.devices()


def test_a_device_has_a_fix_for_what_nobody_knows() -> None:
    assert "rescue" in (AdbDevice("A", "rescue").fix or "")


@pytest.mark.parametrize(
    "written",
    [b"\x01\xff\xff\xff\xffmany", b"\x02\x00\x00\x00\x7f", b"\x09\x01\x00\x00\x00x", b"[error] what is this"],
)
def test_a_garbled_packet_is_noticed_and_not_waited_for(written: bytes) -> None:
    with FakeServer(devices="A\tdevice\n", written=written).running() as server:
        channel = AdbLink(server, "A").open("true")
        with contextlib.closing(channel), pytest.raises(TargetLost, match="A: a garbled answer"):
            channel.receive(5)


@pytest.mark.parametrize(("request_", "words"), [("x" * 70_000, "70000 bytes"), ("\ud800", "no text")])
def test_what_no_request_can_hold_is_refused(request_: str, words: str) -> None:
    with FakeServer().running() as server, pytest.raises(TargetError, match=words):
        server.ask(request_)


@pytest.mark.parametrize("serial", ["x" * 70_000, "\ud800"])
def test_a_serial_that_can_be_nobodys(serial: str) -> None:
    with FakeServer().running() as server, pytest.raises(TargetLost, match="is not attached"):
        AdbLink(server, serial).open("true")
