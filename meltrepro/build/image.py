"""Deterministic container images: the same layers give the same image id on every machine and engine.

An image id is the sha256 of its configuration, which names the sha256 of every uncompressed layer. So a fixed
creation time, sorted keys and byte-identical layer tars are all it takes; the archive is then handed to `docker load`,
which needs neither BuildKit nor a registry. Format: OCI image configuration, and Docker's image archive v1.2 around it.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meltrepro.errors import EngineError
from meltrepro.store.archive import EPOCH, member_header, padding
from meltrepro.store.cas import Store

CREATED = "2025-01-01T00:00:00Z"
"""Of every image; `EPOCH` as text."""


@dataclass(frozen=True)
class Layer:
    """An uncompressed tar file and its sha256."""

    path: Path
    digest: str

    @classmethod
    def stored(cls, digest: str, store: Store) -> Layer:
        return cls(store.path(digest), digest)


@dataclass(frozen=True)
class Image:
    """Layers plus the little configuration that our images need."""

    name: str
    """Repository name; the tag is the first 16 digits of the id."""
    layers: Sequence[Layer]
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    architecture: str = "amd64"

    def config(self) -> bytes:
        """The image configuration, canonical JSON."""
        return _json(
            {
                "architecture": self.architecture,
                "os": "linux",
                "created": CREATED,
                "config": {
                    "Env": [f"{name}={value}" for name, value in sorted(self.env.items())],
                    "Cmd": ["/bin/sh"],
                    "Labels": dict(sorted(self.labels.items())),
                },
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in self.layers]},
                "history": [{"created": CREATED, "created_by": "meltrepro"} for _ in self.layers],
            }
        )

    @property
    def id(self) -> str:
        """`sha256:...`, the same on every machine."""
        return "sha256:" + hashlib.sha256(self.config()).hexdigest()

    def is_described_by(self, engines: Mapping[str, Any]) -> bool:
        """Whether what an engine says of an image is what stands in this one's configuration."""
        ours, theirs = json.loads(self.config()), engines.get("Config") or {}
        return (
            engines.get("Architecture") == ours["architecture"]
            and (engines.get("RootFS") or {}).get("Layers") == ours["rootfs"]["diff_ids"]
            and all((theirs.get(name) or type(value)()) == value for name, value in ours["config"].items())
            and not any(theirs.get(name) for name in ("Entrypoint", "User", "WorkingDir", "Volumes"))
        )

    @property
    def reference(self) -> str:
        """Name and tag under which the image is loaded; the tag follows from the id."""
        return f"{self.name}:{self.id.removeprefix('sha256:')[:16]}"


def archive(image: Image) -> Iterator[bytes]:
    """Stream the image as an archive for `docker load`."""
    config = image.config()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [
        {
            "Config": config_name,
            "RepoTags": [image.reference],
            "Layers": [f"{layer.digest}/layer.tar" for layer in image.layers],
        }
    ]
    for name, content in ((config_name, config), ("manifest.json", _json(manifest))):
        yield member_header(name, len(content))
        yield content + padding(len(content))
    for layer in {layer.digest: layer for layer in image.layers}.values():
        size = layer.path.stat().st_size
        yield member_header(f"{layer.digest}/layer.tar", size)
        with layer.path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
        yield padding(size)
    yield b"\0" * 1024


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def normalize(source: tarfile.TarFile, destination: Path, *, drop: Sequence[str]) -> None:
    """Rewrite a tar with everything that varies taken out (order, times, owners' names).

    Files named in `drop` and everything below a folder named there are left out; the folder itself stays. Device nodes
    are left out too. Raises `EngineError` for a hard link to nothing that stays.
    """
    members: dict[str, tarfile.TarInfo] = {}
    for member in source:
        name = member.name.removeprefix("./").strip("/")
        dropped = any(name.startswith(d + "/") or (name == d and not member.isdir()) for d in drop)
        if name not in ("", ".") and not member.isdev() and not dropped:
            members[name] = member
    with tarfile.open(destination, "w", format=tarfile.GNU_FORMAT) as out:
        for name, member in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.linkname = member.type, member.mode, member.linkname
            entry.uid, entry.gid, entry.mtime = member.uid, member.gid, EPOCH
            if member.islnk():
                entry.linkname = member.linkname.removeprefix("./").strip("/")
                # A hard link must follow the file that it names, which sorting does not promise: copy instead.
                linked = members.get(entry.linkname)
                if linked is None:
                    raise EngineError(f"{name} of the base image is a hard link to {entry.linkname}, which it lacks")
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", linked.size
            elif member.isreg():
                entry.size = member.size
            out.addfile(entry, source.extractfile(member) if entry.isreg() else None)
