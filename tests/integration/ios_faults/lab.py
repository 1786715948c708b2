"""A virtual iPhone with what trials on it need, for the tests of what can happen to one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meltrepro.lab.iphone.device import VirtualIphone
from meltrepro.targets.ios.phone import Phone
from meltrepro.targets.ios.target import IosTarget
from meltrepro.testing.targets import Bench

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

    def in_trial(self, seconds: float, action: Callable[[], None]) -> threading.Thread:
        """Do something so long after the app of the next trial was started, however long that takes."""

        def act() -> None:
            deadline = time.monotonic() + 60
            while not self.device.running and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(seconds)
            action()

        thread = threading.Thread(target=act)
        thread.start()
        return thread
