"""Links for tests: this machine as if it were far away, and links that break when they are told to."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from meltrepro.errors import TargetLost
from meltrepro.targets.remote.link import Channel, Chunk, Link


class LocalChannel:
    """A command of this machine's shell."""

    def __init__(self, command: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdout and self._process.stderr
        self._open = {self._process.stdout: "out", self._process.stderr: "err"}

    def send(self, data: bytes) -> None:
        assert self._process.stdin
        try:
            view = memoryview(data)
            while view:
                view = view[self._process.stdin.write(view) :]
        except OSError as error:
            raise TargetLost("the command does not listen") from error

    def end_input(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def receive(self, timeout_s: float) -> Chunk | None:
        while self._open:
            ready, _, _ = select.select(list(self._open), [], [], timeout_s)
            if not ready:
                raise TimeoutError
            data = os.read(ready[0].fileno(), 1 << 16)
            if data:
                return Chunk("out" if self._open[ready[0]] == "out" else "err", data)
            del self._open[ready[0]]
        self._process.wait()
        return None

    def close(self) -> None:
        """As adbd does it: the shell is ended, its children are not."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGHUP)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)


@dataclass
class LocalLink:
    """This machine, commands in a folder of its own."""

    folder: Path
    name: str = "here"
    commands: list[str] = field(default_factory=list)

    def open(self, command: str) -> Channel:
        self.commands.append(command)
        return LocalChannel(command, self.folder)


@dataclass
class BreakingLink:
    """A link that is lost at one of its operations, and back at the next one."""

    inner: Link
    breaks_at: int
    """Number of the operation (opening, sending, receiving, from 0) at which it is lost."""
    done: int = 0
    """Operations so far."""

    @property
    def name(self) -> str:
        return self.inner.name

    def open(self, command: str) -> Channel:
        self.step()
        return _BreakingChannel(self.inner.open(command), self.step)

    def step(self) -> None:
        """Count an operation; raises `TargetLost` at the one where the link is lost."""
        self.done += 1
        if self.done == self.breaks_at + 1:
            raise TargetLost("the link is cut")


@dataclass
class _BreakingChannel:
    inner: Channel
    count: Callable[[], None]
    lost: bool = False

    def step(self) -> None:
        if self.lost:
            raise TargetLost("the link was cut")
        try:
            self.count()
        except TargetLost:
            self.lost = True
            self.inner.close()
            raise

    def send(self, data: bytes) -> None:
        half = len(data) // 2
        self.inner.send(data[:half])  # what is lost may have arrived in part
        self.step()
        self.inner.send(data[half:])

    def end_input(self) -> None:
        self.step()
        self.inner.end_input()

    def receive(self, timeout_s: float) -> Chunk | None:
        self.step()
        return self.inner.receive(timeout_s)

    def close(self) -> None:
        self.inner.close()
