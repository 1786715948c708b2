"""Pieces of a GGUF header as bytes, written here so that no library's ways of writing can change a digest."""

from __future__ import annotations

import struct
from collections.abc import Sequence

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
"""Types of values."""
Plain = str | bool | int | float


def entry(key: str, value: Plain) -> bytes:
    """A key and its value; whole numbers have 32 bits without a sign."""
    match value:
        case str():
            kind, content = STRING, text(value)
        case bool():
            kind, content = BOOL, struct.pack("<?", value)
        case int():
            kind, content = UINT32, struct.pack("<I", value)
        case float():
            kind, content = FLOAT32, struct.pack("<f", value)
    return text(key) + struct.pack("<I", kind) + content


def array(key: str, kind: int, items: Sequence[bytes]) -> bytes:
    """A key and a list of values of one type, which are bytes already."""
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(items)) + b"".join(items)


def text(content: str | bytes) -> bytes:
    """A text with its length before it."""
    encoded = content.encode() if isinstance(content, str) else content
    return struct.pack("<Q", len(encoded)) + encoded
