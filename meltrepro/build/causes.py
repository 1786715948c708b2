"""Why a step failed where the step itself is not to blame: its disk is full, or something killed it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meltrepro.atomic import free_bytes, store_error
from meltrepro.errors import EngineError

_FULL = os.strerror(errno.ENOSPC)
_NO_ROOM_BYTES = 1 << 20
"""With less than this left, a step that failed is taken to have failed for lack of it."""
_PLENTY_BYTES = 1 << 30
"""With this much left, it was another disk that a program found full; a sandbox's `/tmp` is in memory."""


@contextmanager
def writing_below(folder: Path) -> Iterator[None]:
    """Turn an `OSError` of the body, which writes below `folder`, into a `StoreError` that names the folder."""
    try:
        yield
    except OSError as error:
        check_room(folder, str(error))  # numpy's errors say how much was not written, but not why
        raise store_error(error, folder) from error


def check_room(folder: Path, said: str) -> None:
    """Raise `StoreError` where a step that wrote below `folder` failed because its disk is full, going by its words.

    A program may have removed by now what it could not finish, so that there is some room again.
    """
    free = free_bytes(folder)
    if free < _NO_ROOM_BYTES or (_FULL in said and free < _PLENTY_BYTES):
        raise store_error(OSError(errno.ENOSPC, _FULL), folder)


def check_killed(status: int, what: str, log: Path) -> None:
    """Raise `EngineError` for the exit status of what was killed by SIGKILL; nothing does that to itself."""
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        raise EngineError(
            f"{what} was killed (SIGKILL)",
            hint=f"run the same command again, where memory is short with MELTREPRO_JOBS=1; its log is {log}",
        )
