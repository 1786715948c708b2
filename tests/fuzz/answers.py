"""What devices, servers and programs answer. Pieces of one input are answers to questions; `%%` on a line parts them."""

from __future__ import annotations

import contextlib
import io
import plistlib
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import requests
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from meltrepro.errors import MeltreproError, TargetLost
from meltrepro.manifest.sources import HuggingFaceSource, PypiSource
from meltrepro.store import http, huggingface, pypi
from meltrepro.targets.android import adb
from meltrepro.targets.android.battery import parse as parse_supply
from meltrepro.targets.android.target import Android
from meltrepro.targets.ios import jobs as ios_jobs
from meltrepro.targets.ios import reports as ios_reports
from meltrepro.targets.ios import state as ios_state
from meltrepro.targets.jetson.target import Jetson
from meltrepro.targets.remote import jobs, procfs
from meltrepro.targets.remote.link import Channel, Chunk
from meltrepro.targets.remote.linux import LinuxPlatform
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.remote.snapshot import snapshot

PART = b"\n%%\n"
_ASKED = ("uname -m", "getprop", "dumpsys battery", "thermalservice", "android_id", "nvpmodel -q", "--interval", "dpkg")
"""A part of each question but snapshots of files, which come first; the order is that of the pieces."""


@dataclass
class _Said:
    """A command that says what it was told to, and ends: well, or as a piece that begins with `!` wants it."""

    nonce: str
    answer: bytes
    told: list[Chunk] = field(default_factory=list)

    def __post_init__(self) -> None:
        bad = self.answer.startswith(b"!")
        ends = f"{self.nonce} {int(bad)}\n".encode()
        said = Chunk("err" if bad else "out", self.answer[bad:])
        self.told = [Chunk("err", f"{self.nonce} 77\n".encode()), said, Chunk("err", ends)]

    def send(self, data: bytes) -> None: ...

    def end_input(self) -> None: ...

    def receive(self, timeout_s: float) -> Chunk | None:
        return self.told.pop(0) if self.told else None

    def close(self) -> None: ...


@dataclass
class Told:
    """A link to a device that answers with pieces."""

    pieces: Sequence[bytes]
    name: str = "device"

    def open(self, command: str) -> Channel:
        nonce = re.match(r"set -- ([0-9a-f]{16})", command)
        if nonce is None:
            raise TargetLost("it is gone")
        place = next((n for n, words in enumerate(_ASKED, 1) if words in command), 0)
        return _Said(nonce[1], self.pieces[place % len(self.pieces)])


def _device(platform: Callable[[], LinuxPlatform | Android]) -> Callable[[bytes, Path], object]:
    def read(data: bytes, _: Path) -> object:
        shell, device = Shell(Told(data.split(PART))), platform()
        with snapshot(shell) as tree:
            found = _looked(lambda: device.facts(shell, tree, "/data"))
            state = procfs.state(tree, wall_ns=1, monotonic_ns=1)
            _looked(lambda: device.state(shell, tree, state))
            return found, device.sources(shell, tree, "/data")

    return read


def _looked(ask: Callable[[], object]) -> object:
    """One of several questions to the same device."""
    try:
        return ask()
    except MeltreproError as error:
        return error.message.encode()


TREE = """@/proc/cpuinfo
=processor	: 0
=Features	: fp asimd asimddp
=CPU part	: 0xd05
@/proc/meminfo
=MemTotal:        8000000 kB
=MemAvailable:    4000000 kB
@/proc/loadavg
=0.50 0.40 0.30 1/200 3000
@/proc/stat
=cpu  100 0 200 3000 40 0 5 0 0 0
@/proc/pressure/cpu
=some avg10=0.50 avg60=0.10 avg300=0.00 total=100
@/etc/os-release
=PRETTY_NAME="Debian 13"
@/etc/machine-id
=0123456789abcdef0123456789abcdef
@/sys/class/thermal/thermal_zone0/type
=cpu
@/sys/class/thermal/thermal_zone0/temp
=41000
@/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq
=1800000
@/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor
=schedutil
@/sys/class/power_supply/battery/type
=Battery
@/sys/class/power_supply/battery/capacity
=64
@/sys/class/power_supply/battery/status
=Discharging
@/sys/class/power_supply/battery/voltage_now
=4102000
@/sys/class/power_supply/battery/current_now
=-312000
@/sys/class/power_supply/battery/charge_counter
=2793000
@/sys/class/hwmon/hwmon1/name
=ina3221
@/sys/class/hwmon/hwmon1/in1_label
=VDD_IN
@/sys/class/hwmon/hwmon1/in1_input
=5000
@/sys/class/hwmon/hwmon1/curr1_input
=400
@/sys/class/hwmon/hwmon0/pwm1
=58
@/etc/nv_tegra_release
=# R36 (release), REVISION: 4.0, GCID: 1, BOARD: generic
@/etc/nvpmodel.conf
=< POWER_MODEL ID=0 NAME=MAXN >
@/sys/fs/cgroup/memory.max
=max
@/sys/fs/cgroup/cpu.max
=max 100000"""
PIECES = (
    TREE,
    "aarch64\n8\n1000000 4096",
    "[ro.product.model]: [Pixel]\n[ro.serialno]: [0A1B2C]\n[ro.build.version.release]: [14]\n[ro.kernel.qemu]: [0]",
    "Current Battery Service state:\n  AC powered: false\n  Charge counter: 2793000\n  status: 3\n  present: true\n  level: 64\n  scale: 100\n  voltage: 4102\n  temperature: 283",
    "Thermal Status: 1\nCurrent temperatures from HAL:\n\tTemperature{mValue=37.2, mType=3, mName=SKIN, mStatus=1}\nCurrent cooling devices from HAL:",
    "0123456789abcdef",
    "NV Power Mode: MODE_15W\n2",
    "RAM 1822/7620MB (lfb 2x4MB) CPU [100%@1510,off] GR3D_FREQ 99%@[624] cpu@52.3C VDD_IN 9123mW/8800mW",
    "6.0+b106",
)


def _told() -> list[bytes]:
    return ["\n%%\n".join(PIECES).encode()]


def _small(data: bytes, folder: Path) -> object:
    """Answers that are read by themselves: how a job ended, a supply, reports and states of phones."""
    for piece in data.split(PART):
        text = piece.decode(errors="replace")
        _looked(lambda text=text: jobs._parse(text, "d"))  # type: ignore[misc]
        _looked(lambda text=text: parse_supply(text, "d"))  # type: ignore[misc]
        ios_jobs.parse_status(piece)
        ios_jobs.is_done(piece)
        ios_reports.parse_report(piece, "app", {"melt-runner"})
    return None


SMALL = (
    '{"exit": 0, "timed_out": false, "out_of_memory": false}',
    '{"bug_type": "298"}\n{"memoryStatus": {"pageSize": 16384}, "processes": [{"name": "melt-runner", "reason": "per-process-limit", "rpages": 5, "pid": 7}]}',
    '{"bug_type": "309"}\n{"procName": "melt-runner", "pid": 7, "exception": {"type": "EXC", "signal": "SIGSEGV"}, "termination": {"namespace": "SIGNAL", "code": 11}}',
    '{"v": 1}\n{"e": "done"}\n',
)


def _phone(data: bytes, _: Path) -> object:
    """What an iPhone's services tell, as property lists."""
    try:
        known = plistlib.loads(data)
    except Exception:  # the library's own reading is not ours
        return None
    if not isinstance(known, dict) or not all(isinstance(known.get(name), dict) for name in ("values", "battery")):
        return None
    values, battery = known["values"], known["battery"]
    _looked(lambda: ios_state.facts(values, battery, 10**9, 10**9, "phone"))
    return ios_state.state(values, battery, 5)


def _phones() -> list[bytes]:
    values = {
        "UniqueDeviceID": "00008110-001A2B3C4D5E6F70",
        "ProductType": "iPhone14,5",
        "ProductVersion": "16.7.2",
        "TimeIntervalSince1970": 1764000000.25,
        "MeltreproVirtual": True,
        "MeltreproPrograms": {"machine": "x86_64", "features": ["avx2"]},
    }
    battery = {
        "BatteryInstalled": True,
        "CurrentCapacity": 81,
        "MaxCapacity": 100,
        "IsCharging": False,
        "Voltage": 4012,
        "InstantAmperage": -312,
        "Temperature": 3029,
        "numberOfCpus": 6,
    }
    return [plistlib.dumps({"values": values, "battery": battery})]


@dataclass(frozen=True)
class _Server(adb.Server):
    """An adb server that answers with pieces."""

    pieces: tuple[bytes, ...] = ()

    def connect(self) -> socket.socket:
        here, there = socket.socketpair()
        there.settimeout(1)
        there.sendall((self.pieces[0] if self.pieces else b"")[:60_000])
        there.shutdown(socket.SHUT_WR)
        _KEPT.append(there)
        return here


_KEPT: list[socket.socket] = []


def _adb(data: bytes, _: Path) -> object:
    server = _Server(pieces=tuple(data.split(PART)))
    try:
        for ask in (server.devices, lambda: server.require(None), lambda: server.find("a"), server.check):
            _looked(ask)
        return server.ask("host:devices-l")
    finally:
        for each in _KEPT:
            each.close()
        _KEPT.clear()


LISTED = "0A1B\tdevice\nemulator-5554\toffline\n0A1B\tunauthorized\n"


class _Canned(BaseAdapter):
    """A server that gives the same answer to everything: a status, headers, and a body, by lines."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._head, _, self._body = answer.partition(b"\n\n")

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        status, *lines = self._head.decode("latin-1").split("\n")
        response = requests.Response()
        response.status_code = int(status) if re.fullmatch("[1-5][0-9]{2}", status) else 200
        for line in lines:
            name, value = ([*line.split(": ", 1), ""])[:2]
            if name and "\r" not in line:
                response.headers[name] = value
        response.url, response.request = str(request.url), request
        response.raw = HTTPResponse(io.BytesIO(self._body), preload_content=False, status=response.status_code)
        return response

    def close(self) -> None: ...


@contextlib.contextmanager
def _canned(answer: bytes) -> Iterator[Any]:
    """A stand-in for what sources ask of the network."""
    with requests.Session() as session:
        session.max_redirects = 3
        for scheme in ("https://", "http://"):
            session.mount(scheme, _Canned(answer))
        downloader = SimpleNamespace(
            require_network=lambda name: None,
            retry=SimpleNamespace(connect_s=1, silence_s=1),
            session=session,
            insist=lambda key, url, ask: ask(),
        )
        with (
            patch("meltrepro.store.sessions.new_session", lambda *_: session),
            patch("meltrepro.store.pypi.index_url", lambda: "https://index.example/simple/"),
        ):
            yield SimpleNamespace(downloader=downloader)


def _web(data: bytes, _: Path) -> object:
    """A hub and a package index that answer anything."""
    hub = HuggingFaceSource(huggingface="a/b", revision="0" * 40, file="m.gguf")
    package = PypiSource(pypi="a", version="1")
    with _canned(data) as context:
        for ask in (
            lambda: huggingface.list_files(hub, cast(Any, context)),
            lambda: pypi._find(package, cast(Any, context)),
        ):
            try:
                ask()
            except (http.Transient, requests.TooManyRedirects) as error:  # which the downloader tries again, and tells
                str(error).encode()
            except MeltreproError as error:
                error.one_line.encode()
        with http.network_errors("x", "https://h/x"):
            response = context.downloader.session.get("https://h/x", allow_redirects=False)
        return http.content_range(response), http.content_length(response), http.validator(response)


WEB = (
    '200\nContent-Type: application/json\nContent-Length: 5\n\n{"siblings": [{"rfilename": "config.json"}]}',
    '200\nContent-Type: application/vnd.pypi.simple.v1+json\n\n{"meta": {"api-version": "1.1"}, "name": "a", "versions": ["1"], "files": [{"filename": "a-1-py3-none-any.whl", "url": "https://h/a-1-py3-none-any.whl", "hashes": {"sha256": "%s"}, "size": 5}]}'
    % ("0" * 64),
    '200\nContent-Type: text/html\n\n<html><body><a href="a-1-py3-none-any.whl#sha256=%s">a-1-py3-none-any.whl</a></body></html>'
    % ("0" * 64),
    '429\nRetry-After: 120\nContent-Range: bytes 0-4/5\nETag: "x"\n\n',
    "302\nLocation: http://other/\n\n",
)


def _bytes(texts: Sequence[str]) -> Callable[[], list[bytes]]:
    return lambda: [text.encode() for text in texts]


KINDS: dict[str, tuple[Callable[[bytes, Path], object], Callable[[], Sequence[bytes]], str]] = {
    "device-android": (_device(Android), _told, "text"),
    "device-linux": (_device(lambda: LinuxPlatform("linux")), _told, "text"),
    "device-jetson": (_device(lambda: Jetson("all", tegrastats=True)), _told, "text"),
    "device-iphone": (_phone, _phones, "text"),
    "device-words": (_small, _bytes(SMALL), "json"),
    "adb-server": (_adb, _bytes([f"OKAY{len(LISTED):04x}{LISTED}", "FAIL0009not found", "OKAY00040029"]), "text"),
    "web": (_web, _bytes(WEB), "text"),
}
