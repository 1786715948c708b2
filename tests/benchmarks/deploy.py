"""How long does a first deployment take, beside `adb push` or `scp` of the same file? Interleaved, on the lab's devices.

    .venv/bin/python -m tests.benchmarks.deploy [--device phone|jetson|sshd] [--megabytes 500] [--repetitions 5]

Ours is the whole deployment, with which the device also hashes the file; the other only sends it (`scp` with the same
cipher). Then the same deployment again, with nothing to send. Goals: 0.9 of the other's speed at least, and 1 s. The lab's
devices have this machine's CPU; `sshd` is a server of this machine alone. Needs root, as the lab does.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from meltrepro.lab.jetson import USER
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.android.adb_server import program
from meltrepro.targets.base import AGENT
from meltrepro.targets.remote.deploy import DeviceCache
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.ssh.config import Route
from meltrepro.targets.ssh.link import SshLink
from tests.benchmarks._llama import build_for
from tests.benchmarks._table import Row, beside, figure, finish
from tests.integration.conftest import attached_board, attached_phone
from tests.support.sshd import Sshd, make_key

_TMP = "/data/local/tmp"
Sent = tuple[Path, str, Path]
"""A file, its digest, and an agent."""


def main() -> int:
    """Print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(_DEVICES), action="append")
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "file"
        digest = _random(file, options.megabytes * 10**6)
        sent = (
            file,
            digest,
            build_for("2024-02-27", "x86_64_v3" if platform.machine() == "x86_64" else "armv8_2") / AGENT,
        )
        rows = [_DEVICES[device](folder, sent, options.repetitions) for device in options.device or _DEVICES]
    return finish(list(chain.from_iterable(rows)))


def _phone(folder: Path, sent: Sent, repetitions: int) -> list[Row]:
    with attached_phone(folder / "phone") as (phone, adb):
        push = [program(), "-P", str(adb.server.port), "-s", phone.address, "push", str(sent[0]), f"{_TMP}/pushed"]
        shell = Shell(AdbLink(adb.server, phone.address))
        return _compare("phone", shell, _TMP, "`adb push`", push, sent, repetitions)


def _jetson(folder: Path, sent: Sent, repetitions: int) -> list[Row]:
    with attached_board(folder / "jetson") as (board, link):
        push = _scp(board.relay.port, board.key, board.known_hosts, sent[0], f"{USER}@127.0.0.1:/var/tmp/pushed")
        return _compare("board", Shell(link), "/var/tmp", "`scp`", push, sent, repetitions)


def _sshd(folder: Path, sent: Sent, repetitions: int) -> list[Row]:
    server, key = Sshd(folder / "sshd", ("Subsystem sftp internal-sftp",)), make_key(folder / "key")
    server.allow(key)
    server.start()
    (known := folder / "known").write_text(server.known)
    route = Route("sshd", "127.0.0.1", server.port, getpass.getuser(), (key,), (known,), keys_alone=True)
    link = SshLink("sshd", lambda: route)
    try:
        push = _scp(server.port, key, known, sent[0], f"127.0.0.1:{folder}/pushed")
        return _compare("sshd", Shell(link), str(folder), "`scp`", push, sent, repetitions)
    finally:
        link.close()
        server.stop()


_DEVICES = {"phone": _phone, "jetson": _jetson, "sshd": _sshd}


def _scp(port: int, key: Path, known: Path, file: Path, to: str) -> list[str]:
    return [
        *("scp", "-q", "-B", "-P", str(port), "-i", str(key), "-c", "aes128-gcm@openssh.com"),
        *("-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", str(file), to),
    ]


def _compare(
    name: str, shell: Shell, folder: str, other: str, command: Sequence[str], sent: Sent, repetitions: int
) -> list[Row]:
    """The rows of one device. `command` is the other way to send the file."""
    file, digest, agent = sent
    ours = DeviceCache(shell, f"{folder}/meltrepro")
    ours.agent = ours.deploy(agent, hashlib.sha256(agent.read_bytes()).hexdigest())

    def push() -> None:
        shell.run(["rm", "-f", f"{folder}/pushed"])
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    def deploy() -> None:
        ours.forget(digest)
        ours.deploy(file, digest)

    theirs_s, ours_s = _interleaved([push, deploy], repetitions)
    (again_s,) = _interleaved([lambda: ours.deploy(file, digest)], repetitions)
    what = f"{file.stat().st_size / 1e6:.0f} MB to the {name}"
    return [
        beside(f"{what}, verified", ours_s, other, theirs_s, "s", at_least=0.9),
        figure(f"{what}, unchanged", again_s, "s", at_most=1),
    ]


def _interleaved(ways: list[Callable[[], object]], repetitions: int) -> list[list[float]]:
    """Seconds of each way; each begins a round in turn."""
    seconds: dict[int, list[float]] = {i: [] for i in range(len(ways))}
    for repetition in range(repetitions):
        for i in [*seconds][repetition % len(ways) :] + [*seconds][: repetition % len(ways)]:
            os.sync()
            began = time.monotonic()
            ways[i]()
            seconds[i].append(time.monotonic() - began)
    return [*seconds.values()]


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
