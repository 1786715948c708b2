"""Facts and state of a Linux machine, read from the trees of several machines."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from meltrepro.errors import TargetError
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.host.target import HostTarget, host_id
from meltrepro.targets.remote import procfs as linux


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


X86 = {
    "proc/cpuinfo": "".join(
        f"processor\t: {n}\nmodel name\t: Some CPU @ 3GHz\nmicrocode\t: 0x2b\n"
        f"cpu MHz\t\t: {mhz}\nflags\t\t: {flags}\n\n"
        for n, mhz, flags in [(0, "2599.998", "sse2 avx2 hypervisor fma"), (1, "800.5", "sse2 avx2 hypervisor")]
    ),
    "proc/meminfo": (
        "MemTotal:       24684084 kB\nMemFree:         100 kB\nMemAvailable:   24192088 kB\nSwapTotal:  2048 kB\n"
    ),
    "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
    "proc/stat": "cpu  10 0 5 12345 7 0 0 0 0 0\ncpu0 10 0 5 12345 7 0 0 0 0 0\n",
    "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
    "proc/sys/kernel/random/boot_id": "be855b0b-4166-45d5-810c-2c6e7b325c83\n",
    "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
    "etc/machine-id": "3d1219c7c4c5404aaa1f6d2a48adfda4\n",
    "sys/devices/system/cpu/smt/active": "1\n",
    "sys/devices/system/cpu/online": "0-1\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/devices/system/cpu/vulnerabilities/meltdown": "Not affected\n",
    "sys/devices/system/cpu/vulnerabilities/mds": "Vulnerable; SMT vulnerable\n",
    "sys/devices/system/cpu/vulnerabilities/spectre_v1": "Mitigation: usercopy barriers\n",
    "proc/cmdline": "BOOT_IMAGE=/vmlinuz root=UUID=4f2a mitigations=auto,nosmt isolcpus=1 password=hunter2 quiet\n",
    "proc/sys/kernel/randomize_va_space": "2\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3500000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2000000\n",
    "sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq": "3500000\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq": "3500000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference": "balance_power\n",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
    "sys/class/thermal/thermal_zone0/temp": "41500\n",
    "sys/class/hwmon/hwmon3/name": "coretemp\n",
    "sys/class/hwmon/hwmon3/temp2_input": "39000\n",
    "sys/class/hwmon/hwmon3/temp2_label": "Core 0\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2600000\n",
    "sys/class/power_supply/AC/type": "Mains\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n",
    "sys/class/power_supply/BAT0/capacity": "77\n",
    "sys/class/power_supply/BAT0/voltage_now": "12345678\n",
    "sys/class/power_supply/BAT0/current_now": "-1500000\n",
}
PI = {
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp asimdhp\n"
    "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
    "processor\t: 1\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n\n",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/meminfo": "MemTotal:        8245236 kB\n",
}


def test_an_x86_laptop(tmp_path: Path) -> None:
    root = tree(tmp_path, X86)
    cpu = linux.cpu(root)
    assert (cpu.model, cpu.microcode, cpu.hypervisor) == ("Some CPU @ 3GHz", "0x2b", True)
    assert cpu.features == {"sse2", "avx2", "hypervisor"}, "a feature counts only where every core has it"
    assert linux.memory(root)["MemTotal"] == 24684084 * 1024
    assert linux.temperatures_c(root) == {"thermal_zone0:x86_pkg_temp": 41.5, "hwmon3:coretemp:Core 0": 39.0}
    assert linux.frequencies_khz(root) == {"cpu0": 2600000}
    assert linux.governors(root) == {"cpu0": "powersave", "cpu1": "performance"}
    assert linux.load_1min(root) == 0.52
    assert linux.cpu_idle_s(root) == 123.45
    battery = linux.battery(root)
    assert battery is not None
    assert (battery.percent, battery.charging, battery.temperature_c) == (77, False, None)
    assert (battery.voltage_mv, battery.current_ma) == (12345.678, -1500)
    facts = linux.facts(root)
    assert facts["governor"] == "performance/powersave"
    assert facts["os"] == "Debian GNU/Linux 13 (trixie)"
    assert facts["smt"] == "on"
    assert facts["transparent_hugepage"] == "madvise"
    assert facts["virtualization"] == "virtual machine"
    assert facts["no_turbo"] == "0"
    assert "boost" not in facts
    assert facts["mitigations"] == "mds: Vulnerable; SMT vulnerable; spectre_v1: usercopy barriers"
    assert facts["boot_options"] == "mitigations=auto,nosmt isolcpus=1", "the rest is nobody's affair"
    assert (facts["aslr"], facts["energy_preference"]) == ("2", "balance_power")
    state = linux.state(root, wall_ns=0, monotonic_ns=0)
    assert state.conditions == {"frequency_cap": "cpu0 2000 of 3500 MHz"}


def test_a_board_with_two_kinds_of_cores(tmp_path: Path) -> None:
    root = tree(tmp_path, PI)
    cpu = linux.cpu(root)
    assert cpu.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert cpu.features == {"fp", "asimd"}
    assert not cpu.hypervisor
    assert linux.battery(root) is None


def test_clocks_come_from_cpuinfo_where_there_is_no_cpufreq(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/cpuinfo": X86["proc/cpuinfo"]})
    assert linux.frequencies_khz(root) == {"cpu0": 2599998, "cpu1": 800500}


def test_nothing_is_guessed_where_nothing_is(tmp_path: Path) -> None:
    assert linux.cpu(tmp_path).features == frozenset()
    assert linux.memory(tmp_path) == {}
    assert linux.facts(tmp_path) == {"cpu_model": "unknown"}
    assert linux.temperatures_c(tmp_path) == {} == linux.frequencies_khz(tmp_path)
    assert linux.load_1min(tmp_path) is None
    assert linux.cpu_idle_s(tmp_path) is None
    assert linux.memory_limit(tmp_path) is None
    assert linux.cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("files", "limit", "quota"),
    [
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "4000000000\n",
                "sys/fs/cgroup/cpu.max": "150000 100000",
            },
            4 * 10**9,
            1.5,
        ),
        (
            {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "7\n", "sys/fs/cgroup/a/b/memory.max": "9"},
            7,
            None,
        ),
        (
            {
                "proc/self/cgroup": "0::/a\n",
                "sys/fs/cgroup/a/memory.max": "max\n",
                "sys/fs/cgroup/a/cpu.max": "max 100000",
            },
            None,
            None,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/77\n2:cpu,cpuacct:/docker/77\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "500\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            500,
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n2:cpu:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
            None,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/unified/memory.max": "12\n"}, 12, None),
    ],
    ids=["v2", "v2-parents-count", "v2-unlimited", "v1-in-container", "v1-unlimited", "hybrid"],
)
def test_limits_of_control_groups(
    tmp_path: Path, files: dict[str, str], limit: int | None, quota: float | None
) -> None:
    root = tree(tmp_path, files)
    assert linux.memory_limit(root) == limit
    assert linux.cpu_quota(root) == quota


def test_a_host_is_what_its_container_may_use(tmp_path: Path) -> None:
    limits = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "4000000000\n",
        "sys/fs/cgroup/cpu.max": "100000 100000",
    }
    facts = HostTarget(
        HostOptions(), disk=tmp_path / "no" / "such", owner="x", root=tree(tmp_path, X86 | limits)
    ).identify()
    assert facts.memory_bytes == 4 * 10**9
    assert facts.cores == 1
    assert facts.disk_free_bytes > 0
    assert not facts.virtual
    assert facts.facts["memory_limit_bytes"] == "4000000000"


def test_a_host_that_is_no_linux_says_so(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="meminfo") as caught:
        HostTarget(HostOptions(), disk=tmp_path, owner="x", root=tmp_path).identify()
    assert "Linux" in str(caught.value.hint)


def test_the_id_is_stable_and_keeps_the_machine_id_to_itself(tmp_path: Path) -> None:
    root = tree(tmp_path, X86)
    assert host_id(root) == host_id(root)
    assert X86["etc/machine-id"].strip() not in host_id(root)
    other = tree(tmp_path / "other", {"etc/machine-id": "00000000000000000000000000000000\n"})
    assert host_id(other) != host_id(root)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    full = HostTarget(HostOptions(), disk=tmp_path, owner="x", root=tree(tmp_path / "full", X86)).state()
    bare = HostTarget(HostOptions(), disk=tmp_path, owner="x", root=tree(tmp_path / "bare", PI)).state()
    assert full.unavailable == {}
    assert set(bare.unavailable) == {
        *(
            "temperatures_c",
            "frequencies_khz",
            "governors",
            "load_1min",
            "cpu_idle_s",
            "memory_available_bytes",
            "battery",
        )
    }
    assert all(bare.unavailable.values())
    assert full.boot_id == "be855b0b-4166-45d5-810c-2c6e7b325c83"


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    target = HostTarget(HostOptions(), disk=tmp_path, owner="x")
    facts, states = target.identify(), [target.state(), target.state()]
    assert facts.memory_bytes > 1 << 20
    assert facts.cores >= 1
    assert facts.facts["kernel"]
    assert all(a.monotonic_ns < b.monotonic_ns for a, b in itertools.pairwise(states))
