"""One connection as the device sees it: whole messages, TLS from some point on, and the faults that are meant for it."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import ssl
import threading
from collections import Counter
from typing import Any

from meltrepro.lab.iphone import frames
from meltrepro.lab.iphone.faults import NONE, Break, Faults, How

_PIECE = 1 << 20
_TLS_S = 20.0


class StreamEnded(Exception):
    """The connection is no more."""


class Mishaps:
    """The faults of a device, and how often each break has happened."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._faults = NONE
        self._happened: Counter[Break] = Counter()
        self._written = 0

    @property
    def now(self) -> Faults:
        return self._faults

    def set(self, faults: Faults) -> None:
        with self._guard:
            self._faults = faults
            self._happened.clear()
            self._written = 0

    def strike(self, service: str, message: int) -> How | None:
        """What is to become of a message, if anything."""
        with self._guard:
            for each in self._faults.breaks:
                if (each.service, each.message) == (service, message) and self._happened[each] < each.times:
                    self._happened[each] += 1
                    return each.how
        return None

    def fits(self, size: int) -> bool:
        """Whether so many bytes more can be stored; if so, they count as written."""
        with self._guard:
            if self._faults.free is not None and self._written + size > self._faults.free:
                return False
            self._written += size
        return True

    @property
    def left(self) -> int:
        """Bytes that can still be stored where that is limited."""
        return max(0, (self._faults.free or 0) - self._written)


class Stream:
    """Blocking reads and writes on one socket; every loss is `StreamEnded`."""

    def __init__(self, plain: socket.socket, mishaps: Mishaps, service: str) -> None:
        self.service = service
        self._socket = plain
        self._mishaps = mishaps
        self._sent = 0
        self._writing = threading.Lock()

    # -- bytes ------------------------------------------------------------------------------------------------------

    def read(self, size: int) -> bytes:
        """Exactly so many bytes; raises `StreamEnded`."""
        data = bytearray()
        while len(data) < size:
            data += self.read_some(size - len(data))
        return bytes(data)

    def read_some(self, size: int) -> bytes:
        """At least one byte and at most so many; raises `StreamEnded`."""
        try:
            piece = self._socket.recv(min(size, _PIECE))
        except (OSError, ValueError) as error:
            raise StreamEnded(str(error)) from error
        if not piece:
            raise StreamEnded("closed by the host")
        return piece

    def send(self, message: bytes) -> None:
        """Send one message, or let happen to it what is to happen; raises `StreamEnded`."""
        with self._writing:
            self._sent += 1
            match self._mishaps.strike(self.service, self._sent):
                case How.cut:
                    self._put(message[: len(message) // 2])
                    self.abort()
                    raise StreamEnded("cut")
                case How.hang:
                    self._wait_for_end()
                    raise StreamEnded("it hung until the host left")
                case How.garbage:
                    message = random.Random(self._sent).randbytes(len(message))
            self._put(message)

    def _wait_for_end(self) -> None:
        """Wait until either side has ended it, and read nothing, because others may."""
        poller = select.poll()
        poller.register(self._socket, select.POLLRDHUP)
        poller.poll()

    def _put(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (OSError, ValueError) as error:
            raise StreamEnded(str(error)) from error

    # -- property lists ---------------------------------------------------------------------------------------------

    def read_plist(self) -> dict[str, Any]:
        """The next property list; raises `StreamEnded`, `frames.Malformed`."""
        return frames.read_plist(self.read(frames.service_length(self.read(4))))

    def send_plist(self, body: dict[str, Any]) -> None:
        """Send a property list; raises `StreamEnded`."""
        self.send(frames.service_plist(body))

    # -- life -------------------------------------------------------------------------------------------------------

    def secure(self, context: ssl.SSLContext) -> None:
        """Go on in TLS; raises `StreamEnded` where the host is not the one that it says."""
        try:
            self._socket.settimeout(_TLS_S)
            self._socket = context.wrap_socket(self._socket, server_side=True)
            self._socket.settimeout(None)
        except (OSError, ValueError) as error:
            raise StreamEnded(f"no TLS: {error}") from error

    def bare(self) -> None:
        """Go on without TLS, as after a session; raises `StreamEnded`."""
        if isinstance(self._socket, ssl.SSLSocket):
            try:
                self._socket.settimeout(_TLS_S)
                self._socket = self._socket.unwrap()
                self._socket.settimeout(None)
            except (OSError, ValueError) as error:
                raise StreamEnded(str(error)) from error

    def become(self, service: str) -> None:
        """Go on as a connection to another service, whose messages count anew."""
        with self._writing:
            self.service, self._sent = service, 0

    def abort(self) -> None:
        """End it from another thread: whoever waits at it gets `StreamEnded`."""
        with contextlib.suppress(OSError):
            # Not the TLS socket's own method, which changes what the other thread uses just now.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """End it, in the thread that serves it."""
        self.abort()
        with contextlib.suppress(OSError):
            self._socket.close()
