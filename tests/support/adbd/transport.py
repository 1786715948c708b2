"""One connection of an adb server to a device, and the streams on it."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import socket
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from tests.support.adbd import packets
from tests.support.adbd.faults import Fault, Gate, Way
from tests.support.adbd.packets import AUTH, CLSE, CNXN, OKAY, OPEN, WRTE, Packet

_PIECE = 64 << 10
Serve = Callable[["Stream"], None]
"""Does what a stream's service is there for; raises `LookupError` where there is no such service."""


class StreamClosed(ConnectionError):
    """Nothing more can be sent on a stream."""


class Stream:
    """A stream of bytes in both directions, one packet under way in each."""

    def __init__(self, transport: Transport, local: int, remote: int, service: str) -> None:
        self.service = service
        self.local, self.remote = local, remote
        self._transport = transport
        self._arrived: SimpleQueue[bytes | None] = SimpleQueue()
        self._taken = threading.Semaphore(0)
        self._closed = threading.Event()
        self._one = threading.Lock()

    def opened(self) -> None:
        """The service is there; to be called before anything is read or written."""
        self._transport.send(Packet(OKAY, self.local, self.remote), self.service)

    def read(self) -> bytes:
        """What comes next; nothing where the stream is closed."""
        data = self._arrived.get()
        if data is None:
            self._arrived.put(None)  # whoever asks again gets the same answer
            return b""
        self._transport.send(Packet(OKAY, self.local, self.remote), self.service)
        return data

    def write(self, data: bytes) -> None:
        """Send it all; returns when the server has taken it. Raises `StreamClosed`."""
        with self._one:
            for start in range(0, len(data), _PIECE):
                if self._closed.is_set():
                    raise StreamClosed
                self._transport.send(Packet(WRTE, self.local, self.remote, data[start : start + _PIECE]), self.service)
                self._taken.acquire()
            if self._closed.is_set():
                raise StreamClosed

    def close(self) -> None:
        if not self._closed.is_set():
            self.ended()
            self._transport.send(Packet(CLSE, self.local, self.remote), self.service)

    def arrived(self, data: bytes) -> None:
        """The server has sent something."""
        self._arrived.put(data)

    def taken(self) -> None:
        """The server has taken what we sent."""
        self._taken.release()

    def ended(self) -> None:
        self._closed.set()
        self._arrived.put(None)
        self._taken.release()


class Transport:
    """Talks to one server until the connection ends."""

    def __init__(
        self, connection: socket.socket, gate: Gate, properties: dict[str, str], serve: Serve, *, authorised: bool
    ) -> None:
        self._socket = connection
        self._gate = gate
        self._properties = properties
        self._serve = serve
        self._authorised = authorised
        self._streams: dict[int, Stream] = {}
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._offered = b""
        """What the server has said of itself."""
        self._deaf = False
        """Whether nothing passes any more."""

    def run(self) -> None:
        """Serve the connection to its end; never raises."""
        with contextlib.suppress(OSError):
            while (packet := packets.read_packet(self._socket)) is not None:
                checked = self._check("in", packet, self._service_of(packet))
                if checked is not None:
                    self._received(checked)
        self.cut()
        for stream in list(self._streams.values()):
            stream.ended()

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def send(self, packet: Packet, service: str = "") -> None:
        """Send a packet, as far as its faults let it pass."""
        with self._sending, contextlib.suppress(OSError):
            checked = self._check("out", packet, service)
            if checked is not None:
                self._socket.sendall(checked.pack())

    # -- faults -----------------------------------------------------------------------------------------------------

    def _check(self, way: Way, packet: Packet, service: str) -> Packet | None:
        """What is left of a packet behind the gate."""
        verdict = self._gate.verdict(way, packet.command, service, len(packet.pack()))
        if self._deaf:
            return None
        match verdict.fault:
            case None:
                return packet
            case Fault(what="delay", delay_s=delay_s):
                time.sleep(delay_s)
                return packet
            case Fault(what="garble", spared=spared):
                return packet._replace(data=packet.data[:spared] + bytes(byte ^ 0x5A for byte in packet.data[spared:]))
            case Fault(what="silence"):
                self._deaf = True
            case Fault(what="refuse"):
                self._refuse(way, packet)
            case Fault(what="noise"):
                if way == "out":
                    self._socket.sendall(b"\xa5" * len(packet.pack()))
                else:
                    self.cut()  # as a device does that cannot make sense of what it hears
            case Fault(what="cut"):
                if way == "out":
                    self._socket.sendall(packet.pack()[: verdict.passes])
                self.cut()
        return None

    def _refuse(self, way: Way, packet: Packet) -> None:
        """Close the stream that a packet is of, or is about to make."""
        if packet.command == OPEN:
            self.send(Packet(CLSE, 0, packet.arg0))
            return
        local, remote = (packet.arg0, packet.arg1) if way == "out" else (packet.arg1, packet.arg0)
        stream = self._streams.pop(local, None)
        if stream is not None:
            stream.ended()
        closing = Packet(CLSE, local, remote).pack()
        if way == "out":
            self._socket.sendall(closing)  # the lock is ours already
        else:
            with self._sending:
                self._socket.sendall(closing)

    def _service_of(self, packet: Packet) -> str:
        if packet.command == OPEN:
            return packet.data.rstrip(b"\0").decode(errors="replace")
        stream = self._streams.get(packet.arg1)
        return stream.service if stream else ""

    # -- protocol ---------------------------------------------------------------------------------------------------

    def _received(self, packet: Packet) -> None:
        if packet.command == CNXN:
            self._offered = packet.data
            if self._authorised:
                self._welcome()
            else:
                self._ask_to_sign()
        elif packet.command == AUTH and packet.arg0 != _PUBLIC_KEY:
            self._ask_to_sign()  # no signature is good enough; with its public key a server waits for somebody's yes
        elif packet.command == OPEN:
            self._open(packet)
        elif (stream := self._streams.get(packet.arg1)) is None:
            return  # of one that has just been closed
        elif packet.command == WRTE:
            stream.arrived(packet.data)
        elif packet.command == OKAY:
            stream.taken()
        elif packet.command == CLSE:
            self._streams.pop(stream.local, None)
            stream.ended()

    def _welcome(self) -> None:
        said = packets.banner(self._properties, self._offered)
        self.send(Packet(CNXN, packets.VERSION, packets.MOST_DATA, said))

    def _ask_to_sign(self) -> None:
        self.send(Packet(AUTH, packets.AUTH_TOKEN, 0, secrets.token_bytes(packets.TOKEN_BYTES)))

    def _open(self, packet: Packet) -> None:
        service = self._service_of(packet)
        stream = Stream(self, next(self._numbers), packet.arg0, service)
        self._streams[stream.local] = stream
        threading.Thread(target=self._live, args=(stream,), name=service[:20], daemon=True).start()

    def _live(self, stream: Stream) -> None:
        try:
            self._serve(stream)
            stream.close()
        except (LookupError, ValueError, OSError):  # no such service, or the device is off by now
            self.send(Packet(CLSE, 0, stream.remote), stream.service)
        finally:
            self._streams.pop(stream.local, None)
            stream.ended()


_PUBLIC_KEY = 3
"""Kind of an `AUTH` packet: the server's key, for whoever holds the phone to allow it."""
