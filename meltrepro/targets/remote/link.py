"""The way to a device: something that runs a command there and carries its three streams, and nothing else.

Everything that targets do behind a link (files, jobs, clocks) is made of such commands, so that adb and ssh need to
implement two small classes each, and share everything that can go wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, TypeVar

from meltrepro.errors import TargetLost

PIECE = 2 * 32_704
"""Bytes that are sent at once: two of ssh's packets, whose rest would be a third, and one of adb's."""
T = TypeVar("T")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 3.0


class Chunk(NamedTuple):
    """A piece of what a command writes."""

    stream: Literal["out", "err"]
    data: bytes


class Channel(Protocol):
    """A command that runs on the device. Every method raises `TargetLost` where the link is gone."""

    def send(self, data: bytes) -> None:
        """Write to the command's input; returns when the link has taken all of it."""
        ...

    def end_input(self) -> None:
        """Nothing more will be sent."""
        ...

    def receive(self, timeout_s: float) -> Chunk | None:
        """The next piece of output; `None` once the command is over. Raises `TimeoutError` where nothing comes in time."""
        ...

    def close(self) -> None:
        """Let go of the command, whatever it is doing; never raises."""
        ...


class Link(Protocol):
    """A way to one device."""

    @property
    def name(self) -> str:
        """What people call the device on this link; for messages."""
        ...

    def open(self, command: str) -> Channel:
        """Start a command line in a POSIX shell of the device, which leads a process group of its own.

        Raises `TargetLost` where the device cannot be reached now, `TargetError` where somebody has to help.
        """
        ...


def retried(action: Callable[[], T], reconnect_s: float, final: tuple[type[TargetLost], ...] = ()) -> T:
    """Repeat what a lost link interrupts, until the device is back or has been away for `reconnect_s`.

    Losses of the types in `final` are no matter of the link, and raised at once.
    """
    until: float | None = None
    pause_s = _FIRST_PAUSE_S
    while True:
        began = time.monotonic()
        try:
            return action()
        except final:
            raise
        except TargetLost:
            # The time counts from the loss, however long the action had gone on before.
            now = time.monotonic()
            until = now + reconnect_s if until is None or now - began > reconnect_s else until
            if now + pause_s > until:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
