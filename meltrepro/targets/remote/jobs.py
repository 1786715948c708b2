"""Programs that run detached on a device: started once, waited for across lost links, never started twice blindly.

    <root>/jobs/<name>/    the working folder: what the program reads and writes, its logs, its status

The agent of the bundle (docs/runner.md) supervises them there, so that deadlines hold while no link does.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meltrepro.errors import TargetError, TargetLost
from meltrepro.interrupts import held
from meltrepro.record import trial as record
from meltrepro.targets.base import arriving
from meltrepro.targets.remote.shell import Reply, Shell
from meltrepro.untrusted import Tampered, load_json

_HEARTBEAT_S = 35.0
"""The agent is heard every ten seconds while a job runs."""
_NO_JOB, _WITHOUT_END = 3, 4
"""Exit statuses of the agent."""
_NO_AGENT = (126, 127)
"""Exit statuses of a shell that cannot start it: a phone that was rebooted may keep its storage locked."""
_STOP_S = 40.0
_NAME = re.compile(r"[a-z]+-[0-9a-f]{16}")

_CREATE = """
mkdir -p "$1" && cd "$1" || exit 1
shift
while [ $# -gt 0 ]; do
    ln -sfn "$2" "$1" || exit 1
    shift 2
done
"""
# Digests are taken of what is read: of a file whose name holds a backslash they are printed in another way.
_WRITE = 'cat > "$1.part" && sum=$(sha256sum < "$1.part") && mv "$1.part" "$1" && echo "${sum%% *}"'
_REMOVE = 'rm -rf "$1"'
_LIST = 'cd "$1/jobs" 2>/dev/null || exit 0; for job in *; do [ -d "$job" ] && echo "$job"; done; exit 0'
# No link is followed, no pipe waited for, and no more read than a record may hold and one byte, which betrays the rest.
_DIGEST = """
[ -L "$1" ] && { echo odd; exit; }
[ -e "$1" ] || { echo absent; exit; }
[ -f "$1" ] || { echo odd; exit; }
sum=$(head -c "$2" "$1" | sha256sum) && echo "${sum%% *}"
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended on a device."""

    exit: int
    """Exit status; 128 + signal number where a signal ended it."""
    timed_out: bool = False
    out_of_memory: bool = False


class Job:
    """One job; its folder is on the device until `Jobs.remove`."""

    def __init__(self, shell: Shell, path: str) -> None:
        self._shell = shell
        self.path = path

    def create(self, programs: Mapping[str, str]) -> None:
        """Make its folder, in which programs and folders of the cache go by their names; one of them is `agent`.

        Where a link broke in the middle of this call, the same call is right again.
        """
        links = [word for link in programs.items() for word in link]
        self._shell.expect(self._shell.script(_CREATE, self.path, *links), f"use {self.path}")

    def write(self, name: str, data: bytes) -> None:
        """Put a small file into the folder, verified."""
        reply = self._shell.script(_WRITE, f"{self.path}/{name}", source=[data])
        found = self._shell.expect(reply, f"write {name}").text
        if found != hashlib.sha256(data).hexdigest():
            raise TargetLost(f"{self._shell.link.name}: {name} arrived there damaged")

    def start(self, argv: Sequence[str], timeout_s: float) -> None:
        """Start a program for at most so long; does nothing where it was started already.

        So where a link broke in the middle of this call, the same call is right again.
        """
        agent = f"{self.path}/agent"
        reply = self._shell.run([agent, "supervise", self.path, f"{timeout_s:.3f}", *argv])
        if reply.status == _NO_JOB and self._was_started():
            return
        self._shell.expect(reply, f"start {argv[0]}")

    def wait(self) -> Ended:
        """Wait until it has ended; raises `TargetLost` where the link breaks, and then may be called again.

        Raises `JobVanished` where it will never end: the device was rebooted, or its supervisor killed.
        """
        beats = bytearray()
        with contextlib.closing(self._shell.open([f"{self.path}/agent", "wait", self.path])) as running:
            reply = running.finish(sink=beats.extend, silence_s=_HEARTBEAT_S)
        if reply.status in (_NO_JOB, _WITHOUT_END, *_NO_AGENT):
            raise JobVanished(
                f"{self._shell.link.name}: the trial vanished: its supervisor was killed, or its folder removed"
            )
        self._shell.expect(reply, "wait for the trial")
        return _parse(bytes(beats).lstrip(b".").decode("utf-8", errors="replace"), self._shell.link.name)

    def stop(self) -> bool:
        """End it with everything that it started; returns whether anything ran."""
        reply = self._shell.run([f"{self.path}/agent", "stop", self.path], silence_s=_STOP_S)
        return self._shell.expect(reply, "stop a trial").text == "stopped"

    def fetch(self, name: str, local: Path) -> bool:
        """Bring a file of the folder here, verified; `False` where there is none.

        Raises `Tampered` for anything but a plain file, and `StoreError`.
        """
        path, most = f"{self.path}/{name}", str(record.most_bytes(local.name) + 1)
        expected = self._shell.expect(self._shell.script(_DIGEST, path, most), f"read {name}").text
        if expected == "odd":
            raise Tampered(f"{name} on {self._shell.link.name} is none")
        if expected == "absent":
            return False
        found = hashlib.sha256()
        with arriving(local) as file:

            def take(data: bytes) -> None:
                found.update(data)
                file.write(data)

            self._shell.expect(self._shell.run(["head", "-c", most, path], sink=take), f"read {name}")
            if found.hexdigest() != expected:
                raise TargetLost(f"{self._shell.link.name}: {name} arrived damaged")
        return True

    def _was_started(self) -> bool:
        return self._shell.run(["test", "-f", f"{self.path}/supervisor"]).status == 0


class JobVanished(TargetLost):
    """A job's supervisor is gone without a word."""


class Jobs:
    """The jobs of one device, below `root`."""

    def __init__(self, shell: Shell, root: str) -> None:
        self._shell = shell
        self._root = root
        self._held: set[str] = set()
        """Folders that somebody in this process still reads."""

    def new(self, kind: str) -> Job:
        """A new job, of which nothing is on the device yet."""
        job = Job(self._shell, f"{self._root}/jobs/{kind}-{secrets.token_hex(8)}")
        self._held.add(job.path)
        return job

    def end(self, job: Job) -> bool:
        """Stop a job and remove its folder; returns whether it still ran. Raises `TargetLost`; the same call is right again."""
        self._held.discard(job.path)
        with held():
            running = self._stop(job)
            self._shell.expect(self._shell.script(_REMOVE, job.path), "remove a trial's folder")
        return running

    def stop_all(self) -> int:
        """Stop every job, and remove those that nobody here reads any more; returns how many still ran."""
        running = 0
        for name in self._names():
            job = Job(self._shell, f"{self._root}/jobs/{name}")
            running += self._stop(job) if job.path in self._held else self.end(job)
        return running

    def _stop(self, job: Job) -> bool:
        try:
            return job.stop()
        except TargetLost:
            raise
        except TargetError:
            return False  # one whose agent was removed, or has not come yet, cannot run

    def _names(self) -> list[str]:
        reply: Reply = self._shell.expect(self._shell.script(_LIST, self._root), f"read {self._root}")
        return [name for name in reply.text.splitlines() if _NAME.fullmatch(name)]


def _parse(text: str, device: str) -> Ended:
    try:
        known = load_json(text)
        exit, timed_out, out_of_memory = (known[name] for name in ("exit", "timed_out", "out_of_memory"))
    except (ValueError, KeyError, TypeError):
        exit = None
    if type(exit) is not int or not 0 <= exit <= 255:
        raise TargetLost(f"{device}: a garbled status: {text[:100]!r}")
    return Ended(exit, bool(timed_out), bool(out_of_memory))
