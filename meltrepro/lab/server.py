"""An adb server of the lab's own: its own port, its own keys, and no interest in anybody else's devices."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from meltrepro.errors import EngineError
from meltrepro.interrupts import held
from meltrepro.lab.device import kill_group
from meltrepro.targets.android.adb import Server
from meltrepro.targets.android.adb_server import free_port, program

_START_S = 20.0


class AdbServer:
    """A private adb server, as long as it is started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.server = Server(0)

    def start(self, port: int | None = None) -> None:
        """Start it at a free port, or at the one that it had; raises `EngineError` where it does not come up."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.server = Server(port or free_port())
        log = self._folder / "adb.log"
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self._folder),
            "ADB_MDNS": "0",
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554",  # else it looks for emulators at ports that are none of its business
        }
        with held(), log.open("ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program(), "-P", str(self.server.port), "nodaemon", "server"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while not self.server.answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise EngineError("the lab's adb server did not come up", hint=f"its log is {log}")
            time.sleep(0.05)

    @property
    def pid(self) -> int | None:
        """Its process, while it is started."""
        return None if self._process is None else self._process.pid

    def attach(self, address: str) -> None:
        """Connect it to a device that listens at an address; raises `EngineError` where that fails."""
        said = ""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            said = self.server.ask(f"host:connect:{address}")
            if any(each.serial == address and each.usable for each in self.server.devices()):
                return
            time.sleep(0.1)
        raise EngineError(f"adb cannot connect to {address}: {said}")

    def detach(self, address: str) -> None:
        self.server.ask(f"host:disconnect:{address}")

    def stop(self) -> None:
        with held():
            if self._process is not None:
                kill_group(self._process)
                self._process = None
