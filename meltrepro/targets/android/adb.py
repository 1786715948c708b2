"""Android devices behind an adb server: which there are, in which state, and a link to each.

adbutils finds devices and opens transports. Streams are our own: its shell neither streams with a status nor tells a
lost device from an empty answer, and its push is several times slower than adb's (docs/devices/android.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import struct
import subprocess
from dataclasses import dataclass

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.android import adb_server
from meltrepro.targets.remote.link import Chunk

PORT = 5037
"""Where adb servers listen unless told otherwise."""
_VERSION = 41
"""Of the protocol between client and server; a client that finds another one kills the server, and we never do."""
_STDIN, _STDOUT, _STDERR, _EXIT, _END_INPUT = range(5)
_HEADER = struct.Struct("<BI")
_PIECE = 64 << 10
_LONGEST_PACKET = 16 << 20
"""Bytes; adb's own packets of a stream have at most 1 MiB."""
_LONGEST_REQUEST = 0xFFFF
_ANSWER_S = 20.0
_FIXES = {
    "unauthorized": "unlock the phone and allow USB debugging for this computer; without a question on its screen, switch "
    "USB debugging off and on",
    "authorizing": "wait a moment, then unlock the phone and allow USB debugging",
    "offline": "plug it in again; for wireless adb: adb disconnect, then adb connect",
    "no permissions": "install udev rules for Android (Debian: android-sdk-platform-tools-common), then plug it in again",
    "recovery": "the phone is in its recovery; reboot it",
    "sideload": "the phone waits for an update; reboot it",
    "bootloader": "the phone is in its boot loader; reboot it",
    "connecting": "wait a moment",
    "host": "this is no device but a computer",
}


@dataclass(frozen=True)
class AdbDevice:
    """A device as an adb server lists it."""

    serial: str
    state: str

    @property
    def usable(self) -> bool:
        """Whether commands can be run on it."""
        return self.state == "device"

    @property
    def fix(self) -> str | None:
        """What somebody has to do before it can be used."""
        if self.usable:
            return None
        known = (fix for state, fix in _FIXES.items() if self.state.startswith(state))
        return next(known, f"adb calls its state {self.state!r}; plug it in again")


@dataclass(frozen=True)
class Server:
    """An adb server; never started anew or killed while somebody else may use it."""

    port: int = PORT
    host: str = "127.0.0.1"

    @staticmethod
    def usual() -> Server:
        """The one that adb itself would use."""
        port = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
        return Server(int(port) if re.fullmatch(r"[0-9]{1,5}", port) and int(port) < 1 << 16 else PORT)

    def devices(self) -> list[AdbDevice]:
        """What is attached, in whatever state; raises `TargetError`, `TargetLost`."""
        lines = self.ask("host:devices").splitlines()
        return [AdbDevice(*line.split("\t", 1)) for line in lines if "\t" in line]

    def require(self, serial: str | None) -> str:
        """The serial of the device that is meant, where it can be used.

        Raises `TargetError` where somebody has to help, `TargetLost` where it is not attached now.
        """
        found = self.devices()
        if serial is None:
            if len(found) > 1:
                names = ", ".join(each.serial for each in found)
                raise TargetError(f"several devices are attached: {names}", hint="name one of them by 'serial'")
            if not found:
                raise TargetLost("no Android device is attached", hint="see: meltrepro devices")
            serial = found[0].serial
        device = next((each for each in found if each.serial == serial), None)
        if device is None:
            raise TargetLost(f"{serial} is not attached", hint="see: meltrepro devices")
        if device.state in ("offline", "connecting", "authorizing"):
            raise TargetLost(f"{serial} is {device.state}", hint=device.fix)
        if not device.usable:
            raise TargetError(f"{serial} is {device.state}", hint=device.fix)
        return serial

    def ask(self, request: str) -> str:
        """The answer to a question to the server itself; raises `TargetError`, `TargetLost`."""
        with contextlib.closing(self.connect()) as server:
            _request(server, request)
            return _block(server)

    def answers(self) -> bool:
        """Whether anything listens there."""
        try:
            self.connect().close()
        except TargetLost:
            return False
        return True

    def connect(self) -> socket.socket:
        """A socket to the server; raises `TargetLost` where none answers."""
        try:
            server = socket.create_connection((self.host, self.port), timeout=_ANSWER_S)
        except OSError as error:
            raise TargetLost(
                f"no adb server answers at {self.host}:{self.port}: {error.strerror or error}",
                hint="start one with: adb start-server",
            ) from error
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    def ready(self) -> Server:
        """One that can be talked to: this one, or, where it is the usual one and the user runs none, one of this process.

        Raises what `check` raises.
        """
        server = self
        if self == Server.usual() and not self.answers():
            server = Server(adb_server.own_port())
        server.check()
        return server

    def check(self) -> None:
        """See to it that it answers and can be talked to.

        Raises `TargetLost` where none answers, `TargetError` where it speaks another version of the protocol.
        """
        import adbutils

        self.connect().close()  # adbutils would start the usual one in its place
        try:
            version = adbutils.AdbClient(self.host, self.port).server_version()
        except (OSError, RuntimeError, adbutils.AdbError, subprocess.SubprocessError) as error:
            raise TargetLost(
                f"no adb server answers at {self.host}:{self.port}: {error}", hint="start one with: adb start-server"
            ) from error
        if version != _VERSION:
            raise TargetError(
                f"the adb server at port {self.port} speaks version {version} of the protocol, not {_VERSION}",
                hint="another tool runs it with another adb; use one adb for both, or set ANDROID_ADB_SERVER_PORT",
            )


def is_wireless(serial: str | None) -> bool:
    """Whether adb reaches a device over the network, as its serial shows."""
    return serial is not None and (":" in serial or "._adb-tls-connect._tcp" in serial)


class AdbLink:
    """A link to one device by its serial; to the only one that is attached, which stays the one that is meant.

    A phone on wireless adb comes back under another serial, at another port; it is known again by what it calls itself.
    """

    def __init__(self, server: Server, serial: str | None) -> None:
        self._server = server
        self._serial = serial
        self._names: str | None = None
        """What the device calls itself, once it is known."""
        self._checked = False

    @property
    def name(self) -> str:
        return self._serial or "the attached device"

    @property
    def wireless(self) -> bool:
        """Whether it goes over the network now."""
        return is_wireless(self._serial)

    def open(self, command: str) -> AdbChannel:
        """Start a command with the protocol `shell,v2`, which tells streams apart."""
        if not self._checked:
            self._server = self._server.ready()
            self._learn()
            self._checked = True
        try:
            return self._open(self._serial or self._server.require(None), command)
        except TargetLost:
            serial = self._elsewhere()
            if serial is None:
                raise
            self._serial = serial
            return self._open(serial, command)

    def _open(self, serial: str, command: str) -> AdbChannel:
        server = self._server.connect()
        try:
            try:
                _request(server, f"host:transport:{serial}", serial)
            except TargetError:
                self._server.require(serial)  # knows better what is wrong and what to do
                raise
            _request(server, f"shell,v2,raw:{command}", serial)
        except BaseException:
            server.close()
            raise
        return AdbChannel(server, serial)

    def _learn(self) -> None:
        """Ask the device for its names while it is there under its serial."""
        serial = self._serial or self._server.require(None)
        self._serial = serial
        with contextlib.suppress(TargetLost):
            self._names = self._names_of(serial)

    def _elsewhere(self) -> str | None:
        """The serial under which a wireless device calls itself the same, where there is one such."""
        if not self._names or not is_wireless(self._serial):
            return None
        found = []
        for device in self._server.devices():
            if device.usable and device.serial != self._serial:
                with contextlib.suppress(TargetError):
                    if self._names_of(device.serial) == self._names:
                        found.append(device.serial)
        return found[0] if len(found) == 1 else None

    def _names_of(self, serial: str) -> str:
        """The number of the device and of its installation: cheap devices all have the same number."""
        answer = bytearray()
        channel = self._open(serial, "getprop ro.serialno; settings get secure android_id")
        with contextlib.closing(channel), contextlib.suppress(TimeoutError):
            while (chunk := channel.receive(_ANSWER_S)) is not None:
                answer += chunk.data if chunk.stream == "out" else b""
        return answer.decode("utf-8", errors="replace").strip()


class AdbChannel:
    """A command by `shell,v2`: packets of a stream's number, a length and that many bytes."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self._socket = connection
        self._name = name
        self._buffer = bytearray()
        self._over = False

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            self._write(_HEADER.pack(_STDIN, len(piece)) + piece)

    def end_input(self) -> None:
        self._write(_HEADER.pack(_END_INPUT, 0))

    def receive(self, timeout_s: float) -> Chunk | None:
        while not self._over:
            packet = self._packet()
            if packet is None:
                self._read(timeout_s)
                continue
            stream, data = packet
            if stream == _STDOUT and data:
                return Chunk("out", data)
            if stream == _STDERR and data:
                return Chunk("err", data)
            if stream == _EXIT:
                self._over = True
        return None

    def close(self) -> None:
        self._socket.close()

    def _packet(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < _HEADER.size:
            return None
        stream, size = _HEADER.unpack_from(self._buffer)
        if stream not in (_STDOUT, _STDERR, _EXIT) or size > _LONGEST_PACKET:
            raise TargetLost(f"{self._name}: a garbled answer: {bytes(self._buffer[:20])!r}")
        if len(self._buffer) < _HEADER.size + size:
            return None
        data = bytes(self._buffer[_HEADER.size : _HEADER.size + size])
        del self._buffer[: _HEADER.size + size]
        return stream, data

    def _read(self, timeout_s: float) -> None:
        try:
            ready, _, _ = select.select([self._socket], [], [], timeout_s)
            if not ready:
                raise TimeoutError
            data = self._socket.recv(1 << 18)
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            raise self._lost() from error
        if not data:
            raise self._lost()
        self._buffer += data

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost() from error

    def _lost(self) -> TargetLost:
        return TargetLost(f"{self._name}: the adb link broke", hint="see: meltrepro devices")


def _request(server: socket.socket, request: str, name: str = "adb server") -> None:
    """Send a request; raises `TargetError` with the server's reason where it refuses, `TargetLost` where it is gone."""
    try:
        data = request.encode()
    except UnicodeEncodeError as error:
        raise TargetError(f"a request to the adb server is no text: {request[:80]!r}") from error
    if len(data) > _LONGEST_REQUEST:
        raise TargetError(f"a request to the adb server has {len(data)} bytes; at most {_LONGEST_REQUEST} can be sent")
    try:
        server.sendall(f"{len(data):04x}".encode() + data)
    except OSError as error:
        raise TargetLost(f"{name}: the adb server went away") from error
    answer = _exactly(server, 4)
    if answer == b"OKAY":
        return
    if answer != b"FAIL":
        raise TargetError(f"{name}: a garbled answer of the adb server: {answer!r}")
    reason = _block(server)
    gone = any(word in reason for word in ("not found", "offline", "closed", "connecting"))
    raise (TargetLost if gone else TargetError)(f"{name}: {reason}", hint="see: meltrepro devices")


def _block(server: socket.socket) -> str:
    """A text behind its length in four hexadecimal digits."""
    size = _exactly(server, 4)
    try:
        return _exactly(server, int(size, 16)).decode("utf-8", errors="replace")
    except ValueError as error:
        raise TargetError(f"a garbled answer of the adb server: {size!r}") from error


def _exactly(server: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            part = server.recv(size - len(data))
        except OSError as error:
            raise TargetLost(f"the adb server does not answer: {error}") from error
        if not part:
            raise TargetLost("the adb server closed the connection")
        data += part
    return data
