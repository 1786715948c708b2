"""Docker engines: find the one that answers, or run a private one where nobody else may start it.

The private engine needs no network (builds have none), keeps everything below the cache folder, and is started by
`meltrepro doctor --fix` alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from meltrepro.errors import EngineError
from meltrepro.settings import Settings

if TYPE_CHECKING:
    import docker

_HINT = "start one with: meltrepro doctor --fix; or work without: --engine process"
_SYSTEM_SOCKET = Path("/var/run/docker.sock")
_SOCKET_LIMIT = 100
"""Unix socket paths may have 107 bytes."""
_START_S = 60.0


def connect(settings: Settings, environ: Mapping[str, str] = os.environ) -> docker.DockerClient:
    """A client of the engine: DOCKER_HOST, our private one, the system's; raises `EngineError` where none answers."""
    import docker
    import requests
    from docker.errors import DockerException

    tried = []
    for url in _candidates(settings, environ):
        try:
            client = docker.DockerClient(base_url=url, timeout=600)
            client.ping()
        except (DockerException, requests.RequestException) as error:
            tried.append(f"{url} ({str(error).splitlines()[0][:120]})")
            continue
        return client
    raise EngineError("no Docker engine answers; tried " + ", ".join(tried or ["no socket"]), hint=_HINT)


def _candidates(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    if environ.get("DOCKER_HOST"):
        yield environ["DOCKER_HOST"]
        return
    for path in (_socket(settings), _SYSTEM_SOCKET):
        if path.exists():
            yield f"unix://{path}"


def running(settings: Settings) -> int | None:
    """Process id of our private engine, or `None`."""
    try:
        pid = int(_pid_file(settings).read_text())
        command = Path("/proc", str(pid), "cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"dockerd" in command and str(_data(settings)).encode() in command else None


def start(settings: Settings, announce: Callable[[str], None]) -> None:
    """Start the private engine unless it runs; raises `EngineError` with its log's last lines where it does not come up."""
    if running(settings) is not None:
        return
    program = shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise EngineError("dockerd is not installed", hint="apt-get install docker.io")
    settings.run.mkdir(parents=True, exist_ok=True)
    _data(settings).mkdir(parents=True, exist_ok=True)
    log = settings.run / "dockerd.log"
    announce(f"starting a private Docker engine, data in {_data(settings)}, log in {log}")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                *("--host", f"unix://{_socket(settings)}", "--data-root", str(_data(settings))),
                *("--exec-root", str(_short(settings) / "exec"), "--pidfile", str(_pid_file(settings))),
                *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(EngineError):
            connect(settings, {"DOCKER_HOST": f"unix://{_socket(settings)}"}).close()
            return
        time.sleep(0.2)
    tail = "\n".join("    " + line for line in log.read_text(errors="replace").splitlines()[-8:])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    raise EngineError(f"the private Docker engine did not come up:\n{tail}", hint=f"its whole log is in {log}")


def stop(settings: Settings) -> bool:
    """Stop the private engine with everything that it started; returns whether it ran."""
    pid = running(settings)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while running(settings) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    # dockerd is the leader of its session; whatever of it is left (containerd, shims) goes with the group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    shutil.rmtree(_short(settings), ignore_errors=True)
    _pid_file(settings).unlink(missing_ok=True)
    return True


def _data(settings: Settings) -> Path:
    return settings.cache / "docker"


def _pid_file(settings: Settings) -> Path:
    return settings.run / "dockerd.pid"


def _socket(settings: Settings) -> Path:
    return _short(settings) / "docker.sock"


def _short(settings: Settings) -> Path:
    """The folder of sockets; a short one elsewhere where the cache's path is too long for them."""
    folder = settings.run / "docker"
    if len(str(folder / "exec" / "containerd" / "containerd-debug.sock")) <= _SOCKET_LIMIT:
        return folder
    key = hashlib.sha256(os.fsencode(settings.run)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"meltrepro-{os.getuid()}-{key}"
