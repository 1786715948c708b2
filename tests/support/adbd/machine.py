"""The device behind the adbd: this machine's programs in namespaces of their own, with storage, services and a boot id."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from meltrepro import resources
from meltrepro.errors import EngineError
from meltrepro.interrupts import held

_SERVICES = {
    "battery": "Current Battery Service state:\n  AC powered: false\n  USB powered: false\n  status: 3\n"
    "  present: true\n  level: 77\n  scale: 100\n  voltage: 3900\n  temperature: 251\n",
    "thermalservice": "IsStatusOverride: false\nThermal Status: 0\nCurrent temperatures from HAL:\n"
    "\tTemperature{mValue=31.5, mType=3, mName=skin, mStatus=0}\nCurrent cooling devices from HAL:\n",
}
"""What `dumpsys` says."""


class Machine:
    """One machine that can be switched on and off; it ends with whoever switched it on."""

    def __init__(self, folder: Path, properties: dict[str, str], storage: str = "disk") -> None:
        """`storage` is a size such as `2m` for one that is soon full, and then forgets everything when it is off."""
        self.folder = folder
        self.properties = properties
        self._storage = storage
        self._process: subprocess.Popen[str] | None = None
        self.inside: int | None = None
        """Process id, seen from here, of its first process; `None` while it is off."""

    @property
    def data(self) -> Path:
        """Where it stores things, by its own name for it."""
        return self.folder / "data"

    def seen_from_here(self, path: str) -> Path:
        """Where a file of the machine is for us; raises `OSError` while it is off."""
        if self.inside is None:
            raise ConnectionError("the device is off")
        return Path(f"/proc/{self.inside}/root") / path.lstrip("/")

    def start(self) -> None:
        """Switch it on, with a boot id of its own; raises `EngineError` where that cannot be done here."""
        self._furnish()
        with held():
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                    *("sh", str(resources.images() / "phone/machine.sh"), str(self.folder), self._storage),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout and self._process.stderr
        if self._process.stdout.readline() != "up\n":
            said = self._process.stderr.read()
            self.stop()
            raise EngineError(f"a virtual device cannot be made here: {said.strip()}", hint="it needs root")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self.inside = int(children.read_text().split()[0])

    def stop(self) -> None:
        """Switch it off at once, with everything that runs on it."""
        self.inside = None
        with held():
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.communicate()
                self._process = None

    def spawn(self, command: str, *, stderr: int) -> subprocess.Popen[bytes]:
        """Start a command line in the machine's shell, which leads a session of its own; raises `OSError`."""
        environment = {
            "PATH": f"{self.folder}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/",
            "PHONE": str(self.folder),
        }
        return subprocess.Popen(
            [*self._enter("--mount", "--pid"), "/bin/sh", "-c", _HERE, command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            start_new_session=True,
        )

    def processes(self) -> list[int]:
        if self.inside is None:
            return []
        there = _namespace(self.inside)
        return [pid for pid in _pids() if pid != self.inside and _lives_in(pid, there)]

    def program(self, name: str, script: str) -> None:
        """Put a shell script in the place of one of the machine's programs; `/bin` still has the real ones."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def remount(self, options: str) -> None:
        """Change how the storage is mounted: `ro` or `rw`."""
        done = subprocess.run(
            [*self._enter("--mount"), "mount", "-o", f"remount,bind,{options}", str(self.data)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise EngineError(f"cannot mount {self.data} as {options}: {done.stderr.strip()}")

    def _enter(self, *namespaces: str) -> list[str]:
        if self.inside is None:
            raise ConnectionError("the device is off")
        return ["nsenter", "--target", str(self.inside), *namespaces, "--"]

    def _furnish(self) -> None:
        for name in ("bin", "properties", "dumpsys", "data"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        for name, value in self.properties.items():
            (self.folder / "properties" / name).write_text(value, encoding="utf-8")
        for name, text in _SERVICES.items():
            (self.folder / "dumpsys" / name).write_text(text)
        self.program("getprop", _GETPROP)
        self.program("dumpsys", _DUMPSYS)


_HERE = 'cd "$PHONE" && exec setsid /bin/sh -c "$0"'
_GETPROP = """\
cd "$PHONE/properties" || exit 1
[ $# -eq 0 ] || { cat "$1" 2>/dev/null || printf %s "${2-}"; echo; exit 0; }
for name in *; do printf '[%s]: [' "$name"; cat "$name"; echo ']'; done"""
_DUMPSYS = """\
cat "$PHONE/dumpsys/${1-}" 2>/dev/null && exit 0
echo "Can't find service: ${1-}" >&2
exit 20"""


def _pids() -> Sequence[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/pid").readlink())


def _lives_in(pid: int, namespace: str) -> bool:
    try:
        dead = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return not dead and _namespace(pid) == namespace
    except OSError:
        return False
