"""What the tests of sources share: a wheel, a fetcher that hears everything, git as nobody in particular."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path

import yaml

from meltrepro.manifest.sources import HuggingFaceSource, PypiSource
from meltrepro.settings import Settings
from meltrepro.steps import Step
from meltrepro.store.cas import Store
from meltrepro.store.download import RetryPolicy
from meltrepro.store.fetch import Fetcher
from tests.fault.fileserver import FileServer

HASTY = RetryPolicy(attempts=2, connect_s=2, silence_s=1, pause_s=0.01, longest_pause_s=0.02)
MODEL = b"GGUF" + bytes(range(256)) * 500
WHEEL_NAME = "tiny_model-1.0-py3-none-any.whl"
WHEEL_URL = f"/files/{WHEEL_NAME}"
COMMIT = "c0ffee0000" * 4


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("tiny_model/__init__.py", b""), ("tiny_model/tiny.gguf", MODEL)):
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


WHEEL = wheel()


def publish(server: FileServer, hashes: dict[str, str], size: int | None) -> None:
    file: dict[str, object] = {"filename": WHEEL_NAME, "url": f"../..{WHEEL_URL}", "hashes": hashes}
    if size is not None:
        file["size"] = size
    page = {"meta": {"api-version": "1.1"}, "name": "tiny-model", "versions": ["1.0"], "files": [file]}
    server.files["/simple/tiny-model/"] = json.dumps(page).encode()
    server.headers["/simple/tiny-model/"] = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
    server.files[WHEEL_URL] = WHEEL


class Bench:
    """A fetcher and everything that it said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps: list[Step] = []
        self.store = Store(root / "store")

    def fetcher(
        self, *, offline: bool = False, mirrors: dict[str, str] | None = None, logins: frozenset[str] = frozenset()
    ) -> Fetcher:
        file = None
        if mirrors is not None:
            file = self.root / "mirrors.yaml"
            file.write_text(yaml.safe_dump({"mirrors": mirrors}))
        settings = Settings(cache=self.root, home=self.root, offline=offline, mirrors=file, jobs=1, logins=logins)
        return Fetcher(self.store, settings, self.steps.append, retry=HASTY)


TINY = PypiSource(pypi="tiny.model", version="1.0")
MEMBER = PypiSource(pypi="tiny.model", version="1.0", member="**/*.gguf")
HF = HuggingFaceSource(huggingface="org/model", revision=COMMIT, file="sub/model.gguf")
HF_PATH = f"/org/model/resolve/{COMMIT}/sub/model.gguf"


def git(folder: Path, *arguments: str) -> str:
    identity = (
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgsign=false",
    )
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()
