"""First come, first served: places in a queue before a lock file, which the kernel frees however a waiter ends.

A place is one byte of the file, locked by the descriptor of who waits; whoever comes later takes a byte behind all others.
These locks and the file's own (`flock`) know nothing of each other, and the file may be empty.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress

_FORM = "hhqqi0q"
"""`struct flock`: kind, whence, first byte, number of bytes (0: all that follow), process."""


def take(descriptor: int) -> int:
    """Take the place behind all others, for as long as the descriptor is open; raises `OSError` where it may not write."""
    while True:
        place = max(_taken(descriptor), default=-1) + 1
        with suppress(BlockingIOError):  # somebody else has just taken it
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _range(place, 1))
            return place


def ahead(descriptor: int, place: int | None) -> int:
    """How many others wait before a place; all of them where one has no place."""
    try:
        return sum(1 for _ in _taken(descriptor, end=place))
    except OSError:  # a system that has no such locks has no queue
        return 0


def _taken(descriptor: int, first: int = 0, end: int | None = None) -> Iterator[int]:
    """The places of others from `first` on, in no order."""
    if end is not None and first >= end:
        return
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _range(first, 0 if end is None else end - first))
    kind, _, at, _, _ = struct.unpack(_FORM, found)
    if kind != fcntl.F_UNLCK:
        yield at
        yield from _taken(descriptor, first, at)
        yield from _taken(descriptor, at + 1, end)


def _range(first: int, count: int) -> bytes:
    return struct.pack(_FORM, fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)
