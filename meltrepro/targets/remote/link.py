"""The way to a device: something that runs a command there and carries its three streams, and nothing else.

Everything that targets do behind a link (files, jobs, clocks) is made of such commands, so that adb and ssh need to
implement two small classes each, and share everything that can go wrong.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol


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
