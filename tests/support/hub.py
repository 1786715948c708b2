"""A hub that speaks Hugging Face's protocol on a loopback port: listings, gates, large files kept on another server.

What it does as the real one does: the listing of a repository is public also where its files are gated; without a token
a gated or unknown repository is answered with 401, with a token of another account with 403 or 404, each with
X-Error-Code; a large file is answered with 302 to a signed address of another host, with its sha256 and size in headers.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MEMBER, STRANGER = "hf_member", "hf_stranger"
"""Tokens: of an account that has accepted the terms, and of one that has not."""
_LARGE = (".safetensors", ".bin", ".gguf", ".model", "tokenizer.json")


@dataclass
class Hub:
    """One repository at one commit."""

    repository: str
    commit: str
    files: dict[str, bytes]
    gated: bool = False
    url: str = ""
    lies: dict[str, bytes] = field(default_factory=dict)
    """Files that the second host sends other bytes of."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes of files that are told, where they are not the true ones."""
    cut: dict[str, int] = field(default_factory=dict)
    """How often the second host sends half a file and hangs up."""
    busy: int = 0
    """How many requests are answered with 429 before the next ones are not."""
    card: object = field(default_factory=lambda: {"license": "apache-2.0"})
    """What the page of the repository says at its top."""
    earlier: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Files of earlier commits."""
    html: bool = False
    """Answers everything with a page for people, as the login of a hotel's network does."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and token of each request."""

    def commits(self, commit: str, files: dict[str, bytes]) -> None:
        """Somebody changes the repository; earlier commits stay."""
        self.earlier[self.commit] = self.files
        self.commit, self.files = commit, files

    def at(self, revision: str) -> dict[str, bytes] | None:
        """The files at a commit, or on the branch."""
        return self.files if revision in ("main", self.commit) else self.earlier.get(revision)

    def gets(self, name: str) -> list[str | None]:
        """The tokens of the GET requests for a file's bytes, wherever they went."""
        return [token for method, path, token in self.asked if method == "GET" and path.endswith(f"/{name}")]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Answer until the block ends."""

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer()

    def _answer(self) -> None:
        hub = self.state
        path, _, query = self.path.partition("?")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        hub.asked.append((self.command, path, token))
        if hub.busy:
            hub.busy -= 1
            self._send(429, b'{"error":"slow down"}', {"Retry-After": "0"})
        elif hub.html:
            self._send(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})
        elif path.startswith("/blobs/"):  # the second host: knows signatures and no accounts
            name = path.rpartition("/")[2]
            revision, _, signed = query.partition("&signature=")
            content = hub.lies.get(name) or (hub.at(revision) or {}).get(path.removeprefix("/blobs/"), b"")
            if hub.cut.get(name) and self.command == "GET":
                hub.cut[name] -= 1
                self._send(200, content, {}, len(content) // 2)
            else:
                self._send(200 if signed else 403, content if signed else b"", {})
        elif path.startswith("/api/models/"):
            self._list(path.removeprefix("/api/models/"), token)
        else:
            self._resolve(path[1:], token)

    def _list(self, what: str, token: str | None) -> None:
        hub = self.state
        repository, _, revision = what.partition("/revision/")
        if repository != hub.repository:
            self._refuse(404 if token else 401, "RepoNotFound")
        elif (files := hub.at(revision)) is None:
            self._refuse(404, "RevisionNotFound")
        else:
            commit = hub.commit if revision == "main" else revision
            document = {
                "id": repository,
                "sha": commit,
                "gated": "manual" if hub.gated else False,
                "cardData": hub.card,
            }
            body = json.dumps(document | {"siblings": [{"rfilename": name} for name in files]}).encode()
            self._send(200, body, {"Content-Type": "application/json; charset=utf-8"})

    def _resolve(self, what: str, token: str | None) -> None:
        hub = self.state
        repository, _, rest = what.partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repository != hub.repository:
            self._refuse(404 if token else 401, "RepoNotFound")
        elif hub.gated and token != MEMBER:
            self._refuse(403 if token else 401, "GatedRepo")
        elif (files := hub.at(revision)) is None:
            self._refuse(404, "RevisionNotFound")
        elif name not in files:
            self._refuse(404, "EntryNotFound")
        elif name.endswith(_LARGE):
            content = files[name]
            headers = {
                "Location": f"{hub.url.replace('127.0.0.1', 'localhost')}/blobs/{name}?{revision}&signature=1",
                "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(hub.sizes.get(name, len(content))),
                "X-Repo-Commit": revision,
            }
            self._send(302, b"Found", headers)
        else:
            content = files[name]
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": revision})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b'{"error":"no"}', {"X-Error-Code": code, "X-Error-Message": "no"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent])
        if sent is not None:
            self.close_connection = True
