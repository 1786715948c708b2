"""A virtual phone: a real adbd and a real Android shell in namespaces of their own, on hardware that is made up."""

from __future__ import annotations

from meltrepro.lab.device import VirtualDevice

_CPU = (
    "BogoMIPS\t: 38.40\n"
    "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0b\n"
)
"""A Cortex-A76."""


class VirtualPhone(VirtualDevice):
    """Its root is the file system of `system.PHONE`."""

    what = "phone"
    script = "phone/init.sh"
    port = 5640

    def build(self) -> None:
        self.cpu(_CPU, khz=2_400_000)
        with (self.folder / "fixtures/cpuinfo").open("a") as file:
            file.write("Hardware\t: meltrepro MV1\n")
        properties = {
            "ro.serialno": f"MELT{self.name.upper()}",
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
        self.fixture("build.prop", "".join(f"{name}={value}\n" for name, value in properties.items()))
        self.fixture("sys/class/power_supply/battery/type", "Battery\n")
        self.fixture("sys/class/power_supply/usb/type", "USB\n")
        self.fixture("sys/class/thermal/thermal_zone0/type", "soc\n")
        self.fixture("sys/class/thermal/thermal_zone1/type", "skin\n")

    def show(self) -> None:
        power = self.power
        battery = "sys/class/power_supply/battery"
        self.fixture(f"{battery}/status", "Charging\n" if power.charging else "Discharging\n")
        self.fixture(f"{battery}/capacity", f"{power.percent:.0f}\n")
        self.fixture(f"{battery}/voltage_now", f"{power.body.voltage_v * 1e6:.0f}\n")
        self.fixture(f"{battery}/current_now", f"{power.current_ma * (1000 if power.charging else -1000):.0f}\n")
        self.fixture(f"{battery}/charge_counter", f"{power.charge_mah * 1000:.0f}\n")
        self.fixture(f"{battery}/temp", f"{power.skin_c * 10:.0f}\n")
        self.fixture("sys/class/power_supply/usb/online", f"{int(power.charging)}\n")
        self.fixture("sys/class/thermal/thermal_zone0/temp", f"{(power.skin_c + 3 * power.power_w) * 1000:.0f}\n")
        self.fixture("sys/class/thermal/thermal_zone1/temp", f"{power.skin_c * 1000:.0f}\n")
