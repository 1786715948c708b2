"""What tests of the fault-injecting adbd share: one that is attached to a real adb server, and trials on it."""

from __future__ import annotations

import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meltrepro.errors import MeltreproError
from meltrepro.lab.server import AdbServer
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.android.target import Android
from meltrepro.targets.base import AGENT, TrialResult
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro.testing.targets import Bench
from tests.integration.bundles import Bundle
from tests.support.adbd.device import Adbd

_QUIET_S = 10.0


def native_bundle(bundles: Mapping[str, Path]) -> Path:
    """A bundle for this machine: such a device emulates nothing."""
    return next(path for path in bundles.values() if Bundle(path).machine == platform.machine())


@contextmanager
def attached_adbd(
    folder: Path,
    *,
    name: str = "broken",
    storage: str = "disk",
    properties: dict[str, str] | None = None,
) -> Iterator[tuple[Adbd, AdbServer]]:
    """A device that breaks where it is told to, attached to a real adb server, while the block runs."""
    device, adb = Adbd(folder / name, name=name, storage=storage, properties=properties), AdbServer(folder / "adb")
    try:
        device.start()
        adb.start()
        adb.attach(device.address)
        yield device, adb
    finally:
        adb.stop()
        device.erase()


@dataclass(frozen=True)
class Rig:
    """A device that breaks where it is told to, and small trials on it; each attempt is as of a process of its own."""

    device: Adbd
    adb: AdbServer
    folder: Path
    bundle: Path
    silence_s: float = 30.0
    """How long a command may say nothing."""

    @property
    def shell(self) -> Shell:
        return Shell(AdbLink(self.adb.server, self.device.address), silence_s=self.silence_s)

    def bench(self, reconnect_s: float) -> Bench:
        """A target that knows nothing of earlier ones, and what trials on it need."""
        target = RemoteTarget(self.shell, Android(), self.device.root, reconnect_s=reconnect_s)
        return Bench(target, self.folder, self.bundle / AGENT)

    def attempt(self, reconnect_s: float, order: str = "exit 0", name: str = "a") -> TrialResult | MeltreproError:
        """What a campaign does with a trial: end what others left, deploy, run; the typed error where it fails."""
        bench = self.bench(reconnect_s)
        try:
            bench.target.stop_strays()
            return bench.target.run_trial(bench.job(f"echo {name} >> {self._count}; {order}"))
        except MeltreproError as error:
            return error

    def reattach(self) -> None:
        """Let the adb server find the device again at once, and not when it looks for it the next time."""
        self.adb.server.ask(f"host:disconnect:{self.device.address}")
        self.adb.attach(self.device.address)

    def forget(self) -> None:
        """Let the device be new again."""
        shutil.rmtree(self.device.root, ignore_errors=True)
        self._count.unlink(missing_ok=True)

    @property
    def _count(self) -> Path:
        return self.device.machine.folder / "count"

    def runs(self, name: str = "a") -> int:
        """How many times the device has begun the trial of an attempt."""
        return self._count.read_text().splitlines().count(name) if self._count.exists() else 0

    def left(self) -> set[str]:
        """What is on the device apart from verified files of its store: other files, and processes."""
        until = time.monotonic() + _QUIET_S
        while self.device.processes() and time.monotonic() < until:
            time.sleep(0.01)  # what was hung up on may need a moment
        running = {Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in self.device.processes()}
        files = {
            str(path.relative_to(self.device.root)) for path in Path(self.device.root).rglob("*") if path.is_file()
        }
        return running | {name for name in files if not re.fullmatch(r"cas/[0-9a-f]{64}(\.ok)?", name)}
