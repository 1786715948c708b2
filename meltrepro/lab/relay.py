"""A door into a network namespace: a loopback port here whose connections are made again in there.

It can be shut in the middle of anything, which is how a link to a virtual device is cut.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from pathlib import Path
from queue import SimpleQueue

_CLONE_NEWNET = 0x40000000
_PIECE = 256 << 10


class Relay:
    """Listens on a free loopback port until `close`; a port in a network namespace is behind it from `lead_to` on.

    It goes on listening while nothing is behind it: a port that is given up may be somebody else's a moment later.
    """

    def __init__(self) -> None:
        self._namespace: int | None = None
        self._inside = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._shut = True
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def lead_to(self, pid: int, port: int) -> None:
        """Lead to a port in the network namespace of a process."""
        self._leave()
        self._namespace, self._inside = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC), port
        self.mend()

    def cut(self) -> None:
        """End every connection and let no new one in until `mend`."""
        with self._guard:
            self._shut = True
            ended, self._open = self._open, set()
        for each in ended:
            _end(each)

    def mend(self) -> None:
        with self._guard:
            self._shut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()
        self._leave()

    def _leave(self) -> None:
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._listener.accept()
            except OSError:
                return
            inner = None if self._shut else self._connect()
            if inner is None:
                _end(outer)
                continue
            with self._guard:
                self._open |= {outer, inner}
            for source, sink in ((outer, inner), (inner, outer)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        """A socket made inside the namespace; a thread of its own goes there and does not come back."""
        made: SimpleQueue[socket.socket | None] = SimpleQueue()
        namespace = self._namespace

        def inside() -> None:
            try:
                if namespace is None:
                    raise OSError("nothing is behind it")
                if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                made.put(socket.create_connection(("127.0.0.1", self._inside), timeout=5))
            except OSError:
                made.put(None)

        threading.Thread(target=inside, daemon=True).start()
        found = made.get()
        if found is not None:
            found.settimeout(None)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(_PIECE):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            with self._guard:
                self._open -= {source, sink}
            _end(source)
            _end(sink)


def reachable(pid: int, port: int) -> bool:
    """Whether anything listens on a TCP port in the network namespace of a process."""
    with contextlib.suppress(OSError):
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if local.endswith(f":{port:04X}") and state == "0A":
                    return True
    return False


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
