"""File trees as Jetson boards show them; made up after their kernels' interfaces, none was taken from a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

NVPMODEL_AGX = """
# Device tree based nodes
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online

< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=MODE_15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MODE_30W >
< POWER_MODEL ID=3 NAME=MODE_50W >

# mandatory section to configure the default mode
< PM_CONFIG DEFAULT=2 >
"""
AGX = {
    "hwmon3": ("ina3221", ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]),
    "hwmon4": ("ina3221", ["NC", "VDDQ_VDD2_1V8AO", "NC"]),
}
NANO = {"hwmon1": ("ina3221", ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"])}
THOR = {"hwmon5": ("ina3221", ["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"]), "hwmon6": ("ina238", ["VIN"])}


def write(root: Path, files: Mapping[str, object]) -> Path:
    """A tree with these files."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def monitors(root: Path, board: Mapping[str, tuple[str, Sequence[str]]]) -> Path:
    """The power monitors of a board."""
    files: dict[str, object] = {"sys/class/hwmon/hwmon0/name": "pwmfan", "sys/class/hwmon/hwmon0/pwm1": 58}
    for monitor, (kind, labels) in board.items():
        place = f"sys/class/hwmon/{monitor}"
        files[f"{place}/name"] = kind
        for number, label in enumerate(labels, 1):
            files[f"{place}/in{number}_label"] = label
            if kind == "ina238":
                files[f"{place}/power{number}_input"] = 21_000_000
            else:
                files |= {f"{place}/in{number}_input": 5000, f"{place}/curr{number}_input": 400 * number}
        if kind == "ina3221":
            files |= {
                f"{place}/in7_label": "sum of shunt voltages",
                f"{place}/in7_input": 12,
                f"{place}/curr7_input": 3,
            }
    return write(root, files)
