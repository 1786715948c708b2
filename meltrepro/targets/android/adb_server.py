"""An adb server of this process's own, for machines on which the user runs none.

It listens at a port of its own and ends with this process, however that ends: the usual port stays free for the user's
adb, and nothing is left behind that holds the phones.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import threading
import time

from meltrepro.errors import TargetLost
from meltrepro.interrupts import held

_START_S = 20.0
# Our end of the pipe is closed with this process, by whatever it was ended; the shell then ends the server, and itself.
_UNTIL_WE_END = '"$@" & server=$!; exec 3<&0; { cat <&3; kill "$server"; } & wait "$server"; kill "$!"'
_starting = threading.Lock()
_server: tuple[subprocess.Popen[bytes], int] | None = None


def program() -> str:
    """The adb that is used: the one on the path, else that of adbutils."""
    import adbutils

    return str(adbutils.adb_path())


def own_port() -> int:
    """The port of the server of this process, started now where it is not up; raises `TargetLost` where it does not come up."""
    global _server
    with _starting:
        if _server is None or _server[0].poll() is not None:
            _server = _start()
        return _server[1]


def _start() -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as log, os.fdopen(reading, "rb", buffering=0) as ready:
        try:
            command = [program(), "-P", str(port), "--reply-fd", str(writing), "nodaemon", "server"]
            with held():
                process = subprocess.Popen(
                    ["sh", "-c", _UNTIL_WE_END, "sh", *command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[writing],
                    start_new_session=True,
                )
        finally:
            os.close(writing)
        deadline = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < deadline:
            # It says so once it has looked at every device, which one that merely answers has not.
            answered, _, _ = select.select([ready], [], [], 0.1)
            if answered and ready.read(2) == b"OK":
                return process, port
        end(process)
        log.seek(0)
        said = log.read().decode(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
        raise TargetLost(f"an adb server could not be started: {said[0]}", hint="try it by hand: adb start-server")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server that was started here."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
