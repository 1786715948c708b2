"""Whose a device is, said by the kernel of the host that it is plugged into, or by the device itself; never by a head.

A device is taken for one trial. One that several hosts can reach has the mark of who took it last: who finds another one at the
end of a trial was cut off meanwhile, and has no record.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from meltrepro.errors import TargetLost
from meltrepro.targets import device_lock
from meltrepro.targets.base import Markable, Target


@dataclass(frozen=True)
class Lease:
    """A device that was taken."""

    device: str
    mark: str
    target: Target

    def require(self) -> None:
        """Raise `TargetLost` where somebody else has taken the device since, or it cannot be asked."""
        if isinstance(self.target, Markable) and (now := self.target.marked()) != self.mark:
            raise TargetLost(
                f"{self.device} was taken by another host meanwhile ({now}), so that this trial has no record"
            )


@contextmanager
def taken(device: str, target: Target, campaign: str, host: str) -> Iterator[Lease]:
    """Take a device while the block runs; raises `DeviceBusy` where somebody on this host has it, and what its driver raises."""
    with device_lock.hold(device, campaign):
        mark = f"{time.time_ns()}-{host}-{secrets.token_hex(8)}"
        if isinstance(target, Markable):
            target.mark(mark)
        yield Lease(device, mark, target)
