"""How long does a first deployment take, beside `adb push` of the same file? Interleaved, on the lab's virtual phone.

    .venv/bin/python -m tests.benchmarks.deploy [--megabytes 500] [--repetitions 5] [--verified 1]

Three figures, as medians: the transfer alone against `adb push`; the whole deployment, which has the phone hash the file,
against `adb push` and `sha256sum` on the phone (an emulated CPU hashes slowly, so this is done fewer times); and the same
deployment again, with nothing to send. Goals: the transfer at 0.9 of `adb push` at least, the second one within 1 s.
Needs root, as the lab does.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from meltrepro.lab.phone import VirtualPhone
from meltrepro.targets.adb import AdbLink, Server, program
from meltrepro.targets.base import AGENT
from meltrepro.targets.depot import Depot
from meltrepro.targets.shell import Shell
from tests.benchmarks._llama import build_for
from tests.integration.conftest import attached_phone

ROOT = "/data/local/tmp/meltrepro"
PUSHED = "/data/local/tmp/pushed"


class Unverified(Depot):
    """A depot that believes what it sent, to time the transfer alone."""

    def _verify(self, digest: str, suffix: str, size: int) -> str | None:
        return None


def main() -> int:
    """Print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--verified", type=int, default=1)
    options = parser.parse_args()
    agent = build_for("2024-02-27", "armv8_2") / AGENT
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "file"
        digest = _random(file, options.megabytes * 10**6)
        with attached_phone(folder / "lab") as (phone, adb):
            return _compare(phone, adb.server, file, digest, agent, options)


def _compare(
    phone: VirtualPhone, server: Server, file: Path, digest: str, agent: Path, options: argparse.Namespace
) -> int:
    shell = Shell(AdbLink(server, phone.address))
    ours, unverified = Depot(shell, ROOT), Unverified(shell, ROOT)
    agent_digest = hashlib.sha256(agent.read_bytes()).hexdigest()
    ours.agent = unverified.agent = ours.deploy(agent, agent_digest)
    adb = [program(), "-P", str(server.port), "-s", phone.address]

    def push() -> None:
        shell.run(["rm", "-f", PUSHED])
        subprocess.run([*adb, "push", file, PUSHED], check=True, capture_output=True)

    def transfer() -> None:
        unverified.deploy(file, digest)
        unverified.forget(digest)

    def push_and_hash() -> None:
        push()
        shell.expect(shell.run(["sha256sum", PUSHED], silence_s=600), "hash")

    def deploy() -> None:
        ours.forget(digest)
        ours.deploy(file, digest)

    sent = _interleaved([push, transfer], options.repetitions)
    verified = _interleaved([push_and_hash, deploy], options.verified)
    again = _interleaved([lambda: ours.deploy(file, digest)], options.repetitions)[0]
    size_mb = file.stat().st_size / 1e6
    print(f"{size_mb:.0f} MB to the virtual phone, {options.repetitions} interleaved repetitions, medians")
    ratio = sent[0] / sent[1]
    print(f"adb push                 {sent[0]:7.2f} s   {size_mb / sent[0]:6.0f} MB/s")
    print(f"transfer                 {sent[1]:7.2f} s   {size_mb / sent[1]:6.0f} MB/s   ratio {ratio:.2f}")
    print(f"adb push and sha256sum   {verified[0]:7.2f} s   ({options.verified} repetitions)")
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
