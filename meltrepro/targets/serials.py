"""Serial numbers that are no device's own: makers of cheap devices, and emulators, give one to all of a kind."""

from __future__ import annotations

import re

_PLACEHOLDERS = {"unknown", "default", "null", "none", "serial", "serialno", "nosn", "test", "generic", "uninitialized"}
_COUNTED = "0123456789abcdef" * 4, "1234567890abcdef" * 4, "1234567890" * 6, "abcdef0123456789" * 4, "9876543210" * 6
"""What somebody typed who had to type something."""


def is_own(serial: str) -> bool:
    """Whether a serial number can be of one device alone."""
    plain = re.sub(r"[\W_]", "", serial.lower())
    if len(plain) < 4 or len(set(plain)) < 3 or plain in _PLACEHOLDERS or re.fullmatch(r"emulator[0-9x]+", plain):
        return False
    return not any(plain in counted for counted in _COUNTED)
