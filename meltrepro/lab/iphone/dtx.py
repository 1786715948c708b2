"""DTX, the protocol of developer services: calls and answers on numbered channels, in fragments of messages."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from meltrepro.lab.iphone import archive
from meltrepro.lab.iphone.frames import Malformed

FRAGMENT = struct.Struct("<IIHHIIIiI")
MAGIC = 0x1F3D5B79
_PAYLOAD = struct.Struct("<IIII")
_DICTIONARY = struct.Struct("<IIQ")
_U32 = struct.Struct("<I")
LARGEST = 16 << 20
"""Bytes of one message."""
_ASKS = 1
"""The flag of a message that wants an answer."""
_DICTIONARY_TYPE = 0x1F0


class Kind(IntEnum):
    ok = 0
    data = 1
    call = 2
    value = 3
    error = 4
    barrier = 5


class _Type(IntEnum):
    text = 1
    archive = 2
    int32 = 3
    int64 = 6
    double = 9
    nothing = 10


@dataclass(frozen=True)
class Fragment:
    index: int
    count: int
    size: int
    number: int
    turn: int
    """0 for a message that begins a conversation, 1 for the answer to it."""
    channel: int
    asks: bool

    @property
    def body(self) -> int:
        """How many bytes follow: a first part of several says only how large all of them are."""
        return 0 if self.count > 1 and self.index == 0 else self.size


@dataclass(frozen=True)
class Message:
    """One message; `value` is a call's name, or what is told."""

    kind: Kind
    channel: int
    value: Any = None
    arguments: tuple[Any, ...] = ()
    number: int = 0
    turn: int = 0
    asks: bool = False

    def answer(self, value: Any = None) -> Message:
        """What answers this message: a value, an error, or that it is done."""
        kind = Kind.ok if value is None else Kind.error if isinstance(value, archive.Error) else Kind.value
        return Message(kind, self.channel, value, number=self.number, turn=self.turn + 1)


def read_fragment(header: bytes) -> tuple[Fragment, int]:
    """A header, and how many bytes of it are still to come; raises `Malformed`."""
    magic, length, index, count, size, number, turn, channel, flags = FRAGMENT.unpack(header)
    if magic != MAGIC:
        raise Malformed(f"a message that begins with {magic:#x}")
    if not FRAGMENT.size <= length <= 1024 or not index < count or size > LARGEST:
        raise Malformed(f"part {index} of {count}, of {size} bytes behind {length}")
    return Fragment(index, count, size, number, turn, channel, bool(flags & _ASKS)), length - FRAGMENT.size


@dataclass
class Assembly:
    """Messages of which some parts are still to come."""

    _parts: dict[tuple[int, int], bytearray] = field(default_factory=dict)
    _sizes: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, fragment: Fragment, body: bytes) -> Message | None:
        """The message that a part completes, if it does; raises `Malformed`."""
        if fragment.count == 1:
            return read_message(fragment, body)
        key = (fragment.number, fragment.turn)
        if fragment.index == 0:
            if len(self._parts) >= 16:
                raise Malformed("too many messages at once")
            self._parts[key], self._sizes[key] = bytearray(), fragment.size
            return None
        if key not in self._parts:
            raise Malformed("a part of a message that has not begun")
        self._parts[key] += body
        if len(self._parts[key]) > self._sizes[key]:
            raise Malformed("more parts than were promised")
        if fragment.index < fragment.count - 1:
            return None
        del self._sizes[key]
        return read_message(fragment, bytes(self._parts.pop(key)))


def read_message(fragment: Fragment, data: bytes) -> Message:
    """The message of a header and all that followed; raises `Malformed`."""
    if len(data) < _PAYLOAD.size:
        raise Malformed(f"a message of {len(data)} bytes")
    kind, auxiliary, whole, _ = _PAYLOAD.unpack_from(data)
    if not auxiliary <= whole == len(data) - _PAYLOAD.size:
        raise Malformed(f"a message of {len(data)} bytes that says {whole}, {auxiliary} of them arguments")
    begin = _PAYLOAD.size
    try:
        known = Kind(kind & 0xFF)
    except ValueError as error:
        raise Malformed(f"a message of kind {kind}") from error
    arguments = read_arguments(data[begin : begin + auxiliary])
    rest = data[begin + auxiliary :]
    value = rest if known is Kind.data else archive.unpack(rest) if rest else None
    return Message(known, fragment.channel, value, tuple(arguments), fragment.number, fragment.turn, fragment.asks)


def read_arguments(data: bytes) -> list[Any]:
    """What a call is given; raises `Malformed`."""
    if not data:
        return []
    found: list[Any] = []
    try:
        kind, _, length = _DICTIONARY.unpack_from(data)
        if kind & 0xFF != _DICTIONARY_TYPE & 0xFF or length > len(data) - _DICTIONARY.size:
            raise Malformed("arguments without their header")
        place, end = _DICTIONARY.size, _DICTIONARY.size + length
        while place < end:
            _, place = _read_one(data, place)  # the key, which is nothing for arguments that stand in a row
            value, place = _read_one(data, place)
            found.append(value)
        if place > end:
            raise Malformed("arguments that go on behind their end")
    except struct.error as error:
        raise Malformed(f"arguments that end too early: {error}") from error
    return found


def _read_one(data: bytes, place: int) -> tuple[Any, int]:
    (kind,) = _U32.unpack_from(data, place)
    place += _U32.size
    match kind & 0xFF:
        case _Type.nothing:
            return None, place
        case _Type.int32:
            return struct.unpack_from("<i", data, place)[0], place + 4
        case _Type.int64:
            return struct.unpack_from("<q", data, place)[0], place + 8
        case _Type.double:
            return struct.unpack_from("<d", data, place)[0], place + 8
        case _Type.text | _Type.archive:
            (length,) = _U32.unpack_from(data, place)
            body = data[place + _U32.size : place + _U32.size + length]
            if len(body) < length:
                raise Malformed("an argument that ends too early")
            place += _U32.size + length
            if kind & 0xFF == _Type.text:
                return body.decode("utf-8", "replace"), place
            return archive.unpack(body) if body else None, place
    raise Malformed(f"an argument of type {kind}")


def write_arguments(arguments: Sequence[Any]) -> bytes:
    if not arguments:
        return b""
    body = bytearray()
    for each in arguments:
        packed = b"" if each is None else archive.pack(each)
        body += struct.pack("<III", _Type.nothing, _Type.archive, len(packed)) + packed
    return _DICTIONARY.pack(_DICTIONARY_TYPE, 0, len(body)) + bytes(body)


def write_message(message: Message) -> bytes:
    auxiliary = write_arguments(message.arguments)
    rest = b"" if message.value is None else archive.pack(message.value)
    size = len(auxiliary) + len(rest)
    data = _PAYLOAD.pack(message.kind, len(auxiliary), size, 0) + auxiliary + rest
    flags = _ASKS if message.asks else 0
    header = FRAGMENT.pack(MAGIC, FRAGMENT.size, 0, 1, len(data), message.number, message.turn, message.channel, flags)
    return header + data
