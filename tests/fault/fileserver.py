"""A real HTTP server on a free loopback port that serves bytes, and misbehaves when told to.

Each request for a path takes the next order from `orders[path]`; without one the file is served as it should be, with
ranges. Orders: `status N`, `truncate N` (closes after N bytes of the body), `stall N` (sends N bytes and waits),
`wrong` (other bytes of the same length), `whole` (ignores ranges), `drip N` (N bytes a tenth of a second), `swap` (the
file is another one from now on, its bytes in reverse), `swap stubborn` (and If-Range is ignored), `redirect URL`, `page` (a web page).
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"\n <!DOCTYPE html><title>Sign in to the network</title>" + b"<p>Welcome.</p>" * 50


@dataclass
class Asked:
    """One request that arrived."""

    method: str
    path: str
    headers: Message


@dataclass
class FileServer:
    """What is served, how, and what was asked for."""

    port: int = 0
    scheme: str = "http"
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    etags: bool = True
    orders: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    asked: list[Asked] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def gets(self, path: str) -> list[Asked]:
        """The GET requests for a path, in order."""
        return [asked for asked in self.asked if asked.method == "GET" and asked.path.partition("?")[0] == path]

    def ranges(self, path: str) -> list[str | None]:
        """Their Range headers."""
        return [asked.headers.get("Range") for asked in self.gets(path)]


@contextmanager
def file_server(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[FileServer]:
    """Serve until the block ends."""
    state = FileServer(scheme="https" if tls else "http")

    class Handler(_Handler):
        server_state = state

    server = (_Server6 if ":" in host else _Server)((host, 0), Handler)
    server.daemon_threads = True
    if tls is not None:  # the handshake belongs to the thread of the connection
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed are part of the tests."""
        if not isinstance(sys.exc_info()[1], ConnectionError | ssl.SSLError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: FileServer

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _serve(self, *, body: bool) -> None:
        state = self.server_state
        state.asked.append(Asked(self.command, self.path, self.headers))
        path = self.path.partition("?")[0]
        order, _, argument = (state.orders[path].pop(0) if body and state.orders[path] else "").partition(" ")
        if order == "swap":
            state.files[path] = state.files[path][::-1]
        content = state.files.get(path)
        if order == "status" or (content is None and order not in ("redirect", "page")):
            self._head(int(argument) if order == "status" else 404, 0, state.headers[path])
            return
        if order == "redirect":
            self._head(302, 0, {"Location": argument})
            return
        if order == "page":
            self._head(200, len(PAGE), {"Content-Type": "text/html"})
            self.wfile.write(PAGE)
            return
        assert content is not None
        if order == "wrong":
            content = bytes(byte ^ 1 for byte in content)
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {"ETag": etag} if state.etags else {}
        status, start = 200, 0
        asked_for = self.headers.get("Range", "")
        valid = self.headers.get("If-Range") in (None, etag) or argument == "stubborn"
        if asked_for and valid and order != "whole":
            start = int(asked_for.removeprefix("bytes=").partition("-")[0])
            if start >= len(content):
                self._head(416, 0, {"Content-Range": f"bytes */{len(content)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        part = content[start:]
        self._head(status, len(part), headers | state.headers[path])
        if body:
            with suppress(ConnectionError):
                self._body(part, order, int(argument) if argument.isdigit() else 0)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, part: bytes, order: str, amount: int) -> None:
        if order in ("truncate", "stall"):
            self.wfile.write(part[:amount])
            self.wfile.flush()
            if order == "stall":
                self.server_state.closing.wait(30)
            self.close_connection = True
        elif order == "drip":
            for start in range(0, len(part), amount):
                self.wfile.write(part[start : start + amount])
                time.sleep(0.1)
        else:
            self.wfile.write(part)
