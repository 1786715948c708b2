"""Adb servers and what they list: which states there are, what to do about each, and whose server is left alone."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.android.adb import AdbDevice, AdbLink, Server
from meltrepro.targets.remote.link import retried


@dataclass
class FakeServer:
    """Speaks the protocol between client and server, for as many devices as it is told of."""

    version: int = 41
    devices: str = ""
    details: str = ""
    """The long list, where it is asked for."""
    refusal: str | None = None
    old: bool = False
    """Whether its devices are of Android 6."""
    says: dict[str, bytes] = field(default_factory=dict)
    """What each device writes, by the name by which it is reached."""
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
            reached = ""
            while size := client.recv(4):
                request = client.recv(int(size, 16)).decode()
                self.asked.append(request)
                if request.startswith("host:transport"):
                    reached = request.partition(":")[2].removeprefix("transport:")
                shell = request.startswith("shell") and reached in self.says
                client.sendall(b"OKAY" + self.says[reached] if shell else self._answer(request))
                if shell:
                    return

    def _answer(self, request: str) -> bytes:
        if self.garbage is not None:
            return self.garbage
        if request == "host:version":
            return b"OKAY" + _block(f"{self.version:04x}")
        if request == "host:devices":
            return b"OKAY" + _block(self.devices)
        if request == "host:devices-l":
            return b"OKAY" + _block(self.details)
        if self.old and request.endswith(":features"):
            return b"OKAY" + _block("cmd,stat_v2")
        if self.old and request.startswith("shell"):
            return b"FAIL" + _block("closed")
        if request.startswith("host:transport:") and self.devices.count(f"{request[15:]}\t") > 1:
            return b"FAIL" + _block("more than one device")
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


def said(text: str) -> bytes:
    """As `shell,v2` brings it, with an end that is well."""
    data = text.encode()
    return b"\x01" + len(data).to_bytes(4, "little") + data + b"\x03\x01\x00\x00\x00\x00"


def heard(link: AdbLink) -> str:
    with contextlib.closing(link.open("true")) as channel:
        chunk = channel.receive(5)
    return chunk.data.decode() if chunk else ""


@pytest.mark.parametrize("serial", ["0123456789ABCDEF", "(no serial number)", "????????????"])
def test_two_devices_of_one_serial_number_are_told_apart(serial: str) -> None:
    listed = f"{serial}\tdevice\n{serial}\tunauthorized\nB\tdevice\n"
    details = (
        f"{serial:22} device usb:1-2 product:p model:Cheap_Phone device:d transport_id:3\n"
        f"{serial:22} unauthorized transport_id:4\nB                      device usb:1-4 transport_id:5\n"
    )
    fake = FakeServer(devices=listed, details=details, says={"usb:1-2": said("one"), "transport_id:4": said("two")})
    with fake.running() as server:
        assert [device.name for device in server.devices()] == ["usb:1-2", "transport_id:4", "B"]
        with pytest.raises(
            TargetError, match=f"2 devices are called {re.escape(serial)}: usb:1-2 .*Cheap_Phone"
        ) as caught:
            AdbLink(server, serial).open("true")
        assert type(caught.value) is TargetError
        assert "serial: usb:1-2" in (caught.value.hint or "")
        assert heard(AdbLink(server, "usb:1-2")) == "one"
        with pytest.raises(TargetError, match="transport_id:4 is unauthorized"):
            AdbLink(server, "transport_id:4").open("true")
        with pytest.raises(TargetError, match="several devices are attached: usb:1-2 .*, transport_id:4 .*, B"):
            server.require(None)


@pytest.mark.parametrize("name", ["usb:1-4", "transport_id:5", "model:Pixel_8", "B"])
def test_a_device_is_called_as_adb_calls_it(name: str) -> None:
    details = "B                      device usb:1-4 model:Pixel_8 transport_id:5\n"
    fake = FakeServer(devices="B\tdevice\n", details=details, says={"B": said("it"), "usb:1-4": said("it")})
    with fake.running() as server:
        assert heard(AdbLink(server, name)) == "it"


@pytest.mark.parametrize("name", ["192.168.1.7", "tcp:192.168.1.7", "192.168.1.7:5555"])
def test_an_address_is_a_name_without_its_port_too(name: str) -> None:
    with FakeServer(devices="192.168.1.7:5555\tdevice\n192.168.1.77:5555\tdevice\n").running() as server:
        assert server.require(name) == "192.168.1.7:5555"


def test_a_device_stays_the_one_that_is_meant_when_its_twin_is_attached() -> None:
    fake = FakeServer(devices="A\tdevice\n", says={"A": said("A\n11111111")})
    with fake.running() as server:
        link = AdbLink(server, "A")
        assert heard(link).endswith("11111111")
        assert not link.doubled
        fake.devices, fake.says = "A\tdevice\nA\tdevice\n", {}
        fake.details = "A  device usb:1-2 transport_id:1\nA  device usb:1-3 transport_id:2\n"
        fake.says |= {"usb:1-2": said("A\n22222222"), "usb:1-3": said("A\n11111111")}
        assert heard(link).endswith("11111111"), "it is known by what it calls itself"
        fake.says["usb:1-3"] = said("A\n22222222")
        with pytest.raises(TargetError, match="2 devices are called A"):
            AdbLink(server, "A").open("true")


def test_an_adbd_that_is_too_old_is_asked_once_and_not_waited_for() -> None:
    fake = FakeServer(devices="ABC\tdevice\n", old=True)
    with fake.running() as server:
        link = AdbLink(server, "ABC")
        for _ in range(2):
            with pytest.raises(
                TargetError, match="ABC: Android 7 or later is needed: its adbd has no shell v2"
            ) as caught:
                retried(lambda: link.open("true"), reconnect_s=60)
            assert type(caught.value) is TargetError
    assert fake.asked.count("host-serial:ABC:features") == 1


def test_a_device_that_refuses_for_other_reasons_may_come_back() -> None:
    with (
        FakeServer(devices="A\tdevice\n", refusal="closed").running() as server,
        pytest.raises(TargetLost, match="A: closed"),
    ):
        AdbLink(server, "A").open("true")


@pytest.mark.parametrize(
    "state", ["recovery", "sideload", "bootloader", "rescue", "unauthorized", "host", "no permissions"]
)
def test_a_device_that_needs_somebody_is_not_waited_for(state: str) -> None:
    with (
        FakeServer(devices=f"A\t{state}\n").running() as server,
        pytest.raises(TargetError, match=f"A is {state}") as caught,
    ):
        AdbLink(server, "A").open("true")
    assert type(caught.value) is TargetError
    assert caught.value.hint
