"""Docker engines: take the one that answers, or run a private one where no service manager does.

The private engine needs no network (builds have none), keeps everything below the cache folder, and is started by
`meltrepro doctor --fix` alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING

from meltrepro.build import contexts
from meltrepro.build.contexts import Address
from meltrepro.errors import EngineError
from meltrepro.settings import Settings

if TYPE_CHECKING:
    import docker
    import psutil

HINT = "start one with: meltrepro doctor --fix; or work without: --engine process"
OURS = "meltrepro doctor --fix"
"""What names the private engine."""
_SOCKET_LIMIT = 107
"""Bytes that the path of a Unix socket may have."""
_LONGEST_SOCKET = "exec/containerd/containerd.sock.ttrpc"
_PING_S = 10
_REQUEST_S = 600
_START_S = 60.0
_STOP_S = 30.0


def connect(settings: Settings, environ: Mapping[str, str] = os.environ) -> docker.DockerClient:
    """A client of the engine that `find` finds; raises `EngineError` where none answers."""
    return find(settings, environ)[0]


def find(settings: Settings, environ: Mapping[str, str] = os.environ) -> tuple[docker.DockerClient, Address]:
    """The engine that the user names as for `docker ps`, else the first that answers: ours, the system's, the user's.

    Raises `EngineError` where none answers.
    """
    tried, hint = [], HINT
    chosen = contexts.named(environ)
    for address in (chosen,) if chosen is not None else _candidates(settings, environ):
        try:
            return _client(address), address
        except EngineError as error:
            tried.append(f"{address} ({error.message})")
    if chosen is not None:
        hint = chosen.remedy
    if any("Permission denied" in one for one in tried):
        hint = "you may not use its socket: run as root or in the group docker; or work without: --engine process"
    raise EngineError("no Docker engine answers; tried " + ", ".join(tried or ["no socket"]), hint=hint)


def _client(address: Address) -> docker.DockerClient:
    import docker
    import requests
    from docker.errors import DockerException

    try:
        # A hung engine must be noticed at once; the requests that follow may be builds and take their time.
        client = docker.DockerClient(base_url=address.host, timeout=_PING_S, **address.options)
        client.ping()
    except (DockerException, requests.RequestException, OSError, ValueError) as error:
        reason = str(error).strip() or type(error).__name__
        raise EngineError(reason.splitlines()[0][:160], hint=HINT) from error
    client.api.timeout = _REQUEST_S
    return client


def _candidates(settings: Settings, environ: Mapping[str, str]) -> Iterator[Address]:
    if _is_ours(folder_of(settings)) and _socket(settings).exists():
        yield _address(settings)
    yield from contexts.sockets(environ)


def running(settings: Settings) -> int | None:
    """Process id of our private engine, or `None`."""
    import psutil

    with contextlib.suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(_pid_file(settings).read_text()))
        return process.pid if _is_ours_as(process, "dockerd", {str(_data(settings))}) else None
    return None


def start(settings: Settings, announce: Callable[[str], None]) -> None:
    """Start the private engine unless it runs, and wait until it answers; `announce` is told before anything happens.

    Raises `EngineError` with the last lines of its log where it does not come up.
    """
    from meltrepro.store.locks import exclusive

    with exclusive(settings.run / "dockerd.lock", "starting a Docker engine", announce):
        if running(settings) is not None:
            _wait(settings, None)
            return
        program = shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if program is None:
            raise EngineError("dockerd is not installed", hint="as root: apt-get install docker.io")
        announce(f"starting a private Docker engine, data in {_data(settings)}, log in {_log(settings)}")
        _clear(settings)  # what an engine that was killed has left
        process = _spawn(settings, program)
        try:
            _wait(settings, process)
        except BaseException:
            process.kill()
            process.wait()
            _clear(settings)
            raise


def _spawn(settings: Settings, program: str) -> subprocess.Popen[bytes]:
    folder = folder_of(settings)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(folder):
        raise EngineError(f"{folder} belongs to somebody else", hint="remove it, or set MELTREPRO_CACHE")
    _data(settings).mkdir(parents=True, exist_ok=True)
    with _log(settings).open("wb") as output:
        return subprocess.Popen(
            [
                program,
                *("--host", f"unix://{_socket(settings)}", "--data-root", str(_data(settings))),
                *("--exec-root", str(folder / "exec"), "--pidfile", str(_pid_file(settings))),
                *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            ],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(settings: Settings, process: subprocess.Popen[bytes] | None) -> None:
    """Until the engine answers; `process` is ours to watch where we started it."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and (process.poll() is None if process else running(settings) is not None):
        with contextlib.suppress(EngineError):
            _client(_address(settings)).close()
            return
        time.sleep(0.2)
    tail = "\n".join("    " + line for line in _log(settings).read_text(errors="replace").splitlines()[-8:])
    raise EngineError(f"the private Docker engine did not come up:\n{tail}", hint=f"its log is {_log(settings)}")


def stop(settings: Settings) -> bool:
    """Stop the private engine with its containers and helpers, and undo its mounts; returns whether it ran."""
    pid = running(settings)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while running(settings) is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        if running(settings) is not None:
            os.kill(pid, signal.SIGKILL)
    return _clear(settings) or pid is not None


def _clear(settings: Settings) -> bool:
    """End what a private engine left behind: helpers with their containers, mounts, sockets; whether a process ran."""
    import psutil

    left = list(_helpers(settings))
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)
    for mount in _mounts(settings):
        with contextlib.suppress(FileNotFoundError):  # a Debian made of essential packages alone
            subprocess.run(["umount", "--lazy", str(mount)], capture_output=True, check=False)
    if _is_ours(folder_of(settings)) and not _mounts(settings):
        shutil.rmtree(folder_of(settings), ignore_errors=True)
    _pid_file(settings).unlink(missing_ok=True)
    return bool(left)


def _helpers(settings: Settings) -> Iterator[psutil.Process]:
    """containerd, its shims and what runs below those; all of them are told our folder, and each has its own session."""
    import psutil

    folder = folder_of(settings) / "exec" / "containerd"
    told = {str(folder / name) for name in ("containerd.toml", "containerd.sock")}
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if _is_ours_as(process, "containerd", told):
                yield from process.children(recursive=True)
                yield process


def _is_ours_as(process: psutil.Process, program: str, told: Set[str]) -> bool:
    """Whether a process runs this program, or a part of it, for our engine.

    It was told one of these paths, as a whole argument, and means the same as we do: in a container, where another engine
    may be told just that, the paths lead elsewhere.
    """
    name = Path(process.exe()).name
    return (
        (name == program or name.startswith(f"{program}-"))
        and not told.isdisjoint(process.cmdline()[1:])
        and Path(f"/proc/{process.pid}/root").samefile("/")
    )


def _mounts(settings: Settings) -> list[Path]:
    """Mount points in the engine's folders, the deepest first."""
    points = [
        Path(line.split()[4].encode().decode("unicode_escape"))
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    ]
    folders = (_data(settings), folder_of(settings))
    return sorted((point for point in points if any(point.is_relative_to(one) for one in folders)), reverse=True)


def _address(settings: Settings) -> Address:
    return Address(f"unix://{_socket(settings)}", OURS)


def _data(settings: Settings) -> Path:
    return settings.cache / "docker"


def _log(settings: Settings) -> Path:
    return settings.run / "dockerd.log"


def _pid_file(settings: Settings) -> Path:
    return settings.run / "dockerd.pid"


def _socket(settings: Settings) -> Path:
    return folder_of(settings) / "docker.sock"


def folder_of(settings: Settings) -> Path:
    """The folder of sockets; a short one elsewhere where the cache's path is too long for them."""
    folder = settings.run / "docker"
    if len(os.fsencode(folder / _LONGEST_SOCKET)) <= _SOCKET_LIMIT:
        return folder
    key = hashlib.sha256(os.fsencode(settings.run)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"meltrepro-{os.getuid()}-{key}"


def _is_ours(folder: Path) -> bool:
    """Whether a folder is there and nobody else's; anybody can make one below /tmp, with a socket of theirs in it."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
