"""File systems of machines that this one is not: what their kernels show below /proc and /sys."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "proc/meminfo": "MemTotal:  8000000 kB\nMemAvailable:  4000000 kB\nSwapFree:  1000 kB\n",
    "proc/stat": "cpu  100 0 50 4000 7 0 0 0 0 0\ncpu0 100 0 50 4000 7 0 0 0 0 0\n",
    "proc/pressure/cpu": "some avg10=0.10 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 total=0\n",
    "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000\nfull avg10=0.00 total=0\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "45500\n",
    "sys/class/hwmon/hwmon1/name": "nvme\n",
    "sys/class/hwmon/hwmon1/temp1_input": "38000\n",
    "sys/class/hwmon/hwmon1/temp1_label": "Composite\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "262143000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "1\n",
    "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "262143328850\n",
    "sys/class/power_supply/AC/type": "Mains\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n",
    "sys/class/power_supply/BAT0/voltage_now": "11400000\n",
    "sys/class/power_supply/BAT0/current_now": "-1200000\n",
    "sys/class/power_supply/BAT0/charge_now": "3000000\n",
    "sys/class/power_supply/BAT0/capacity": "77\n",
}
"""A laptop that shows everything."""


def machine(root: Path, files: dict[str, str] | None = None) -> Path:
    """Write the files of a machine below a folder."""
    for name, content in (FILES if files is None else files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root
