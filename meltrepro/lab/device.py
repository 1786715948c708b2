"""What virtual devices have in common: programs in namespaces of their own, a link that can be cut, and hardware that is
made up of files, whose power follows what the programs do."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from meltrepro import resources
from meltrepro.atomic import remove
from meltrepro.errors import EngineError, StoreError
from meltrepro.interrupts import held
from meltrepro.lab import confine
from meltrepro.lab.power import Body, Power
from meltrepro.lab.relay import Relay, reachable

_START_S = 30.0
_TICK_S = 0.5
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class VirtualDevice:
    """One device; its folder holds what it stores and the truth about what it draws."""

    what: str
    """What messages call it."""
    script: str
    """What it does first, among the images; it gets the file system, the folder and the size of its storage."""
    port: int
    """Where its server listens, in its own network."""
    body = Body()
    cores = 2

    def __init__(self, root: Path, folder: Path, *, name: str, storage: str = "disk") -> None:
        """`root` is a file system that nobody writes to; `storage` a size such as `64m`, for one that is soon full."""
        self.name = name
        self.folder = folder
        self.power = Power(self.body)
        self._root = root
        self._storage = storage
        self._process: subprocess.Popen[bytes] | None = None
        self.inside: int | None = None
        """Process id, seen from here, of its first process; `None` while it is off."""
        self.relay = Relay()
        """The link to it, which can be cut."""
        self._model: threading.Thread | None = None
        self._off = threading.Event()

    def build(self) -> None:
        """Write the files that say what it is, before it is switched on."""
        raise NotImplementedError

    def show(self) -> None:
        """Let its files say what it draws and how hot it is now."""
        raise NotImplementedError

    def parts(self) -> Mapping[str, float]:
        """Power of its parts in watts, where it has meters for them."""
        return {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.relay.port}"

    @property
    def truth(self) -> Path:
        """What it drew: a CSV file of intervals of CLOCK_MONOTONIC and their power."""
        return self.folder / "truth.csv"

    def start(self) -> None:
        """Switch it on; raises `EngineError` where it does not come up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.fixture("boot_id", f"{uuid.uuid4()}\n")
        self.build()
        self.show()
        for name in ("upper", "work", "merged"):
            (self.folder / name).mkdir(exist_ok=True)
        log = self.folder / "device.log"
        with held(), log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),  # it ends with us, however we end
                    *("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"),
                    *("sh", str(resources.images() / self.script), str(self._root), str(self.folder), self._storage),
                    *(sys.executable, "-I", "-S", confine.__file__),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            inside = self._await(log)
            self.relay.lead_to(inside, self.port)
            self.inside = inside
        except BaseException:
            self.stop()
            raise
        self._off.clear()
        self._model = threading.Thread(target=self._live, args=(inside,), name=f"{self.name}'s power", daemon=True)
        self._model.start()

    def stop(self) -> None:
        self._off.set()
        self.relay.cut()
        self.inside = None
        with held():
            if self._process is not None:
                kill_group(self._process)
                self._process = None
        if self._model is not None:
            self._model.join()
            self._model = None

    def reboot(self) -> None:
        """Off and on again: another boot id; what it stored stays."""
        self.stop()
        self.start()

    def erase(self) -> None:
        """Remove everything that it stored, and its folder; it cannot be switched on again."""
        self.stop()
        self.relay.close()
        with contextlib.suppress(StoreError):
            remove(self.folder)

    def fixture(self, name: str, text: str) -> None:
        """Write a file as the device sees it: in place, because it may be mounted, and in one write of one size."""
        path = self.folder / "fixtures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as file:
            data = text.encode()
            file.write(data)
            file.truncate(len(data))

    def cpu(self, cpuinfo: str, khz: int) -> None:
        """Write the files of its CPUs; `cpuinfo` is what /proc/cpuinfo says of each."""
        blocks = (f"processor\t: {number}\n{cpuinfo}\n" for number in range(self.cores))
        self.fixture("cpuinfo", "".join(blocks))
        everyone = f"0-{self.cores - 1}"
        for number in range(self.cores):
            # OpenVINO breaks its memory where any of them is missing.
            topology, of_all = f"sys/devices/system/cpu/cpu{number}/topology", (1 << self.cores) - 1
            one, every = (1 << number, str(number)), (of_all, everyone)
            masks = {"core_cpus": one, "thread_siblings": one, "package_cpus": every, "core_siblings": every}
            for name, (mask, numbers) in masks.items():
                self.fixture(f"{topology}/{name}", f"{mask:x}\n")
                self.fixture(f"{topology}/{name}_list", f"{numbers}\n")
            self.fixture(f"{topology}/core_id", f"{number}\n")
            self.fixture(f"{topology}/physical_package_id", "0\n")
            cpufreq = f"sys/devices/system/cpu/cpu{number}/cpufreq"
            self.fixture(f"{cpufreq}/scaling_governor", "schedutil\n")
            for file in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq"):
                self.fixture(f"{cpufreq}/{file}", f"{khz}\n")
        for name in ("online", "possible", "present"):
            self.fixture(f"sys/devices/system/cpu/{name}", f"{everyone}\n")

    def _await(self, log: Path) -> int:
        """The process id of its first process, once its server listens."""
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            with contextlib.suppress(OSError, ValueError, IndexError):
                inside = int(children.read_text().split()[0])
                if reachable(inside, self.port):
                    return inside
            time.sleep(0.05)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise EngineError(f"the virtual {self.what} {self.name} did not come up:\n{tail}", hint=f"its log is {log}")

    def _live(self, inside: int) -> None:
        """Draw power for what its programs do, and keep the truth, until it is switched off."""
        used = _cpu_s(inside)
        then = time.monotonic_ns()
        with self.truth.open("a", encoding="utf-8") as truth:
            truth.write(",".join(["begin_ns", "end_ns", "power_w", *self.parts()]) + "\n")
            while not self._off.wait(_TICK_S):
                now, use = time.monotonic_ns(), _cpu_s(inside)
                seconds = (now - then) / 1e9
                self.power.advance(seconds, max(0.0, use - used) / seconds)
                self.show()
                # What its files say holds until they say something else.
                watts = [f"{value:.6f}" for value in (self.power.power_w, *self.parts().values())]
                truth.write(",".join([str(then), str(now), *watts]) + "\n")
                truth.flush()
                then, used = now, use


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, with all of the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _cpu_s(inside: int) -> float:
    """CPU time of everything that has run below a process, of the dead ones as far as somebody waited for them."""
    total = 0
    todo = [inside]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(stat[field]) for field in (11, 12, 13, 14))
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
    return total / _TICKS_PER_S
