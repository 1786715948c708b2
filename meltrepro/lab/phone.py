"""A virtual phone: a real adbd and a real Android shell in namespaces of their own, on hardware that is made up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from pathlib import Path

from meltrepro import resources
from meltrepro.errors import EngineError
from meltrepro.interrupts import held
from meltrepro.lab.power import Power
from meltrepro.lab.relay import Relay, reachable

ADBD_PORT = 5640
_START_S = 30.0
_TICK_S = 0.5
_FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
"""Those of a Cortex-A76."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class VirtualPhone:
    """One phone; its folder holds what it stores and the truth about what it draws."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        *,
        name: str = "phone",
        cores: int = 2,
        storage: str = "disk",
        power: Power | None = None,
    ) -> None:
        """`root` is the file system of `system.phone_root`; `storage` a size such as `64m`, for a phone that is soon full."""
        self.name = name
        self.folder = folder
        self.power = power or Power()
        self.properties = {
            "ro.serialno": f"MELT{name.upper()}",
            "ro.product.manufacturer": "meltrepro",
            "ro.product.model": "Virtual Phone",
            "ro.soc.manufacturer": "meltrepro",
            "ro.soc.model": "MV1",
            "ro.product.cpu.abi": "arm64-v8a",
            "ro.build.version.release": "14",
            "ro.build.version.sdk": "34",
            "ro.build.fingerprint": "meltrepro/virtual/phone:14/lab/1:user/release-keys",
            "ro.meltrepro.virtual": "1",
            "sys.boot_completed": "1",
        }
        self._root = root
        self._cores = cores
        self._storage = storage
        self._process: subprocess.Popen[bytes] | None = None
        self.inside: int | None = None
        """Process id, seen from here, of its first process; `None` while it is off."""
        self.relay = Relay()
        """The link to it, which can be cut."""
        self._model: threading.Thread | None = None
        self._off = threading.Event()

    @property
    def address(self) -> str:
        """What adb calls it."""
        return f"127.0.0.1:{self.relay.port}"

    @property
    def truth(self) -> Path:
        """What it drew: a CSV file of intervals of CLOCK_MONOTONIC and their power."""
        return self.folder / "truth.csv"

    def start(self) -> None:
        """Switch it on; raises `EngineError` where it does not come up."""
        self._write_fixtures()
        for name in ("upper", "work", "merged"):
            (self.folder / name).mkdir(exist_ok=True)
        log = self.folder / "adbd.log"
        with held(), log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),  # it ends with us, however we end
                    *("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"),
                    *(
                        "sh",
                        str(resources.images() / "phone/init.sh"),
                        str(self._root),
                        str(self.folder),
                        self._storage,
                    ),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            inside = self._await(log)
            self.relay.lead_to(inside, ADBD_PORT)
            self.inside = inside
        except BaseException:
            self.stop()
            raise
        self._off.clear()
        self._model = threading.Thread(target=self._live, args=(inside,), name=f"{self.name}'s battery", daemon=True)
        self._model.start()

    def stop(self) -> None:
        """Switch it off at once, as if its battery were taken out."""
        self._off.set()
        self.relay.cut()
        self.inside = None
        with held():
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
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
        shutil.rmtree(self.folder, ignore_errors=True)

    def _await(self, log: Path) -> int:
        """The process id of the phone's first process, once its adbd listens."""
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            with contextlib.suppress(OSError, ValueError, IndexError):
                inside = int(children.read_text().split()[0])
                if reachable(inside, ADBD_PORT):
                    return inside
            time.sleep(0.05)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise EngineError(f"the virtual phone {self.name} did not come up:\n{tail}", hint=f"its log is {log}")

    # -- hardware ---------------------------------------------------------------------------------------------------

    def _write_fixtures(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        block = f"BogoMIPS\t: 38.40\nFeatures\t: {_FEATURES}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0b\n"
        cpus = "".join(f"processor\t: {number}\n{block}\n" for number in range(self._cores))
        self._fixture("cpuinfo", cpus + "Hardware\t: meltrepro MV1\n")
        self._fixture("boot_id", f"{uuid.uuid4()}\n")
        self._fixture("build.prop", "".join(f"{name}={value}\n" for name, value in self.properties.items()))
        for number in range(self._cores):
            cpufreq = f"sys/devices/system/cpu/cpu{number}/cpufreq"
            self._fixture(f"{cpufreq}/scaling_governor", "schedutil\n")
            self._fixture(f"{cpufreq}/scaling_cur_freq", "2400000\n")
            self._fixture(f"{cpufreq}/scaling_max_freq", "2400000\n")
            self._fixture(f"{cpufreq}/cpuinfo_max_freq", "2400000\n")
        self._fixture("sys/devices/system/cpu/online", f"0-{self._cores - 1}\n")
        self._fixture("sys/class/power_supply/battery/type", "Battery\n")
        self._fixture("sys/class/power_supply/usb/type", "USB\n")
        self._fixture("sys/class/thermal/thermal_zone0/type", "soc\n")
        self._fixture("sys/class/thermal/thermal_zone1/type", "skin\n")
        self.show()

    def show(self) -> None:
        """Let the phone's files say what its battery and heat are now."""
        power = self.power
        battery = "sys/class/power_supply/battery"
        self._fixture(f"{battery}/status", "Charging\n" if power.charging else "Discharging\n")
        self._fixture(f"{battery}/capacity", f"{power.percent:.0f}\n")
        self._fixture(f"{battery}/voltage_now", f"{power.body.voltage_v * 1e6:.0f}\n")
        self._fixture(f"{battery}/current_now", f"{power.current_ma * (1000 if power.charging else -1000):.0f}\n")
        self._fixture(f"{battery}/charge_counter", f"{power.charge_mah * 1000:.0f}\n")
        self._fixture(f"{battery}/temp", f"{power.skin_c * 10:.0f}\n")
        self._fixture("sys/class/power_supply/usb/online", f"{int(power.charging)}\n")
        self._fixture("sys/class/thermal/thermal_zone0/temp", f"{(power.skin_c + 3 * power.power_w) * 1000:.0f}\n")
        self._fixture("sys/class/thermal/thermal_zone1/temp", f"{power.skin_c * 1000:.0f}\n")

    def _fixture(self, name: str, text: str) -> None:
        """Write a file as the phone sees it: in place, because it may be mounted, and in one write of one size."""
        path = self.folder / "fixtures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as file:
            data = text.encode()
            file.write(data)
            file.truncate(len(data))

    def _live(self, inside: int) -> None:
        """Draw power for what the phone's programs do, and keep the truth, until it is switched off."""
        used = _cpu_s(inside)
        then = time.monotonic_ns()
        with self.truth.open("a", encoding="utf-8") as truth:
            truth.write("begin_ns,end_ns,power_w\n")
            while not self._off.wait(_TICK_S):
                now, use = time.monotonic_ns(), _cpu_s(inside)
                seconds = (now - then) / 1e9
                self.power.advance(seconds, max(0.0, use - used) / seconds)
                self.show()
                # What its files say holds until they say something else.
                truth.write(f"{then},{now},{self.power.power_w:.6f}\n")
                truth.flush()
                then, used = now, use


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
