"""Real OpenSSH servers for tests: own keys, own configuration, own loopback port; and an agent."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROGRAM = shutil.which("sshd", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin") or "/usr/sbin/sshd"
USER = getpass.getuser()


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair; returns the private one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sshd:
    """A server in a folder; it lets this user in by the keys of `authorized`."""

    folder: Path
    options: tuple[str, ...] = ()
    address: str = "127.0.0.1"
    before: tuple[str, ...] = ()
    """What comes before its command, where it is to run elsewhere."""
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.host_key = make_key(self.folder / "host_key")
        self.authorized = self.folder / "authorized_keys"
        self.authorized.touch(mode=0o600)

    def allow(self, key: Path) -> None:
        """Let the owner of a key in."""
        with self.authorized.open("a") as file:
            file.write(Path(f"{key}.pub").read_text())

    @property
    def known(self) -> str:
        """Its line for a file of known hosts."""
        kind, key, *_ = Path(f"{self.host_key}.pub").read_text().split()
        return f"[{self.address}]:{self.port} {kind} {key}\n"

    @property
    def fingerprint(self) -> str:
        command = ["ssh-keygen", "-l", "-f", f"{self.host_key}.pub"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return said.split()[1]

    def start(self) -> Sshd:
        """Start it, and wait until it listens."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.folder / "sshd_config"
        lines = [
            *(f"Port {self.port}", f"ListenAddress {self.address}", f"HostKey {self.host_key}", "PidFile none"),
            *(f"AuthorizedKeysFile {self.authorized}", "StrictModes no", "UsePAM no", "PermitRootLogin yes"),
            *("PasswordAuthentication no", "KbdInteractiveAuthentication no", "MaxStartups 100"),
        ]
        # The first value counts; blocks come last.
        config.write_text("\n".join([*self.options, *lines]) + "\n")
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.before, PROGRAM, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection((self.address, self.port), timeout=1).close()
                return self
            time.sleep(0.02)
        pytest.fail((self.folder / "sshd.log").read_text())

    def stop(self, *, sessions: bool = True) -> None:
        """Kill the server and, unless told otherwise, the processes of its sessions; what those run lives on."""
        if self._process is None:
            return
        pids = [self._process.pid, *(_descendants(self._process.pid, "sshd") if sessions else [])]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Let the processes of its sessions neither answer nor go away."""
        assert self._process is not None
        for pid in _descendants(self._process.pid, "sshd"):
            os.kill(pid, signal.SIGSTOP)


def _descendants(pid: int, name: str) -> list[int]:
    """Processes below one, as far as their names begin so."""
    found = []
    with contextlib.suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().startswith(name):
                    found += [child, *_descendants(child, name)]
    return found


@contextlib.contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[str]:
    """A real ssh-agent that holds keys; gives its socket."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        for key in keys:
            command = ["ssh-add", "-q", str(key)]
            subprocess.run(command, check=True, env={**os.environ, "SSH_AUTH_SOCK": str(path)})
        yield str(path)
    finally:
        process.terminate()
        process.wait()


@dataclass
class Home:
    """A user's `~/.ssh` of its own."""

    folder: Path

    def __post_init__(self) -> None:
        self.ssh = self.folder / ".ssh"
        self.ssh.mkdir(parents=True, mode=0o700)
        self.known_hosts = self.ssh / "known_hosts"

    def host(self, name: str, server: Sshd, *lines: str, key: Path | None = None) -> None:
        """Write a host into the configuration."""
        settings = [f"HostName {server.address}", f"Port {server.port}", f"User {USER}", *lines]
        settings += [f"IdentityFile {key}"] if key else []
        with (self.ssh / "config").open("a") as file:
            file.write("\n    ".join([f"Host {name}", *settings]) + "\n")

    def know(self, server: Sshd) -> None:
        with self.known_hosts.open("a") as file:
            file.write(server.known)


def words(text: str) -> str:
    """A message in one line, as patterns expect it."""
    return re.sub(r"\s+", " ", text)
