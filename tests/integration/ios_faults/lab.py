"""A virtual iPhone with what trials on it need, for the tests of what can happen to one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meltrepro.lab.iphone.device import VirtualIphone
from meltrepro.targets.ios import IosTarget
from meltrepro.targets.ios_phone import Phone
from tests.contract.test_targets import Bench

DVT = "com.apple.instruments.remoteserver.DVTSecureSocketProxy"
COUNT = "echo x >> $HOME/Documents/count"


@dataclass(frozen=True)
class Lab:
    """A phone, and what a trial on it needs."""

    device: VirtualIphone
    phone: Phone
    bench: Bench

    @property
    def target(self) -> IosTarget:
        assert isinstance(self.bench.target, IosTarget)
        return self.bench.target

    @property
    def runs(self) -> int:
        """How often the runner was started in orders that count."""
        path = self.device.documents() / "count"
        return len(path.read_text().split()) if path.exists() else 0

    @property
    def cas(self) -> Path:
        return self.device.documents() / "meltrepro" / "cas"


def later(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer
