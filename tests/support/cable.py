"""A network cable that can be pulled: a network namespace at the other end of a veth pair. Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cable:
    """What is plugged in here, and how to get to the other end."""

    interface: str
    address: str
    """Of the other end."""
    pid: int
    """A process in the other network."""

    @property
    def inside(self) -> tuple[str, ...]:
        """The beginning of a command line that runs there."""
        return ("nsenter", "--target", str(self.pid), "--net")

    def pull(self) -> None:
        """Nothing gets through, and nobody is told."""
        _ip("link", "set", f"{self.interface}p", "down", inside=self.inside)

    def plug(self) -> None:
        """Through again."""
        _ip("link", "set", f"{self.interface}p", "up", inside=self.inside)


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """A cable with somebody at its other end."""
    number = os.getpid() % 250
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        here = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{holder.pid}/ns/net") == here or _name(holder.pid) != "sleep":
            time.sleep(0.01)
        plugged = Cable(f"melt{number}", f"10.213.{number}.2", holder.pid)
        _ip(
            "link",
            "add",
            plugged.interface,
            "type",
            "veth",
            "peer",
            "name",
            f"{plugged.interface}p",
            "netns",
            str(holder.pid),
        )
        _ip("addr", "add", f"10.213.{number}.1/30", "dev", plugged.interface)
        _ip("link", "set", plugged.interface, "up")
        _ip("addr", "add", f"{plugged.address}/30", "dev", f"{plugged.interface}p", inside=plugged.inside)
        plugged.plug()
        yield plugged
    finally:
        holder.kill()  # its network goes with it, and the cable too
        holder.wait()


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _ip(*words: str, inside: tuple[str, ...] = ()) -> None:
    subprocess.run([*inside, "ip", *words], check=True)
