"""What can go wrong between an adb server and a device, as values, and the gate at which it does.

Every packet passes the gate, in both directions. Tests say at which of them what happens; so each protocol step can be
broken, one after the other, until an undisturbed run shows that there are no more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Way = Literal["in", "out"]
"""Seen from the device."""


@dataclass(frozen=True)
class Fault:
    """Something that happens to packets, by number among those that `way`, `command` and `service` describe."""

    what: Literal["cut", "silence", "refuse", "garble", "noise", "delay"]
    """`cut`: the connection ends. `silence`: it stays, but nothing passes any more. `refuse`: the device closes the
    stream instead. `garble`: the packet's data are other ones of the same size. `noise`: no packet comes, but bytes
    that are none. `delay`: it passes `delay_s` later, and what comes behind it too."""
    at: int = 0
    """Number of the first packet that it happens to, from 0."""
    times: int = 1
    """How many packets, one after the other, it happens to."""
    after_bytes: int | None = None
    """Of a `cut`: how many bytes pass, whole packets or not, before it comes; `at` does not count then."""
    way: Way | None = None
    command: bytes | None = None
    service: str = ""
    """Part of the service that was asked for, such as `shell` or a word of a command line."""
    delay_s: float = 0.0
    spared: int = 0
    """Of a `garble`: how many bytes at the beginning of the data stay as they are."""


class Seen(NamedTuple):
    way: Way
    command: bytes
    service: str


class Handling(NamedTuple):
    """What is to be done with a packet."""

    fault: Fault | None = None
    passes: int = 0
    """How many bytes of it still pass before a cut."""


@dataclass
class _Armed:
    fault: Fault
    packets: int = 0
    size: int = 0

    def meets(self, seen: Seen, size: int) -> Handling | None:
        fault = self.fault
        if fault.way not in (None, seen.way) or fault.command not in (None, seen.command):
            return None
        if fault.service not in seen.service:
            return None
        number, before = self.packets, self.size
        self.packets += 1
        self.size += size
        if fault.after_bytes is not None:
            return Handling(fault, fault.after_bytes - before) if before <= fault.after_bytes < self.size else None
        return Handling(fault) if fault.at <= number < fault.at + fault.times else None


@dataclass
class Gate:
    """Where the faults of one device happen; counts from the last `arm` on, across connections."""

    seen: list[Seen] = field(default_factory=list)
    """Every packet since `arm`, whatever became of it."""
    watcher: Callable[[int], object] | None = None
    """Told the number of every packet as it comes, for what happens elsewhere at that moment."""
    _armed: list[_Armed] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, *faults: Fault) -> None:
        """Count anew, with these faults instead of the earlier ones; none where none is named."""
        with self._guard:
            self.seen = []
            self._armed = [_Armed(fault) for fault in faults]

    def verdict(self, way: Way, command: bytes, service: str, size: int) -> Handling:
        """What happens to a packet of so many bytes: the first fault that is meant for it."""
        with self._guard:
            seen = Seen(way, command, service)
            number = len(self.seen)
            self.seen.append(seen)
            found = [verdict for armed in self._armed if (verdict := armed.meets(seen, size))]
        if self.watcher is not None:
            self.watcher(number)
        return found[0] if found else Handling()
