"""A real HTTP server on a Unix socket that speaks as much of Docker's API as a build needs, and goes away when told to.

`dies` names the request in whose middle it goes away: `load`, `build`, `archive` or `wait`. From then on every
connection is closed without an answer, until `dies` is set anew. `quits` names one that only ends too soon, `full` makes
builds fail as a full disk does. It is one of several `kind`s: `docker`, `containerd` (images are called by the digests of
manifests that it writes itself) or `podman`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import socketserver
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

BUILT = "sha256:" + "b" * 64


@dataclass
class EngineServer:
    """What the engine does, and what it has."""

    out: Mapping[str, bytes]
    """Files that every build leaves in `/out`."""
    model: bytes
    """What a quantizer writes."""
    evil: tarfile.TarInfo | None = None
    """What every build leaves besides."""
    dies: str = ""
    quits: str = ""
    full: bool = False
    dead: bool = False
    kind: str = "docker"
    traits: tuple[str, ...] = ()
    limits: bool = True
    groups: str = "2"
    mangled: bool = False
    """Whether it stores other layers than it is given."""
    images: set[str] = field(default_factory=set)
    loaded: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the engine says of images that it was given, by id and name."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Containers (as `create`) and builds (as `build`) that it was asked for."""
    writable: dict[str, str] = field(default_factory=dict)
    """Mounts of the last container: path inside -> folder outside."""

    def revive(self) -> None:
        """Let it work from now on."""
        self.dies, self.quits, self.full, self.dead, self.evil = "", "", False, False, None


@contextmanager
def engine_server(socket: Path, state: EngineServer) -> Iterator[EngineServer]:
    """Serve until the block ends."""

    class Handler(_Handler):
        engine = state

    server = _Server(str(socket), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _GoneError(Exception):
    """The engine has gone away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: EngineServer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (_GoneError, ConnectionError):
            self.close_connection = True

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        if self.engine.dead:
            raise _GoneError
        body = self._body()
        url = urlsplit(re.sub(r"^/v1\.\d+", "", self.path))
        match self.command, *url.path.strip("/").split("/"):
            case _, "_ping":
                self._send(b"OK")
            case "GET", "version":
                name = "Podman Engine" if self.engine.kind == "podman" else "Engine"
                said = {"Version": "1.0", "ApiVersion": "1.43", "MinAPIVersion": "1.24"}
                self._json({**said, "Components": [{"Name": name, "Version": "1.0"}]})
            case "GET", "info":
                containerd = self.engine.kind == "containerd"
                status = [["driver-type", "io.containerd.snapshotter.v1"]] if containerd else [["Backing", "extfs"]]
                traits = [f"name={trait}" for trait in ("seccomp,profile=builtin", *self.engine.traits)]
                limits = {
                    "MemoryLimit": self.engine.limits,
                    "PidsLimit": self.engine.limits,
                    "CgroupVersion": self.engine.groups,
                }
                self._json({"Driver": "overlayfs", "DriverStatus": status, "SecurityOptions": traits, **limits})
            case "GET", "images", *name, "json":
                known = "/".join(name)
                if known in self.engine.loaded:
                    self._json(self.engine.loaded[known])
                elif known in self.engine.images:
                    self._json({"Id": known})
                else:
                    self._json({"message": f"No such image: {known}"}, 404)
            case "POST", "images", "load":
                self._breaks("load")
                with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                    (entry,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
                    config = tar.extractfile(entry["Config"]).read()  # type: ignore[union-attr]
                containerd = self.engine.kind == "containerd"
                image = f"sha256:{hashlib.sha256(config + b'manifest' * containerd).hexdigest()}"
                self._load(image, entry["RepoTags"], json.loads(config))
                self._json(
                    {
                        "stream": f"Loaded image{'' if containerd else ' ID'}: {entry['RepoTags'][0] if containerd else image}\n"
                    }
                )
            case "POST", "images", "prune":
                self._json({})
            case "POST", "build":
                query = parse_qs(url.query)
                self.engine.asked.append(("build", query))
                self._build(query.get("t", []))
            case "POST", "containers", "create":
                self.engine.asked.append(("create", json.loads(body)))
                mounts = json.loads(body).get("HostConfig", {}).get("Mounts") or []
                self.engine.writable = {each["Target"]: each["Source"] for each in mounts if not each["ReadOnly"]}
                self._json({"Id": "c1"}, 201)
            case "POST", "containers", _, "attach":  # nothing is written, and the end of that is the program's
                self.send_response(101)
                self.send_header("Upgrade", "tcp")
                self.send_header("Connection", "Upgrade")
                self.end_headers()
                self.close_connection = True
            case "POST", "containers", _, "start":
                if "/out" in self.engine.writable and self.engine.dies != "wait":
                    Path(self.engine.writable["/out"], "model").write_bytes(self.engine.model)
                self._send(b"", 204)
            case "POST", "containers", _, "wait":
                self._breaks("wait")
                self._json({"StatusCode": 0})
            case "GET", "containers", _, "logs":
                self._send(b"")
            case "GET", "containers", _, "archive":
                self._archive()
            case "GET", "containers", _, "json":
                self._json({"Id": "c1", "State": {"OOMKilled": False}, "Config": {"Tty": True}})
            case "DELETE", *_:
                self._json([], 204 if "containers" in url.path else 200)
            case request:
                raise AssertionError(f"nobody taught the engine {request}")

    def _load(self, image: str, tags: list[str], config: dict[str, Any]) -> None:
        said = {
            "Id": image,
            "RepoTags": tags,
            "Architecture": config["architecture"],
            "Config": {"User": "", "Entrypoint": None, **config["config"]},
            "RootFS": {"Type": "layers", "Layers": [] if self.engine.mangled else config["rootfs"]["diff_ids"]},
        }
        self.engine.images |= {image, *tags}
        self.engine.loaded |= dict.fromkeys((image, *tags), said)

    def _build(self, tags: list[str]) -> None:
        self._begin()
        self._chunk(b'{"stream": "Step 1/2 : FROM builder"}\r\n')
        if self.engine.dies == "build":
            self._write(b"ff\r\n" + b'{"stream": "cut in the mid')
        self._breaks("build")
        if self.engine.full:
            self._chunk(b'{"error": "write /build/object: no space left on device"}\r\n')
        elif self.engine.quits != "build":
            self._chunk(json.dumps({"aux": {"ID": BUILT}}).encode() + b"\r\n")
            self.engine.images |= {BUILT, *tags}
            if self.engine.kind == "podman":  # whose answers may never end
                self._chunk(b'{"stream": "Successfully built bbbbbbbbbbbb"}\r\n')
                self.connection.recv(1)
                raise _GoneError
        self._chunk(b"")

    def _archive(self) -> None:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for name, data in self.engine.out.items():
                entry = tarfile.TarInfo(f"out/{name}")
                entry.size, entry.mode = len(data), 0o755
                tar.addfile(entry, io.BytesIO(data))
            if self.engine.evil is not None:
                tar.addfile(self.engine.evil)
        self._begin({"X-Docker-Container-Path-Stat": base64.b64encode(b'{"name": "out"}').decode()})
        self._chunk(content.getvalue()[:700])
        self._breaks("archive")
        if self.engine.quits != "archive":
            self._chunk(content.getvalue()[700:])
        self._chunk(b"")

    def _breaks(self, request: str) -> None:
        if self.engine.dies == request:
            self.engine.dead = True
            raise _GoneError

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status)

    def _send(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self._write(content)

    def _begin(self, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {"Transfer-Encoding": "chunked", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _chunk(self, content: bytes) -> None:
        self._write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def _write(self, content: bytes) -> None:
        self.wfile.write(content)
        self.wfile.flush()
