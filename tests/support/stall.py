"""A link that goes silent: everything stays connected, and nothing arrives any more."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field


@dataclass
class Stall:
    """A loopback port that leads to another one."""

    behind: int
    _flowing: threading.Event = field(default_factory=threading.Event)
    _open: set[socket.socket] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._flowing.set()
        self._left: int | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Carry nothing more."""
        self._flowing.clear()

    def cut_after(self, size: int) -> None:
        """End all connections when so many more bytes have passed."""
        self._left = size

    def flow(self) -> None:
        """Carry again; what was held back arrives."""
        self._flowing.set()

    def close(self) -> None:
        """End everything."""
        self._listener.close()
        self._cut()
        self._flowing.set()

    def _cut(self) -> None:
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                outer, _ = self._listener.accept()
                inner = socket.create_connection(("127.0.0.1", self.behind))
                self._open |= {outer, inner}
                for one, other in ((outer, inner), (inner, outer)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flowing.wait()
                if self._left is not None:
                    self._left -= len(data)
                    if self._left < 0:
                        self._left = None
                        self._cut()
                        return
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
