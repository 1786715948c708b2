"""An MLflow server on this machine, for as long as somebody looks at it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meltrepro.atomic import make_folder, reason_of, writing
from meltrepro.errors import TrackingError
from meltrepro.interrupts import held
from meltrepro.track import environment, places, supervisor

_START_WITHIN_S = 180.0
_STOP_WITHIN_S = supervisor.GRACE_S + 10
_ATTEMPTS = 3
"""Times that another free port is tried, should somebody take it first."""
_TAIL_LINES = 12
_OTHER_PORT = "choose another port with --port, or point MLFLOW_TRACKING_URI to a server that runs"


@dataclass(frozen=True)
class MlflowServer:
    """A server that answers."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def wait(self) -> int:
        return self.process.wait()


@contextmanager
def serve(uri: str, folder: Path, *, port: int = 0) -> Iterator[MlflowServer]:
    """Serve a database on the loopback interface (port 0: any free one); nothing is left of it after the block.

    `folder` is where the server works and writes its log. Raises `TrackingError` where it does not come up.
    """
    if port:
        _require_free(port)
    make_folder(folder)
    local = places.local_database(uri)
    if local is not None:
        environment.ensure_database(local)
    log = folder / f"mlflow-server-{os.getpid()}.log"
    for attempt in range(1, _ATTEMPTS + 1):
        chosen = port or _free_port()
        process: subprocess.Popen[bytes] | None = None
        try:
            with held():
                process = _start(uri, folder, log, chosen)
            if _answers(process, chosen):
                yield MlflowServer(f"http://127.0.0.1:{chosen}", log, process)
                return
        finally:
            if process is not None:
                _stop(process)
        if port or attempt == _ATTEMPTS or "address already in use" not in _tail(log):
            break
    raise TrackingError(
        f"the MLflow server did not start on port {chosen}; the end of {log}:\n{_tail(log)}",
        hint=_OTHER_PORT,
    )


def _start(uri: str, folder: Path, log: Path, port: int) -> subprocess.Popen[bytes]:
    local = places.local_database(uri)
    variables = {
        **os.environ,
        **{name: value for name, value in environment.ENVIRONMENT.items() if name not in os.environ},
        # Not an argument: it may hold a password, and everybody can read a command line.
        "MLFLOW_BACKEND_STORE_URI": places.absolute(uri),
        # Its workers for scheduled jobs would be processes that we have no use for.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    variables.pop("MLFLOW_TRACKING_URI", None)
    artifacts = (local.artifacts if local else folder / "mlartifacts").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--default-artifact-root", artifacts, "--artifacts-destination", artifacts]
    with writing(log), log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, *command],
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let go of the supervisor; it ends when everything below it has ended."""
    with held():
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=_STOP_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise TrackingError(
                f"the MLflow server does not stop; look at process {process.pid} and its children"
            ) from error


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server is healthy; `False` where it ended or time is up."""
    deadline = time.monotonic() + _START_WITHIN_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with opener.open(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                # Somebody else's server may have taken the port while ours was starting.
                if response.status == 200 and process.poll() is None:
                    return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def _require_free(port: int) -> None:
    """Raise `TrackingError` for a port that is taken: MLflow would need seconds to find out."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as MLflow does: not for one that was just closed
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise TrackingError(f"cannot serve on port {port}: {reason_of(error)}", hint=_OTHER_PORT) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return "\n".join(lines[-_TAIL_LINES:])
