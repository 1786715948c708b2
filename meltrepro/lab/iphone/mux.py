"""usbmuxd: tells hosts what is attached, keeps their pair records, and leads their connections to a device."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any

from meltrepro.lab.iphone import frames
from meltrepro.lab.iphone.frames import Malformed
from meltrepro.lab.iphone.stream import Mishaps, Stream, StreamEnded

SERVICE = "usbmuxd"
DEVICE_ID = 1
_LAST_S = 5.0
"""How long the end of connections may take."""
_RECORD = re.compile(r"[A-Za-z0-9-]{1,64}")

Taker = Callable[[Stream], None]
Door = Callable[[int], Taker | None]
"""Given a port of the device, who takes a connection to it."""


class Result(IntEnum):
    ok = 0
    bad_command = 1
    bad_device = 2
    refused = 3
    bad_version = 6


class Mux:
    """Listens at a loopback port from `start` to `stop`."""

    def __init__(self, folder: Path, udid: str, mishaps: Mishaps, door: Door) -> None:
        """`folder` keeps pair records."""
        self.port = 0
        self._folder = folder
        self._udid = udid
        self._mishaps = mishaps
        self._door = door
        self._buid = str(uuid.uuid5(uuid.NAMESPACE_OID, udid)).upper()
        self._guard = threading.Lock()
        self._listener: socket.socket | None = None
        self._open: dict[Stream, threading.Thread] = {}
        self._inside: set[Stream] = set()
        """Those that lead to the device."""
        self._told: set[Stream] = set()
        """Hosts that want to hear what is attached and what is not."""
        self._attached = True

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen, at the same port as before where it was started before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), name=SERVICE, daemon=True).start()

    def stop(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._guard:
            ended, self._open = self._open, {}
        for stream in ended:
            stream.abort()
        for thread in ended.values():
            thread.join(_LAST_S)

    def detach(self) -> None:
        """The cable is pulled: connections to the device end, and it is not listed."""
        with self._guard:
            self._attached = False
            inside, told = list(self._inside), list(self._told)
        for stream in inside:
            stream.abort()
        self._tell(told, {"MessageType": "Detached", "DeviceID": DEVICE_ID})

    def attach(self) -> None:
        with self._guard:
            told = [] if self._attached else list(self._told)
            self._attached = True
        self._tell(told, self._device())

    def _tell(self, told: Iterable[Stream], news: dict[str, Any]) -> None:
        for stream in told:
            with contextlib.suppress(StreamEnded):
                stream.send(frames.mux_packet(news, 0))

    # -- connections ------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = Stream(connection, self._mishaps, SERVICE)
            thread = threading.Thread(target=self._serve, args=(stream,), name=SERVICE, daemon=True)
            with self._guard:
                if self._listener is not listener:  # it was switched off meanwhile
                    stream.close()
                    return
                self._open[stream] = thread
                thread.start()

    def _serve(self, stream: Stream) -> None:
        try:
            take = self._talk(stream)
            with self._guard:
                self._inside.add(stream)
                attached = self._attached
            if attached:
                take(stream)
        except (StreamEnded, Malformed):
            pass
        finally:
            with self._guard:
                self._open.pop(stream, None)
                self._told.discard(stream)
                self._inside.discard(stream)
            stream.close()

    def _talk(self, stream: Stream) -> Taker:
        """Answer until the host wants to be connected; returns who takes the connection."""
        while True:
            header = stream.read(frames.MUX_HEADER.size)
            packet = frames.read_mux(header, stream.read(frames.mux_length(header)))
            if packet.kind != frames.MUX_PLIST:
                self._result(stream, packet.tag, Result.bad_version)
                continue
            if packet.body.get("MessageType") == "Connect":
                take = self._connect(packet.body)
                if not callable(take):
                    self._result(stream, packet.tag, take)
                    continue
                self._result(stream, packet.tag, Result.ok)
                return take
            answer = self._answer(packet.body)
            if isinstance(answer, Result):
                self._result(stream, packet.tag, answer)
            else:
                stream.send(frames.mux_packet(answer, packet.tag))
            if packet.body.get("MessageType") == "Listen":
                self._listen(stream)

    def _connect(self, request: dict[str, Any]) -> Taker | Result:
        port = request.get("PortNumber")
        if not isinstance(port, int) or not 0 <= port <= 0xFFFF:
            return Result.bad_command
        if request.get("DeviceID") != DEVICE_ID or not self._attached:
            return Result.bad_device
        return self._door(socket.ntohs(port)) or Result.refused

    def _answer(self, request: dict[str, Any]) -> dict[str, Any] | Result:
        match request.get("MessageType"):
            case "ListDevices":
                return {"DeviceList": [self._device()] if self._attached else []}
            case "ReadBUID":
                return {"BUID": self._buid}
            case "Listen":
                return Result.ok
            case "ReadPairRecord":
                with contextlib.suppress(OSError):
                    return {"PairRecordData": self._record(request).read_bytes()}
                return Result.bad_device
            case "SavePairRecord":
                data = request.get("PairRecordData")
                if not isinstance(data, bytes):
                    return Result.bad_command
                self._record(request).write_bytes(data)
                return Result.ok
            case "DeletePairRecord":
                self._record(request).unlink(missing_ok=True)
                return Result.ok
        return Result.bad_command

    def _listen(self, stream: Stream) -> None:
        with self._guard:
            self._told.add(stream)
            attached = self._attached
        if attached:
            stream.send(frames.mux_packet(self._device(), 0))

    def _device(self) -> dict[str, Any]:
        return {
            "MessageType": "Attached",
            "DeviceID": DEVICE_ID,
            "Properties": {
                "ConnectionSpeed": 480000000,
                "ConnectionType": "USB",
                "DeviceID": DEVICE_ID,
                "LocationID": 0,
                "MeltreproVirtual": True,
                "ProductID": 0x12A8,
                "SerialNumber": self._udid,
                "USBSerialNumber": self._udid.replace("-", ""),
            },
        }

    def _record(self, request: dict[str, Any]) -> Path:
        name = str(request.get("PairRecordID", ""))
        if not _RECORD.fullmatch(name):
            raise Malformed(f"{name!r} names no pair record")
        return self._folder / f"{name}.plist"

    def _result(self, stream: Stream, tag: int, result: Result) -> None:
        stream.send(frames.mux_packet({"MessageType": "Result", "Number": int(result)}, tag))
