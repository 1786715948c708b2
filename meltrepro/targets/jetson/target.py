"""NVIDIA Jetson boards: what is particular to them beyond any Linux board behind SSH.

docs/devices/jetson.md says which of it was tried on what.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from meltrepro.errors import MeltreproError, TargetError
from meltrepro.settings import Settings
from meltrepro.targets.base import Attached, DeviceState, Source
from meltrepro.targets.jetson import controls as jetson_controls
from meltrepro.targets.jetson import tegrastats
from meltrepro.targets.jetson.options import JetsonOptions
from meltrepro.targets.jetson.rails import chosen, rail_sources, rails
from meltrepro.targets.remote.linux import LinuxPlatform
from meltrepro.targets.remote.procfs import integer, read
from meltrepro.targets.remote.remote import RemoteTarget, Requested
from meltrepro.targets.remote.sensors import linux_sources
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.remote.snapshot import snapshot
from meltrepro.targets.ssh.target import lab_boards, link_to

_RELEASE = "/etc/nv_tegra_release"
_CPUS = 16
_FILES = (
    _RELEASE,
    jetson_controls.CONF,
    "/sys/class/devfreq/*/cur_freq",
    "/sys/class/devfreq/*/min_freq",
    "/sys/class/devfreq/*/max_freq",
    "/sys/class/devfreq/*/device/load",
    "/sys/class/hwmon/hwmon*/name",
    "/sys/class/hwmon/hwmon*/pwm[0-9]",
    "/sys/class/hwmon/hwmon*/rpm",
    "/sys/class/hwmon/hwmon*/fan[0-9]_input",
    "/sys/class/hwmon/hwmon*/curr*_crit_alarm",
    "/sys/class/thermal/cooling_device*/type",
    "/sys/class/thermal/cooling_device*/cur_state",
    *(f"/sys/devices/system/cpu/cpu{i}/cpufreq/scaling_{limit}_freq" for i in range(_CPUS) for limit in ("min", "max")),
)
"""What is read besides what every Linux machine shows; shell patterns."""
_JETPACKS = {
    "35": "5",
    "36.2": "6.0",
    "36.3": "6.0",
    "36.4": "6.1 or 6.2",
    "36.5": "6.2",
    "38": "7.0 or 7.1",
    "39": "7.2",
}
"""Which JetPack a release of Linux for Tegra belongs to, where its package does not say so."""
_PACKAGE = ("dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack")


def open_target(options: JetsonOptions, settings: Settings) -> RemoteTarget:
    """The target as campaigns use it."""
    return RemoteTarget(
        Shell(link_to(options, settings)),
        Jetson(options.rails, tegrastats=options.tegrastats, root=options.root),
        options.root,
        reconnect_s=options.reconnect_s,
        requested=Requested(
            options.settings.model_dump(exclude_none=True), cores=options.cores, container=options.container
        ),
    )


def attached(settings: Settings) -> list[Attached]:
    """Boards of the lab; others have no server that knows them, only names in manifests."""
    rows = []
    for board in lab_boards(settings):
        options = JetsonOptions(kind="jetson", lab=board.name, reconnect_s=0)
        state, found, todo = "device", "", None
        try:
            found = open_target(options, settings).identify().described
        except MeltreproError as error:
            state, todo = "offline", error.one_line
        rows.append(Attached("jetson", board.name, state, found, todo))
    return rows


class Jetson(LinuxPlatform):
    """The platform of Jetson boards."""

    def __init__(
        self, profile: str | Sequence[str] = "melt", *, tegrastats: bool = False, root: str = "/var/tmp/meltrepro"
    ) -> None:
        """`profile` says which rails make the energy (rails.py); `tegrastats` is asked besides, if wanted."""
        super().__init__("jetson")
        self.controls = jetson_controls.controls(root)
        self._profile = profile
        self._tegrastats = tegrastats

    def more(self, shell: Shell, tree: Path) -> Mapping[str, str]:
        """Release, JetPack, power modes, and which rails make the energy."""
        with snapshot(shell, _FILES) as own:
            release = read(own / _RELEASE.lstrip("/")) or ""
            conf = read(own / jetson_controls.CONF.lstrip("/")) or ""
        l4t = parse_release(release)
        mode = jetson_controls.parse_mode(shell.run(jetson_controls.QUERY).text)
        labels = [rail.label for rail in rails(tree)]
        try:
            counted = chosen(self._profile, labels)
        except TargetError as error:
            counted = (f"none: {error.message}",)
        profile = self._profile if isinstance(self._profile, str) else "named"
        known = {
            "l4t": l4t,
            "l4t_release": release.partition("\n")[0],
            "jetpack": self._jetpack(shell, l4t or ""),
            "power_mode": mode,
            "power_modes": " ".join(jetson_controls.parse_modes(conf)),
            "power_rails": " ".join(labels),
            "energy_rails": f"{profile}: {' + '.join(counted)}" if labels else None,
        }
        return {name: str(value) for name, value in known.items() if value}

    def system(self, more: Mapping[str, str]) -> str:
        return f"L4T {more['l4t']}" if "l4t" in more else ""

    def state(self, shell: Shell, tree: Path, state: DeviceState) -> DeviceState:
        """Power mode, clocks, fan and what slows the board down, and one line of tegrastats."""
        with snapshot(shell, _FILES) as own:
            conditions = dict(_conditions(own))
        missing = dict(state.unavailable)
        said = shell.run(jetson_controls.QUERY)
        mode = jetson_controls.parse_mode(said.text)
        if mode is not None:
            conditions["power_mode"] = mode
        else:
            missing["power_mode"] = f"nvpmodel does not tell it: {(said.err or said.text).strip()[:100]}"
        if "clocks_pinned" not in conditions:
            missing["clocks_pinned"] = "the kernel shows no limits of clocks"
        if not any(name.startswith("fan.") for name in conditions):
            missing["fan"] = "the kernel shows no fan"
        line = _one_line(shell)
        if line:
            conditions["tegrastats"] = line
        else:
            missing["tegrastats"] = "there is no tegrastats"
        return replace(state, conditions=conditions, unavailable=missing)

    def sources(self, shell: Shell, tree: Path, root: str) -> Sequence[Source]:
        """What the kernel shows, the rails, the GPU, and what tegrastats says where that is wanted.

        Raises `TargetError` where the board lacks a rail that makes the energy.
        """
        found = rails(tree)
        counted = chosen(self._profile, [rail.label for rail in found])
        with snapshot(shell, _FILES) as own:
            gpu = list(_gpu(own))
        said = tegrastats.fed_sources(_one_line(shell), root) if self._tegrastats else ()
        return [*linux_sources(tree), *rail_sources(found, counted), *gpu, *said]

    def feeder(self, sources: Sequence[Source]) -> str | None:
        """The script that writes down what tegrastats says, where that is among the sources."""
        return tegrastats.FEEDER if any(source.path.endswith(tegrastats.FED) for source in sources) else None

    def _jetpack(self, shell: Shell, l4t: str) -> str | None:
        reply = shell.run(_PACKAGE)
        if reply.status == 0 and re.fullmatch(r"[\w.+~-]{1,64}", reply.text):
            return reply.text
        major, _, rest = l4t.partition(".")
        return _JETPACKS.get(f"{major}.{rest.partition('.')[0]}") or _JETPACKS.get(major)


def _one_line(shell: Shell) -> str:
    """Empty where there is no tegrastats."""
    return shell.script(tegrastats.ONE_LINE, silence_s=tegrastats.ONE_LINE_S).text


def parse_release(text: str) -> str | None:
    """The release of Linux for Tegra in /etc/nv_tegra_release, such as 36.4.3."""
    found = re.match(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else None


def _conditions(root: Path) -> Mapping[str, str]:
    """How clocks, fan and throttling are, as the kernel shows them."""
    found = {f"fan.{name}": value for name, value in jetson_controls.fan(root).items()}
    pinned = jetson_controls.pinned(root)
    if pinned is not None:
        found["clocks_pinned"] = "yes" if pinned else "no"
    for folder in sorted(root.glob("sys/class/devfreq/*")):
        known = [read(folder / f"{name}_freq") for name in ("cur", "min", "max")]
        if all(known):
            found[f"devfreq.{folder.name}"] = "{} Hz of {} to {}".format(*known)
    for device in sorted(root.glob("sys/class/thermal/cooling_device*")):
        if (state := integer(device / "cur_state")) is not None:
            found[f"cooling.{device.name}:{read(device / 'type') or 'unknown'}"] = str(state)
    for alarm in sorted(root.glob("sys/class/hwmon/hwmon*/curr*_crit_alarm")):
        if integer(alarm):
            found[f"alarm.{alarm.parent.name}:{alarm.name}"] = "overcurrent"
    return found


def _gpu(root: Path) -> Sequence[Source]:
    """Clock and load of the GPU, whose names differ between chips."""
    for folder in sorted(root.glob("sys/class/devfreq/*")):
        if "gpu" not in folder.name:
            continue
        path = f"sys/class/devfreq/{folder.name}"
        found = [Source("gpu.frequency", "Hz", "gauge", f"{path}/cur_freq")]
        if integer(folder / "device/load") is not None:
            found.append(Source("gpu.load", "share", "gauge", f"{path}/device/load", scale=1e-3))
        return found
    return []
