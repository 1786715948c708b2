"""The log of a build (everything on disk, progress to the sink, the last lines in memory for the error message), and why a
step failed where it is not to blame itself: its disk or memory is full, or something killed it."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self, TextIO

from meltrepro import untrusted
from meltrepro.atomic import free_bytes, make_folder, store_error, writing
from meltrepro.errors import BuildError, EngineError
from meltrepro.steps import Sink, Step
from meltrepro.words import shorten

_FULL = os.strerror(errno.ENOSPC)
_NO_SPACE_BYTES = 1 << 20
"""With less than this left, a step that failed is taken to have failed for lack of it."""
_PLENTY_BYTES = 1 << 30
"""With this much left, it was another disk that a program found full; a sandbox's `/tmp` is in memory."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(r"\berror:|^CMake Error")
_COUNTER = re.compile(r"^\[(\d+)/(\d+)\] ")


class BuildLog:
    """Writes a build's output to a file and turns ninja's counters into progress."""

    def __init__(self, path: Path, subject: str, sink: Sink) -> None:
        self.path = path
        self._subject = subject
        self._sink = sink
        self._tail: deque[str] = deque(maxlen=20)
        self._rest = ""
        self._file: TextIO

    def __enter__(self) -> Self:
        make_folder(self.path.parent)
        with writing(self.path):
            self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        with writing(self.path):
            self._file.close()

    def write(self, text: str) -> None:
        """Append output as it arrives, in pieces of any size. Raises `StoreError`."""
        text = _COLOUR.sub("", text)
        with writing(self.path):
            self._file.write(text)
            self._file.flush()
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            self._tail.append(line.rstrip())
            if match := _COUNTER.match(line):
                done, total = map(float, match.groups())
                self._sink(Step("build", "progress", self._subject, done=done, total=total, unit="steps"))

    def tail(self) -> str:
        """The last lines, indented."""
        return "\n".join("    " + line for line in [*self._tail, self._rest] if line.strip())


def first_error(log: Path) -> str | None:
    """The first line of a build's log that a compiler or CMake begins an error with, shortened; `None` without any."""
    with suppress(OSError):
        lines = [line for line in untrusted.read(log).decode(errors="replace").splitlines() if line.strip()]
        at = next((number for number, line in enumerate(lines) if _ERROR.search(line)), None)
        if at is not None:  # CMake says where on a line, and what on the next
            shown = lines[at : at + (2 if lines[at].startswith("CMake") else 1)]
            return shorten(" ".join(" ".join(shown).split()), 300)
    return None


@contextmanager
def writing_below(folder: Path) -> Iterator[None]:
    """Turn an `OSError` of the body, which writes below `folder`, into a `StoreError` that names the folder."""
    try:
        yield
    except OSError as error:
        check_space(folder, str(error))  # numpy's errors say how much was not written, but not why
        raise store_error(error, folder) from error


def check_space(folder: Path, said: str) -> None:
    """Raise `StoreError` where a step that wrote below `folder` failed because its disk is full, going by its words.

    A program may have removed by now what it could not finish, so that there is some space again.
    """
    free = free_bytes(folder)
    if free < _NO_SPACE_BYTES or (_FULL in said and free < _PLENTY_BYTES):
        raise store_error(OSError(errno.ENOSPC, _FULL), folder)


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Turn a lack of memory in the body into a `BuildError` that says `what` it was that could not go on."""
    try:
        yield
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:  # that of a file that is mapped
            raise
        raise BuildError(
            f"{what} needs more memory than this process may have",
            hint="close other programs, or raise its limit (ulimit -v), and run the same command again",
        ) from error


def check_killed(status: int, what: str, log: Path) -> None:
    """Raise `EngineError` for the exit status of what was killed by SIGKILL; nothing does that to itself."""
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        raise EngineError(
            f"{what} was killed (SIGKILL)",
            hint=f"run the same command again, where memory is short with MELTREPRO_JOBS=1; its log is {log}",
        )
