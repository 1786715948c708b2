"""How long does a first deployment take, beside `adb push` or `scp` of the same file? Interleaved, on the lab's devices.

    .venv/bin/python -m tests.benchmarks.deploy [--device phone|jetson] [--megabytes 500] [--repetitions 5] [--verified 1]

Three figures, as medians: the transfer alone against `adb push` (`scp` with the same cipher); the whole deployment, which
has the device hash the file, against that and `sha256sum` on the device (done fewer times); and the same deployment again,
with nothing to send. Goals: the transfer at 0.9 of the other at least, the second one within 1 s. Needs root, as the
lab does.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from meltrepro.lab.jetson import USER
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.android.adb_server import program
from meltrepro.targets.base import AGENT
from meltrepro.targets.remote.deploy import DeviceCache
from meltrepro.targets.remote.shell import Shell
from tests.benchmarks._llama import build_for
from tests.integration.conftest import attached_board, attached_phone

_TMP = "/data/local/tmp"


class Unverified(DeviceCache):
    """A cache that believes what it sent, to time the transfer alone."""

    def _verify(self, digest: str, suffix: str, size: int) -> str | None:
        return None


def main() -> int:
    """Print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("phone", "jetson"), action="append")
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--verified", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "file"
        digest = _random(file, options.megabytes * 10**6)
        return max(_DEVICES[device](folder, file, digest, options) for device in options.device or _DEVICES)


def _phone(folder: Path, file: Path, digest: str, options: argparse.Namespace) -> int:
    agent = build_for("2024-02-27", "x86_64_v3" if platform.machine() == "x86_64" else "armv8_2") / AGENT
    with attached_phone(folder / "phone") as (phone, adb):
        push = [program(), "-P", str(adb.server.port), "-s", phone.address, "push", str(file), f"{_TMP}/pushed"]
        shell = Shell(AdbLink(adb.server, phone.address))
        return _compare(shell, _TMP, "adb push", push, (file, digest, agent), options)


def _jetson(folder: Path, file: Path, digest: str, options: argparse.Namespace) -> int:
    agent = build_for("2024-02-27", "x86_64_v3" if platform.machine() == "x86_64" else "armv8_2") / AGENT
    with attached_board(folder / "jetson") as (board, link):
        push = [
            *("scp", "-q", "-B", "-P", str(board.relay.port), "-i", str(board.key), "-c", "aes128-gcm@openssh.com"),
            *("-F", "none", "-o", f"UserKnownHostsFile={board.known_hosts}", "-o", "StrictHostKeyChecking=yes"),
            *(str(file), f"{USER}@127.0.0.1:/var/tmp/pushed"),
        ]
        return _compare(Shell(link), "/var/tmp", "scp", push, (file, digest, agent), options)


_DEVICES = {"phone": _phone, "jetson": _jetson}


def _compare(
    shell: Shell,
    folder: str,
    other: str,
    command: Sequence[str],
    sent: tuple[Path, str, Path],
    options: argparse.Namespace,
) -> int:
    """Print the table of one device; 1 where a goal is missed. `command` is the other way to send the file."""
    file, digest, agent = sent
    root, pushed = f"{folder}/meltrepro", f"{folder}/pushed"
    ours, unverified = DeviceCache(shell, root), Unverified(shell, root)
    agent_digest = hashlib.sha256(agent.read_bytes()).hexdigest()
    ours.agent = unverified.agent = ours.deploy(agent, agent_digest)

    def push() -> None:
        shell.run(["rm", "-f", pushed])
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    def transfer() -> None:
        unverified.deploy(file, digest)
        unverified.forget(digest)

    def push_and_hash() -> None:
        push()
        shell.expect(shell.run(["sha256sum", pushed], silence_s=600), "hash")

    def deploy() -> None:
        ours.forget(digest)
        ours.deploy(file, digest)

    alone = _interleaved([push, transfer], options.repetitions)
    verified = _interleaved([push_and_hash, deploy], options.verified)
    again = _interleaved([lambda: ours.deploy(file, digest)], options.repetitions)[0]
    size_mb = file.stat().st_size / 1e6
    print(f"{size_mb:.0f} MB to {shell.link.name}, {options.repetitions} interleaved repetitions, medians")
    ratio = alone[0] / alone[1]
    print(f"{other:24} {alone[0]:7.2f} s   {size_mb / alone[0]:6.0f} MB/s")
    print(f"transfer                 {alone[1]:7.2f} s   {size_mb / alone[1]:6.0f} MB/s   ratio {ratio:.2f}")
    print(f"{other + ' and sha256sum':24} {verified[0]:7.2f} s   ({options.verified} repetitions)")
    print(f"deployment, verified     {verified[1]:7.2f} s                 ratio {verified[0] / verified[1]:.2f}")
    print(f"unchanged                {again:7.2f} s")
    return 0 if ratio >= 0.9 and again <= 1.0 else 1


def _interleaved(ways: list[Callable[[], object]], repetitions: int) -> list[float]:
    """Median seconds of each way; each begins a round in turn."""
    seconds: dict[int, list[float]] = {i: [] for i in range(len(ways))}
    for repetition in range(repetitions):
        for i in [*seconds][repetition % len(ways) :] + [*seconds][: repetition % len(ways)]:
            os.sync()
            began = time.monotonic()
            ways[i]()
            seconds[i].append(time.monotonic() - began)
    return [statistics.median(found) for found in seconds.values()]


def _random(path: Path, size: int) -> str:
    """Bytes that cannot be compressed; returns their sha256."""
    found = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            data = os.urandom(min(1 << 20, size - start))
            found.update(data)
            file.write(data)
    return found.hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
