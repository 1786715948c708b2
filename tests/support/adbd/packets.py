"""Packets of the adb protocol: a header of 24 bytes, then data."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE"
COMMANDS = frozenset({CNXN, AUTH, OPEN, OKAY, WRTE, CLSE})
VERSION = 0x01000001
"""The first version in which checksums of data are not looked at."""
MOST_DATA = 1 << 20
AUTH_TOKEN = 1
"""Kind of an `AUTH` packet: something to sign."""
TOKEN_BYTES = 20
FEATURES = ("shell_v2", "stat_v2", "ls_v2", "fixed_push_mkdir", "sendrecv_v2")
"""What is offered to servers: streams told apart, sizes beyond 32 bit; no compression, no windows."""
_HEADER = struct.Struct("<4sIIIII")


class Packet(NamedTuple):
    """One packet; what its arguments mean depends on its command."""

    command: bytes
    arg0: int
    arg1: int
    data: bytes = b""

    def pack(self) -> bytes:
        magic = int.from_bytes(self.command, "little") ^ 0xFFFFFFFF
        checksum = sum(self.data) if self.command in (CNXN, AUTH) else 0  # before versions are agreed upon
        return _HEADER.pack(self.command, self.arg0, self.arg1, len(self.data), checksum, magic) + self.data


def read_packet(connection: socket.socket) -> Packet | None:
    """The next packet; `None` where the connection has ended or something else than packets comes."""
    header = _exactly(connection, _HEADER.size)
    if header is None:
        return None
    command, arg0, arg1, size, _, magic = _HEADER.unpack(header)
    if command not in COMMANDS or magic != int.from_bytes(command, "little") ^ 0xFFFFFFFF or size > MOST_DATA:
        return None
    data = _exactly(connection, size)
    return None if data is None else Packet(command, arg0, arg1, data)


def banner(properties: dict[str, str], offered: bytes) -> bytes:
    """What a device says of itself to a server that has offered some features in its own banner."""
    told = dict(part.split("=", 1) for part in offered.decode(errors="replace").rstrip("\0").split(";") if "=" in part)
    wanted = told.get("host::features", told.get("features", "")).split(",")
    words = [f"{name}={properties[name]}" for name in _NAMES if name in properties]
    words.append("features=" + ",".join(feature for feature in FEATURES if feature in wanted))
    return ("device::" + ";".join(words)).encode()  # without a NUL, which would belong to the last feature


_NAMES = ("ro.product.name", "ro.product.model", "ro.product.device")


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            part = connection.recv(min(size - len(data), 1 << 18))
        except OSError:
            return None
        if not part:
            return None
        data += part
    return bytes(data)
