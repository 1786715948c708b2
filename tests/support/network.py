"""The network as a test wants it: none of this machine's proxies, certificates and logins."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from tests.support.tls import Authority

_OF_THE_NETWORK = re.compile(r"(http|https|all|no)_proxy|.*ca_bundle|(git_)?ssl_.*|netrc", re.IGNORECASE)


def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this machine's variables say of proxies, certificates and logins."""
    for name in list(os.environ):
        if _OF_THE_NETWORK.fullmatch(name):
            monkeypatch.delenv(name)


@contextmanager
def git_server(root: Path, ca: Authority, login: str | None = None) -> Iterator[str]:
    """Serve the repositories below a folder by https, as git's own program does; `login` is the header that it wants."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            asked = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if login is not None and self.headers.get("Authorization") != login:
                self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
                return
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": asked.path,
                "QUERY_STRING": asked.query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }
            done = subprocess.run(
                ["git", "http-backend"], input=body, env=environment, capture_output=True, check=True
            ).stdout
            head, _, content = done.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self._answer(int(headers.pop("Status", "200").split()[0]), headers, content)

        do_GET = do_POST = _serve  # noqa: N815 - names that the base class looks for

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = ca.server("git").wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"https://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
