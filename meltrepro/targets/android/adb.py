"""Android devices behind an adb server: which there are, in which state, and a link to each.

adb's own client is not used: its shell neither streams with a status nor tells a lost device from an empty answer, and its
push is several times slower than adb's (docs/devices/android.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.android import adb_server
from meltrepro.targets.android.channel import AdbChannel

PORT = 5037
"""Where adb servers listen unless told otherwise."""
SOCKET, ADDRESS, SERVER_PORT = "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT"
"""Variables by which adb is told of another server; the first one wins."""
_FORMS = "tcp:HOST:PORT, tcp:PORT, localfilesystem:PATH or localabstract:NAME"
_VERSION = 41
"""Of the protocol between client and server; a client that finds another one kills the server, and we never do."""
_LONGEST_REQUEST = 0xFFFF
_CONNECT_S, _ANSWER_S = 5.0, 20.0
_FIXES = {
    "unauthorized": "unlock the phone and allow USB debugging for this computer; without a question on its screen, switch "
    "USB debugging off and on",
    "authorizing": "wait a moment, then unlock the phone and allow USB debugging",
    "offline": "plug it in again; for wireless adb: adb disconnect, then adb connect",
    "no permissions": "install udev rules for Android (Debian: android-sdk-platform-tools-common), then plug it in again",
    "recovery": "the phone is in its recovery; reboot it",
    "sideload": "the phone waits for an update; reboot it",
    "bootloader": "the phone is in its boot loader; reboot it",
    "rescue": "the phone is in its rescue mode; reboot it",
    "connecting": "wait a moment",
    "detached": "another program has taken it from adb: adb attach",
    "host": "this is no device but a computer",
}


_NAMELESS = ("(no serial number)", "?")
"""How adb's lists begin where a device tells no serial number, or may not be asked."""


@dataclass(frozen=True)
class AdbDevice:
    """A device as an adb server lists it."""

    serial: str
    state: str
    told: tuple[str, ...] = ()
    """What else adb calls it (`usb:1-2`, `model:Pixel_8`, `transport_id:3`), where its serial number is not its own."""

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

    @property
    def name(self) -> str:
        """What it alone is called: its serial number, else where it is plugged in, else its number for this once."""
        places = [word for kind in ("usb:", "transport_id:") for word in self.told if word.startswith(kind)]
        return places[0] if places else self.serial

    def is_called(self, name: str) -> bool:
        """Whether adb would take a name for this device's."""
        address = self.serial.rpartition(":")[0] if is_wireless(self.serial) else None
        return name in (self.serial, *self.told) or (address is not None and name.removeprefix("tcp:") == address)

    @property
    def described(self) -> str:
        """Its name, and what else adb knows of it."""
        return f"{self.name} ({', '.join((self.state, *self.told))})" if self.told else self.name


@dataclass(frozen=True)
class Server:
    """An adb server; never started anew or killed while somebody else may use it."""

    port: int = PORT
    host: str = "127.0.0.1"
    path: str | None = None
    """Of a server at a local socket: its file, or its abstract name behind a NUL."""
    variable: str = field(default="", compare=False)
    """The variable that names it."""
    replaceable: bool = field(default=False, compare=False)
    """Whether one of this process may stand in where none answers: nobody has said where it is."""
    problem: str = field(default="", compare=False)
    """Why the variable names none."""

    @staticmethod
    def usual() -> Server:
        """The one that adb itself would use."""
        said = {name: os.environ.get(name, "").strip() for name in (SOCKET, ADDRESS, SERVER_PORT)}
        if said[SOCKET]:
            return _at_socket(said[SOCKET])
        port = _port(said[SERVER_PORT] or str(PORT))
        if port is None:
            return _no_server(SERVER_PORT, said[SERVER_PORT], "a number from 1 to 65535")
        if said[ADDRESS]:
            return Server(port, said[ADDRESS].strip("[]"), variable=ADDRESS)
        return Server(port, variable=SERVER_PORT if said[SERVER_PORT] else "", replaceable=True)

    @property
    def place(self) -> str:
        """Where it is, and by which variable."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        at = f"{host}:{self.port}" if self.path is None else self.path.replace("\0", "@")
        return f"{at} ({self.variable})" if self.variable else at

    def devices(self) -> list[AdbDevice]:
        """What is attached, in whatever state; raises `TargetError`, `TargetLost`."""
        found = self._listed()
        times = Counter(device.serial for device in found)
        shared = {serial for serial, n in times.items() if n > 1 or serial.startswith(_NAMELESS)}
        if not shared:
            return found
        return [device if device.serial in shared else replace(device, told=()) for device in self._detailed(found)]

    def find(self, name: str | None) -> AdbDevice:
        """The device that is meant, in whatever state; the only one that is attached without a name.

        Raises `TargetError` where several are called so, `TargetLost` where it is not attached now.
        """
        found = self.devices()
        meant = found if name is None else [device for device in found if device.is_called(name)]
        if not meant and name is not None and ":" in name:
            meant = [device for device in self._detailed(self._listed()) if device.is_called(name)]
        if not meant:
            what = "no Android device" if name is None else name
            is_not = "is attached" if name is None else "is not attached"
            where = f" to the adb server at {self.place}" if self.variable else ""
            raise TargetLost(f"{what} {is_not}{where}", hint="see: meltrepro devices")
        if len(meant) > 1:
            names = ", ".join(device.described for device in meant)
            what = "several devices are attached" if name is None else f"{len(meant)} devices are called {name}"
            example = f", such as serial: {meant[0].name}" if meant[0].told else ""
            raise TargetError(f"{what}: {names}", hint=f"name one of them by 'serial'{example}")
        return meant[0]

    def require(self, serial: str | None) -> str:
        """The name of the device that is meant, where it can be used.

        Raises `TargetError` where somebody has to help, `TargetLost` where it is not attached now.
        """
        device = self.find(serial)
        name = serial or device.name
        if device.state in ("offline", "connecting", "authorizing"):
            raise TargetLost(f"{name} is {device.state}", hint=device.fix)
        if not device.usable:
            raise TargetError(f"{name} is {device.state}", hint=device.fix)
        return device.name

    def ask(self, request: str) -> str:
        """The answer to a question to the server itself; raises `TargetError`, `TargetLost`."""
        with contextlib.closing(self.connect()) as server:
            _request(server, request)
            return _block(server)

    def answers(self) -> bool:
        """Whether anything listens there."""
        try:
            self.connect().close()
        except TargetError:
            return False
        return True

    def connect(self) -> socket.socket:
        """A socket to the server; raises `TargetLost` where none answers, `TargetError` where a variable names none."""
        if self.problem:
            raise TargetError(self.problem, hint=f"set {self.variable} right, or unset it")
        try:
            server = self._connected()
        except (OSError, ValueError) as error:  # the latter of names that no host can have
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise TargetLost(f"no adb server answers at {self.place}: {reason}", hint=self._how_to_start()) from error
        server.settimeout(_ANSWER_S)
        return server

    def ready(self) -> Server:
        """One that can be talked to: this one, or, where it is the usual one and the user runs none, one of this process.

        Raises what `check` raises.
        """
        server = self
        if self.replaceable and not self.answers():
            server = Server(adb_server.own_port())
        server.check()
        return server

    def check(self) -> None:
        """See to it that it answers and can be talked to.

        Raises `TargetLost` where none answers, `TargetError` where it speaks another version of the protocol.
        """
        said = self.ask("host:version")
        if not re.fullmatch(r"[0-9a-fA-F]{1,8}", said):
            raise TargetError(
                f"what answers at {self.place} is no adb server: {said[:80]!r}",
                hint=f"is {self.variable or PORT} right?",
            )
        if int(said, 16) != _VERSION:
            raise TargetError(
                f"the adb server at {self.place} speaks version {int(said, 16)} of the protocol, not {_VERSION}",
                hint=f"another tool runs it with another adb; use one adb for both, or set {SERVER_PORT}",
            )

    def _connected(self) -> socket.socket:
        if self.path is None:
            server = socket.create_connection((self.host, self.port), timeout=_CONNECT_S)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return server
        server = socket.socket(socket.AF_UNIX)
        try:
            server.settimeout(_CONNECT_S)
            server.connect(self.path)
        except BaseException:
            server.close()
            raise
        return server

    def _how_to_start(self) -> str:
        """A server that somebody has named is never started here: it would see other devices."""
        if self.variable and not self.replaceable:
            return f"start it there with: adb -a nodaemon server; or unset {self.variable}"
        return "start one with: adb start-server"

    def _listed(self) -> list[AdbDevice]:
        lines = self.ask("host:devices").splitlines()
        pairs = (line.partition("\t") for line in lines if "\t" in line)
        return [AdbDevice(serial, state) for serial, _, state in pairs]

    def _detailed(self, found: Sequence[AdbDevice]) -> list[AdbDevice]:
        """The same with what else adb calls them; without that where the list has changed meanwhile."""
        known = {re.sub(r"\s+", " ", f"{device.serial} {device.state}"): device for device in found}
        detailed = []
        for line in self.ask("host:devices-l").splitlines():
            text = re.sub(r"\s+", " ", line).strip()
            begin = max((begin for begin in known if f"{text} ".startswith(f"{begin} ")), key=len, default=None)
            if begin is not None:
                detailed.append(replace(known[begin], told=tuple(re.findall(r"\w+:\S+", text[len(begin) :]))))
        return detailed if len(detailed) == len(found) else list(found)


def _at_socket(text: str) -> Server:
    """The server that `ADB_SERVER_SOCKET` names, as adb reads it (socket_spec.cpp)."""
    kind, _, rest = text.partition(":")
    if kind == "tcp":
        host, _, digits = rest.rpartition(":")
        port = _port(digits)
        if port is not None and not re.search(r"[\s/@]", host):
            name = host.removeprefix("[").removesuffix("]")
            return Server(port, name, variable=SOCKET) if name else Server(port, variable=SOCKET, replaceable=True)
    if rest and kind in ("local", "localfilesystem"):
        return Server(path=rest, variable=SOCKET)
    if rest and kind == "localabstract":
        return Server(path=f"\0{rest}", variable=SOCKET)
    return _no_server(SOCKET, text, _FORMS)


def _no_server(variable: str, text: str, expected: str) -> Server:
    return Server(
        variable=variable, problem=f"{variable} is {text[:80]!r}, which names no adb server; expected {expected}"
    )


def _port(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) < 1 << 16 else None


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
        self._too_old = False
        self.doubled = False
        """Whether another device of the same serial number was attached when this one was met."""

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
        except TargetError:
            serial = self._elsewhere()
            if serial is None:
                raise
            self._serial = serial
            return self._open(serial, command)

    def _open(self, serial: str, command: str) -> AdbChannel:
        if self._too_old:
            raise _too_old(serial)
        server = self._server.connect()
        try:
            try:
                _request(server, _transport(serial), serial)
            except TargetError:
                self._server.require(serial)  # knows better what is wrong and what to do
                raise
            try:
                _request(server, f"shell,v2,raw:{command}", serial)
            except TargetError as error:
                if self._has_no_shell(serial):
                    self._too_old = True
                    raise _too_old(serial) from error
                raise
        except BaseException:
            server.close()
            raise
        return AdbChannel(server, serial)

    def _has_no_shell(self, serial: str) -> bool:
        """Whether the device's adbd is older than the protocol; a device that cannot be asked is only lost."""
        try:
            told = self._server.ask(f"{_of_device(serial)}:features")
        except TargetError:
            return False
        return "shell_v2" not in told.split(",")

    def _learn(self) -> None:
        """Find the device, and ask it for its names while it is there."""
        serial = self._server.find(self._serial).serial
        self.doubled = sum(device.serial == serial for device in self._server.devices()) > 1
        self._serial = self._server.require(self._serial)
        with contextlib.suppress(TargetLost):
            self._names = self._names_of(self._serial)

    def _elsewhere(self) -> str | None:
        """What a device is called now that calls itself the same, where there is one such.

        Of a device that adb cannot call by a serial number of its own: wireless, or one of several of the same.
        """
        serial = self._serial
        if not self._names or serial is None:
            return None
        devices = self._server.devices()
        shared = any(device.told and device.is_called(serial) for device in devices)
        if not (is_wireless(serial) or serial.startswith(("usb:", "transport_id:")) or shared):
            return None
        found = []
        for device in devices:
            if device.usable and device.name != serial:
                with contextlib.suppress(TargetError):
                    if self._names_of(device.name) == self._names:
                        found.append(device.name)
        return found[0] if len(found) == 1 else None

    def _names_of(self, serial: str) -> str:
        """The number of the device and of its installation: cheap devices all have the same number."""
        answer = bytearray()
        channel = self._open(serial, "getprop ro.serialno; settings get secure android_id")
        with contextlib.closing(channel), contextlib.suppress(TimeoutError):
            while (chunk := channel.receive(_ANSWER_S)) is not None:
                answer += chunk.data if chunk.stream == "out" else b""
        return answer.decode("utf-8", errors="replace").strip()


def _transport(name: str) -> str:
    """The request that leads to a device of this name."""
    number = name.removeprefix("transport_id:")
    return f"host:transport:{name}" if number == name else f"host:transport-id:{number}"


def _of_device(name: str) -> str:
    """How a question about a device of this name begins."""
    number = name.removeprefix("transport_id:")
    return f"host-serial:{name}" if number == name else f"host-transport-id:{number}"


def _too_old(serial: str) -> TargetError:
    return TargetError(
        f"{serial}: Android 7 or later is needed: its adbd has no shell v2",
        hint="update the phone, or take another one",
    )


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
