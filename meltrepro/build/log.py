"""The log of a build: everything on disk, progress to the sink, the last lines in memory for the error message."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path
from typing import Self, TextIO

from meltrepro.atomic import make_folder, writing
from meltrepro.steps import Sink, Step

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_COUNTER = re.compile(r"^\[(\d+)/(\d+)\] ")


class BuildLog:
    """Writes a build's output to a file and turns ninja's counters into progress."""

    def __init__(self, path: Path, subject: str, sink: Sink) -> None:
        self._path = path
        self._subject = subject
        self._sink = sink
        self._tail: deque[str] = deque(maxlen=20)
        self._rest = ""
        self._file: TextIO

    def __enter__(self) -> Self:
        make_folder(self._path.parent)
        with writing(self._path):
            self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        with writing(self._path):
            self._file.close()

    def write(self, text: str) -> None:
        """Append output as it arrives, in pieces of any size. Raises `StoreError`."""
        text = _COLOUR.sub("", text)
        with writing(self._path):
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
