"""The file service's operations by number, how they end, and the ways to open a file."""

from __future__ import annotations

import errno
import os
import stat
import struct
from enum import IntEnum

U64 = struct.Struct("<Q")


class Op(IntEnum):
    status = 0x01
    data = 0x02
    read_folder = 0x03
    truncate = 0x07
    remove = 0x08
    make_folder = 0x09
    file_info = 0x0A
    device_info = 0x0B
    open = 0x0D
    opened = 0x0E
    read = 0x0F
    write = 0x10
    seek = 0x11
    tell = 0x12
    told = 0x13
    close = 0x14
    set_size = 0x15
    rename = 0x18
    lock = 0x1B
    link = 0x1C
    set_time = 0x1E
    remove_all = 0x22


class Status(IntEnum):
    success = 0
    unknown = 1
    bad_argument = 7
    not_found = 8
    is_folder = 9
    denied = 10
    unsupported = 15
    exists = 16
    no_space = 18
    io = 20
    not_empty = 33


STATUS_OF = {
    errno.ENOENT: Status.not_found,
    errno.ENOTDIR: Status.not_found,
    errno.EISDIR: Status.is_folder,
    errno.EACCES: Status.denied,
    errno.EPERM: Status.denied,
    errno.EEXIST: Status.exists,
    errno.ENOSPC: Status.no_space,
    errno.ENOTEMPTY: Status.not_empty,
    errno.EINVAL: Status.bad_argument,
    errno.EBADF: Status.bad_argument,
}
MODES = {
    1: os.O_RDONLY,
    2: os.O_RDWR | os.O_CREAT,
    3: os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    4: os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    5: os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    6: os.O_RDWR | os.O_APPEND | os.O_CREAT,
}
KINDS = {stat.S_IFDIR: "S_IFDIR", stat.S_IFREG: "S_IFREG", stat.S_IFLNK: "S_IFLNK"}


class Refused(Exception):
    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


def numbers(arguments: bytes, count: int) -> tuple[int, ...]:
    if len(arguments) < count * U64.size:
        raise Refused(Status.bad_argument)
    return tuple(U64.unpack_from(arguments, place * U64.size)[0] for place in range(count))
