"""A virtual Jetson: a real OpenSSH server of Debian's arm64 packages in namespaces of its own, on hardware that is made up.

Its rails, monitors and zones are named as those of an AGX Orin are; what they show follows what its programs do.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meltrepro import untrusted
from meltrepro.lab.device import VirtualDevice
from meltrepro.lab.power import Body

USER = "root"
_HIGHEST_KHZ, _LOWEST_KHZ = 2_201_600, 729_600
_CPU = (
    "BogoMIPS\t: 62.50\n"
    "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat "
    "ilrcpc flagm paca pacg\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd42\n"
)
"""A Cortex-A78AE."""
_STEP_MV, _STEP_MA = 8, 8
"""Steps of the monitors, as those of an INA3221 over 5 mOhm."""
_OFF_MC = -256_000
"""What a zone shows that is switched off."""


@dataclass(frozen=True)
class Part:
    volts: float
    idle_w: float
    core_w: float
    """What a busy core adds."""


PARTS: Mapping[str, Part] = {
    "VDD_GPU_SOC": Part(19.0, 2.4, 0.1),
    "VDD_CPU_CV": Part(19.0, 0.6, 1.5),
    "VIN_SYS_5V0": Part(5.0, 2.4, 0.2),
    "VDDQ_VDD2_1V8AO": Part(5.0, 0.6, 0.2),
}
_MONITORS = {
    "hwmon3": ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    "hwmon4": ("NC", "VDDQ_VDD2_1V8AO", "NC"),
}
_BODY = Body(
    idle_w=sum(part.idle_w for part in PARTS.values()),
    core_w=sum(part.core_w for part in PARTS.values()),
    voltage_v=19.0,
    resistance_c_per_w=2.5,
    constant_s=120.0,
)


class VirtualJetson(VirtualDevice):
    what = "Jetson"
    script = "jetson/init.sh"
    port = 2222
    body = _BODY

    def __init__(self, root: Path, folder: Path, *, name: str, storage: str = "disk") -> None:
        """`root` is the file system of `system.BOARD`."""
        super().__init__(root, folder, name=name, storage=storage)
        self.key = folder / "keys/client"
        """The private key that it lets in."""
        self.known_hosts = folder / "known_hosts"

    def build(self) -> None:
        for key in (self.folder / "keys/host", self.key):
            if not key.exists():
                key.parent.mkdir(mode=0o700, exist_ok=True)
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key)]
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        kind, public, *_ = (self.folder / "keys/host.pub").read_text().split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.relay.port} {kind} {public}\n")
        self.cpu(_CPU, khz=_HIGHEST_KHZ)
        self.fixture("machine-id", hashlib.sha256(self.name.encode()).hexdigest()[:32] + "\n")
        self.fixture("sys/firmware/devicetree/base/model", "meltrepro Virtual Jetson\0")
        self.fixture("sys/firmware/devicetree/base/serial-number", f"MELT{self.name.upper()}\0")
        self.fixture("sys/class/hwmon/hwmon2/name", "pwmfan\n")
        for monitor, labels in _MONITORS.items():
            self.fixture(f"sys/class/hwmon/{monitor}/name", "ina3221\n")
            for number, label in enumerate(labels, 1):
                self.fixture(f"sys/class/hwmon/{monitor}/in{number}_label", f"{label}\n")
                self.fixture(f"sys/class/hwmon/{monitor}/curr{number}_crit_alarm", "0\n")
            self.fixture(f"sys/class/hwmon/{monitor}/in7_label", "sum of shunt voltages\n")
        for number, zone in enumerate(("cpu", "cv0", "soc0", "tj")):
            self.fixture(f"sys/class/thermal/thermal_zone{number}/type", f"{zone}-thermal\n")
        self.fixture("sys/class/thermal/cooling_device0/type", "pwm-fan\n")
        for limit, value in (("cur", 306_000_000), ("min", 306_000_000), ("max", 1_300_500_000)):
            self.fixture(f"sys/class/devfreq/17000000.gpu/{limit}_freq", f"{value}\n")
        self.fixture("sys/class/devfreq/17000000.gpu/device/load", "0\n")

    def show(self) -> None:
        watts = self.parts()
        for monitor, labels in _MONITORS.items():
            for number, label in enumerate(labels, 1):
                volts = PARTS[label].volts if label in PARTS else 0.0
                amperes = watts[label] / volts if label in PARTS else 0.0
                self.fixture(f"sys/class/hwmon/{monitor}/in{number}_input", f"{_in_steps(volts, _STEP_MV)}\n")
                self.fixture(f"sys/class/hwmon/{monitor}/curr{number}_input", f"{_in_steps(amperes, _STEP_MA)}\n")
        hot_mc = (self.power.skin_c + 0.8 * self.power.power_w) * 1000
        for number, value in enumerate((hot_mc, _OFF_MC, self.power.skin_c * 1000, hot_mc)):
            self.fixture(f"sys/class/thermal/thermal_zone{number}/temp", f"{value:.0f}\n")
        asked = self._asked()
        lowest = _HIGHEST_KHZ if "pinned" in asked else _LOWEST_KHZ
        for number in range(self.cores):
            self.fixture(f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_min_freq", f"{lowest}\n")
        duty = 255 if "fastest" in asked else min(254, max(0, round((self.power.skin_c - 30) * 8)))
        self.fixture("sys/class/hwmon/hwmon2/pwm1", f"{duty}\n")
        self.fixture("sys/class/thermal/cooling_device0/cur_state", f"{duty // 64}\n")

    def _asked(self) -> set[str]:
        """What the board's jetson_clocks was asked for."""
        try:
            return set(untrusted.read(self.folder / "upper/var/lib/jetson_clocks/asked", 4096).decode().split())
        except (OSError, ValueError):
            return set()

    def parts(self) -> Mapping[str, float]:
        """What each rail carries; together they are the power."""
        body = self.power.body
        busy = max(0.0, self.power.power_w - body.idle_w) / body.core_w
        return {name: part.idle_w + part.core_w * busy for name, part in PARTS.items()}


def _in_steps(value: float, step: int) -> int:
    """In thousandths, as a monitor with such steps shows it."""
    return round(value * 1000 / step) * step
