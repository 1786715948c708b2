"""How messages lie on the wire: usbmuxd's packets, lockdownd's property lists, the file service's operations.

Everything here works on bytes alone; `stream.py` moves them.
"""

from __future__ import annotations

import plistlib
import struct
from dataclasses import dataclass
from typing import Any
from xml.parsers.expat import ExpatError

LARGEST_PLIST = 64 << 20
"""Bytes that a property list may take; lengths are sent by a stranger."""
MUX_HEADER = struct.Struct("<IIII")
MUX_PLIST = 8
"""The kind of a packet that holds a property list; every other kind is of the binary protocol, which nobody speaks now."""
AFC_HEADER = struct.Struct("<8sQQQQ")
AFC_MAGIC = b"CFA6LPAA"


UNREADABLE = (
    *(plistlib.InvalidFileException, ExpatError, ValueError, TypeError, LookupError, AttributeError),
    *(OverflowError, RecursionError, MemoryError, struct.error),
)
"""What `plistlib` raises of bytes that are no property list."""


class Malformed(Exception):
    """What came is not what the protocol allows."""


@dataclass(frozen=True)
class MuxPacket:
    kind: int
    tag: int
    body: dict[str, Any]


@dataclass(frozen=True)
class AfcHeader:
    """What stands before every operation of the file service; its lengths count the header too."""

    whole: int
    head: int
    number: int
    operation: int

    @property
    def arguments(self) -> int:
        """Bytes of the operation's arguments."""
        return self.head - AFC_HEADER.size

    @property
    def payload(self) -> int:
        """Bytes of file contents behind the arguments."""
        return self.whole - self.head


def mux_packet(body: dict[str, Any], tag: int) -> bytes:
    """A property list as usbmuxd sends it."""
    data = plistlib.dumps(body)
    return MUX_HEADER.pack(MUX_HEADER.size + len(data), 1, MUX_PLIST, tag) + data


def mux_length(header: bytes) -> int:
    """How many bytes follow a header of usbmuxd; raises `Malformed`."""
    length = int(MUX_HEADER.unpack(header)[0]) - MUX_HEADER.size
    if not 0 <= length <= LARGEST_PLIST:
        raise Malformed(f"a packet of {length} bytes")
    return length


def read_mux(header: bytes, data: bytes) -> MuxPacket:
    """The packet of a header and what followed it; the body of another kind than a property list is empty."""
    _, _, kind, tag = MUX_HEADER.unpack(header)
    return MuxPacket(kind, tag, read_plist(data) if kind == MUX_PLIST else {})


def service_plist(body: dict[str, Any]) -> bytes:
    """A property list behind its length, as lockdownd and most services send it."""
    data = plistlib.dumps(body)
    return len(data).to_bytes(4, "big") + data


def service_length(header: bytes) -> int:
    """How many bytes of a property list follow; raises `Malformed`."""
    length = int.from_bytes(header, "big")
    if length > LARGEST_PLIST:
        raise Malformed(f"a property list of {length} bytes")
    return length


def read_plist(data: bytes) -> dict[str, Any]:
    """A property list, of either format, that is a dictionary; raises `Malformed`."""
    try:
        found = plistlib.loads(data)
    except UNREADABLE as error:
        raise Malformed(f"not a property list: {error!r}") from error
    if not isinstance(found, dict):
        raise Malformed(f"a property list that is no dictionary but {type(found).__name__}")
    return found


def afc_packet(number: int, operation: int, arguments: bytes = b"", payload: bytes = b"") -> bytes:
    head = AFC_HEADER.size + len(arguments)
    return AFC_HEADER.pack(AFC_MAGIC, head + len(payload), head, number, operation) + arguments + payload


def read_afc(header: bytes) -> AfcHeader:
    """What a header says; raises `Malformed`."""
    magic, whole, head, number, operation = AFC_HEADER.unpack(header)
    if magic != AFC_MAGIC:
        raise Malformed(f"a file operation that begins with {magic!r}")
    if not AFC_HEADER.size <= head <= whole:
        raise Malformed(f"a file operation of {whole} bytes with {head} at its head")
    if head > LARGEST_PLIST:
        raise Malformed(f"arguments of {head} bytes")
    return AfcHeader(whole, head, number, operation)


def strings(data: bytes) -> list[str]:
    """Strings that each end with a zero byte; what stands behind the last zero is one too."""
    parts = data.split(b"\0")
    if parts[-1] == b"":
        parts.pop()
    return [part.decode("utf-8", "surrogateescape") for part in parts]


def zero_ended(*texts: str) -> bytes:
    """Strings, each with a zero byte at its end."""
    return b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in texts)
