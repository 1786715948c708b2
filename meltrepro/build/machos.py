"""What a Mach-O file is for, by its headers (Apple's mach-o/loader.h and mach-o/fat.h); nothing of it is executed."""

from __future__ import annotations

import struct

_THIN, _FAT = 0xFEEDFACF, 0xCAFEBABE
_ARM64 = 0x0100000C
_BUILD_VERSION = 0x32
PLATFORMS = {1: "macOS", 2: "iOS", 3: "tvOS", 4: "watchOS", 6: "Mac Catalyst", 7: "the iOS simulator", 11: "visionOS"}
_MOST_COMMANDS, _MOST_SLICES = 4096, 16


class NoMachO(ValueError):
    """A file is none, or is for something else; says what it is."""


def require_ios(data: bytes) -> None:
    """Raise `NoMachO` unless this is a Mach-O file with code for arm64 on iPhones."""
    for part in _slices(data):
        found = _platform(part)
        if found is not None:
            if found != 2:
                raise NoMachO(f"is for {PLATFORMS.get(found, f'platform {found}')}, not for iPhones")
            return
    raise NoMachO("holds no code for arm64")


def _slices(data: bytes) -> list[bytes]:
    """The file, or the files in a universal one."""
    try:
        (magic,) = struct.unpack_from(">I", data)
        if magic != _FAT:
            return [data]
        (count,) = struct.unpack_from(">I", data, 4)
        if count > _MOST_SLICES:
            raise NoMachO("is no Mach-O file")
        entries = [struct.unpack_from(">5I", data, 8 + 20 * place) for place in range(count)]
    except struct.error:
        raise NoMachO("is no Mach-O file") from None
    return [data[offset : offset + size] for _, _, offset, size, _ in entries]


def _platform(data: bytes) -> int | None:
    """The platform of an arm64 file; `None` for one of another machine."""
    try:
        magic, machine, _, _, count = struct.unpack_from("<5I", data)
        if magic != _THIN:
            raise NoMachO("is no Mach-O file of 64 bits")
        if machine != _ARM64:
            return None
        offset = 32
        for _ in range(min(count, _MOST_COMMANDS)):
            command, size = struct.unpack_from("<2I", data, offset)
            if command == _BUILD_VERSION:
                return int(struct.unpack_from("<I", data, offset + 8)[0])
            if size < 8:
                break
            offset += size
    except struct.error:
        raise NoMachO("is a Mach-O file that was cut short") from None
    raise NoMachO("does not say which platform it is for")
