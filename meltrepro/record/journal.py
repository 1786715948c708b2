"""`journal.jsonl`: every step of a campaign, one a line, on disk before the next one begins."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from meltrepro import untrusted
from meltrepro.errors import StoreError
from meltrepro.steps import Step
from meltrepro.untrusted import load_json


class Journal:
    """An append-only sink of steps. Progress is left out: it is for the eye.

    As a sink it does not raise. What kept it from writing is raised as `StoreError` by `check`.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal for appending, after a line that a killed process may have left unfinished."""
        self._path = path
        self._error: OSError | None = None
        try:
            self._file = open(path, "ab+", buffering=0, opener=untrusted.opener)  # noqa: SIM115
            if self._file.seek(0, os.SEEK_END) > 0:
                self._file.seek(-1, os.SEEK_END)
                if self._file.read(1) != b"\n":
                    self._file.write(b"\n")
        except OSError as error:
            raise self._failure(error) from error

    def __call__(self, step: Step) -> None:
        """Append a step and force it to disk."""
        if step.phase == "progress" or self._error is not None:
            return
        values = {**vars(step), "detail": dict(step.detail)}
        entry = {name: value for name, value in values.items() if value not in (None, "", {})}
        line = json.dumps(entry, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            self._error = error

    def check(self) -> None:
        """Raise `StoreError` where a step could not be written."""
        if self._error is not None:
            raise self._failure(self._error) from self._error

    def _failure(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write {self._path}: {error.strerror or error}",
            hint="free some space, then run the same command again: it goes on where it stopped",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a journal; lines that a kill or a full disk has cut short are passed over."""
    with untrusted.opened(path) as file:
        for line in file:
            try:
                entry = load_json(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry
