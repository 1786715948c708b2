"""One command over SSH: its streams as they come, its end as it is; paramiko's own -1 for an exit status is no answer."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from meltrepro.errors import TargetLost
from meltrepro.targets.remote.link import Chunk

if TYPE_CHECKING:
    from paramiko import Channel

_LINGER_S = 2.0
"""How long output is awaited after a command has ended: something that it left behind may hold its streams."""
_LOOK_S = 0.5
"""An exit status that comes while streams stay open wakes nobody."""
_PIECE = 64 << 10


class SshChannel:
    """A command that runs over a connection which others share."""

    def __init__(self, channel: Channel, name: str, heard: Callable[[], None], alive: Callable[[], bool]) -> None:
        """`heard` is told of every sign of life; `alive` says whether the connection is up as far as anybody knows."""
        self._channel = channel
        self._name = name
        self._heard = heard
        self._alive = alive
        self._quiet_since: float | None = None

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            for start in range(0, len(view), _PIECE):
                self._channel.sendall(bytes(view[start : start + _PIECE]))
                self._heard()
        except (EOFError, OSError) as error:
            raise self._lost(f"does not take what it is sent: {error}") from error

    def end_input(self) -> None:
        try:
            self._channel.shutdown_write()
        except (EOFError, OSError) as error:
            raise self._lost(str(error)) from error

    def receive(self, timeout_s: float) -> Chunk | None:
        until = time.monotonic() + timeout_s
        while True:
            ended = self._ended  # before looking: data comes before the end
            chunk = self._ready()
            if chunk is not None:
                return chunk
            exited = self._channel.exit_status_ready()
            if exited and (ended or self._lingered()):
                self._require_status()
                return None
            self._wait(max(0.0, until - time.monotonic()), ended, exited)
            if time.monotonic() >= until and not self._anything():
                raise TimeoutError

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._channel.close()

    def _ready(self) -> Chunk | None:
        if self._channel.recv_ready():
            chunk = Chunk("out", self._channel.recv(_PIECE))
        elif self._channel.recv_stderr_ready():
            chunk = Chunk("err", self._channel.recv_stderr(_PIECE))
        else:
            return None
        self._quiet_since = None
        self._heard()
        return chunk

    @property
    def _ended(self) -> bool:
        return bool(self._channel.eof_received or self._channel.closed)

    def _anything(self) -> bool:
        over = self._ended and self._channel.exit_status_ready()
        return over or self._channel.recv_ready() or self._channel.recv_stderr_ready()

    def _wait(self, timeout_s: float, ended: bool, exited: bool) -> None:
        """Until something happens: more output, its end, or after that the exit status."""
        if ended:
            self._channel.status_event.wait(timeout_s)
        else:
            select.select([self._channel], [], [], min(timeout_s, _LINGER_S) if exited else min(timeout_s, _LOOK_S))

    def _lingered(self) -> bool:
        """Whether nothing has come for a while since the command ended, though its streams are open."""
        now = time.monotonic()
        self._quiet_since = now if self._quiet_since is None else self._quiet_since
        return now - self._quiet_since >= _LINGER_S

    def _require_status(self) -> None:
        """Raise `TargetLost` where the end came without an exit status."""
        if self._channel.recv_exit_status() < 0:
            raise self._lost("a command was killed there" if self._alive() else "the SSH link broke")

    def _lost(self, why: str) -> TargetLost:
        return TargetLost(f"{self._name}: {why}", hint="see whether the board is on and reachable")
