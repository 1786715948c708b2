"""A command on a device by adb's protocol `shell,v2`, which tells its streams apart and says how it ended."""

from __future__ import annotations

import select
import socket
import struct

from meltrepro.errors import TargetLost
from meltrepro.targets.remote.link import Chunk

_STDIN, _STDOUT, _STDERR, _EXIT, _END_INPUT = range(5)
_HEADER = struct.Struct("<BI")
_PIECE = 64 << 10
_LONGEST_PACKET = 16 << 20
"""Bytes; adb's own packets of a stream have at most 1 MiB."""


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
