"""The way to the box: a link starts commands and carries their streams, and nothing else."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess

from meltrepro.errors import TargetLost
from meltrepro.targets.remote.link import Chunk


class ShellLink:
    name = "toybox"

    def open(self, command: str) -> ShellChannel:
        return ShellChannel(command)


class ShellChannel:
    """A command that runs in a shell."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._input = self._process.stdin
        self._open = {self._process.stdout.fileno(): "out", self._process.stderr.fileno(): "err"}

    def send(self, data: bytes) -> None:
        try:
            while data:
                data = data[self._input.write(data) :]
        except OSError as error:
            raise TargetLost("the toybox does not listen") from error

    def end_input(self) -> None:
        with contextlib.suppress(OSError):
            self._input.close()

    def receive(self, timeout_s: float) -> Chunk | None:
        while self._open:
            ready, _, _ = select.select(list(self._open), [], [], timeout_s)
            if not ready:
                raise TimeoutError
            data = os.read(ready[0], 1 << 16)
            if data:
                return Chunk("out" if self._open[ready[0]] == "out" else "err", data)
            del self._open[ready[0]]
        self._process.wait()
        return None

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
