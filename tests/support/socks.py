"""A SOCKS proxy (4, 4a, 5) on a free loopback port, which leads every connection to this machine and keeps what it was asked."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class SocksProxy:
    port: int = 0
    login: tuple[str, str] | None = None
    """What SOCKS 5 clients have to say; `None` where anybody may come."""
    refusal: int = 0
    """What SOCKS 5 connections are answered with; 0 makes them."""
    asked: list[str] = field(default_factory=list)
    """`HOST:PORT` of each connection, the host as the client named it."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def socks_proxy(login: tuple[str, str] | None = None, refusal: int = 0) -> Iterator[SocksProxy]:
    """Serve until the block ends."""
    state = SocksProxy(login=login, refusal=refusal)

    class Handler(_Handler):
        proxy = state

    with _Server(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True


class _Handler(socketserver.StreamRequestHandler):
    proxy: SocksProxy

    def handle(self) -> None:
        with suppress(OSError, EOFError):
            version = self._read(1)[0]
            port = self._four() if version == 4 else self._five()
            if port is not None:
                self._relay(port)

    def _four(self) -> int | None:
        self._read(1)
        port = int.from_bytes(self._read(2))
        host = socket.inet_ntoa(self._read(4))
        self._text()
        if host.startswith("0.0.0."):
            host = self._text()
        self.proxy.asked.append(f"{host}:{port}")
        self.wfile.write(b"\0\x5a" + bytes(6))
        return port

    def _five(self) -> int | None:
        offered = self._read(self._read(1)[0])
        if self.proxy.login is None:
            self.wfile.write(b"\x05\0")
        elif 2 not in offered:
            self.wfile.write(b"\x05\xff")
            return None
        else:
            self.wfile.write(b"\x05\x02")
            self._read(1)
            said = tuple(self._read(self._read(1)[0]).decode() for _ in range(2))
            self.wfile.write(b"\x01\0" if said == self.proxy.login else b"\x01\x01")
            if said != self.proxy.login:
                return None
        kind = self._read(4)[3]
        if kind == 3:
            host = self._read(self._read(1)[0]).decode()
        else:
            host = socket.inet_ntop(
                *((socket.AF_INET, self._read(4)) if kind == 1 else (socket.AF_INET6, self._read(16)))
            )
        port = int.from_bytes(self._read(2))
        self.proxy.asked.append(f"{host}:{port}")
        self.wfile.write(bytes([5, self.proxy.refusal, 0, 1]) + bytes(6))
        return None if self.proxy.refusal else port

    def _relay(self, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=_copy, args=(server, self.connection), daemon=True)
            back.start()
            _copy(self.connection, server)
            back.join()

    def _read(self, count: int) -> bytes:
        data = self.rfile.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _text(self) -> str:
        found = b""
        while (byte := self._read(1)) != b"\0":
            found += byte
        return found.decode()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 16):
            sink.sendall(block)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
