"""The values and the seam of building: recipes go in, content-addressed artifacts come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, Protocol

from meltrepro.manifest.sources import Source
from meltrepro.steps import Sink

ArtifactKind = Literal["bundle", "model", "logits"]
Output = Literal["file", "folder"]
"""What a model is, or becomes by a step."""


@dataclass(frozen=True, order=True)
class Package:
    """One Debian package file."""

    name: str
    version: str
    architecture: str
    digest: str


@dataclass(frozen=True)
class Recipe:
    """A rendered recipe: the exact files that an engine executes.

    An engine puts `files` under `/recipe`, the inputs read-only under `/inputs/<name>`, runs
    `/bin/sh /recipe/build.sh` in a cleared environment without network, and takes what it left in `/out`.
    """

    name: str
    """For example llama.cpp/2024-02-27/x86_64_v3."""
    files: Mapping[str, bytes]
    """`build.sh` and the sources that travel with the toolkit, by relative path."""
    dockerfile: str
    """Template of the Dockerfile; the engine fills in `builder`, `env`, `phases` and `labels`."""
    inputs: Mapping[str, Path]
    """Verified files by name."""
    input_digests: Mapping[str, str]
    """sha256 of each input."""
    triple: str
    """Target whose C library the builder must hold ready."""
    phases: tuple[str, ...] = ()
    """Arguments of `build.sh`, one call each, so that an interrupted build goes on at a phase; empty for one call."""
    labels: Mapping[str, str] = field(default_factory=dict)
    maker: str = "engine"
    """What executes it. Recipes of others than the engine have no script: `parameters.json` says what is wanted."""
    place: Mapping[str, str] = field(default_factory=dict)
    """Where and by whom it is made, which is no part of its identity."""
    signed: bool = False
    """Whether no two builds of it have the same bytes, because a signature holds its time."""
    packages: tuple[Package, ...] = ()
    """Debian packages among the inputs that become part of what is made."""

    @property
    def by_engine(self) -> bool:
        return self.maker == "engine"


class Interpreter(StrEnum):
    """Interpreters of Python that tools run on (`build.interpreter`), by the parts of a lock that pin them."""

    python = "interpreter"
    torch = "torch"


@dataclass(frozen=True)
class RecipeSource:
    """What a framework says about a recipe before it is rendered; its folders lie below `images/`, or in its own package."""

    name: str
    folders: Mapping[str, Traversable]
    """What becomes the recipe, by the place of each in it: "" is its root, which has `build.sh.j2`, and `runner` the place of
    `resources.runner()`; single files too. Templates (`*.j2`) are rendered, but those named `_*.j2`, which others include by their paths."""
    variables: Mapping[str, object]
    inputs: Mapping[str, Source]
    triple: str
    phases: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    interpreter: Interpreter | None = None
    """What its tools run on, whose packages are inputs too, as `<package>.deb`."""
    maker: str = "engine"
    place: Mapping[str, str] = field(default_factory=dict)
    signed: bool = False


@dataclass(frozen=True)
class Artifact:
    """A build output in the store."""

    id: str
    """Identity of the node that it belongs to, for people."""
    kind: ArtifactKind
    key: str
    """Digest of everything that went in; equal keys are never built twice."""
    digest: str
    """sha256 of `file`."""
    file: Path
    """The object in the store: the model, or a deterministic tar of a folder: of a bundle everything is below `bundle/`, of a
    model that is a folder below `model/`."""
    path: Path
    """What is used: the file itself, or the unpacked folder."""
    size: int
    platform: str = ""
    """Machine that a bundle is for, as `uname -m` spells it."""

    @property
    def is_folder(self) -> bool:
        return self.path != self.file


@dataclass(frozen=True)
class PathOf:
    """Stands among a program's arguments for the path of a file, which each target knows for itself."""

    name: str
    """`MODEL`, an input, or a file of the record's folder."""
    after: str = ""
    """What follows it in the same argument."""


MODEL = "model"
DRAFT = "draft"
ADAPTER = "adapter"
PLAIN_ALONE = "a build may leave plain files and folders in /out"
PROCESSES = 4096
"""How many processes and threads an execution may have in a container."""
Argument = str | PathOf


@dataclass(frozen=True)
class Input:
    """A file that a program reads besides the model; known by its digest, wherever it lies."""

    path: Path
    digest: str


@dataclass(frozen=True)
class Execution:
    """A command of a bundle to run in a clean place, without network unless it says so: a quantizer, a runner.

    The bundle is `/bundle` inside; everything else that the command sees is listed here.
    """

    argv: Sequence[str]
    bundle: Artifact
    readonly: Mapping[str, Path] = field(default_factory=dict)
    """Absolute path inside -> file or folder outside."""
    writable: Mapping[str, Path] = field(default_factory=dict)
    """Absolute path inside -> folder outside."""
    timeout_s: float | None = None
    stdout: Path | None = None
    stderr: Path | None = None
    """May be the same file as `stdout`."""
    owner: str = ""
    """Marks what the execution starts, so that `Engine.stop_strays` finds what a killed process left running."""
    memory_bytes: int | None = None
    """What it may use in a container; beyond that the kernel kills it."""
    network: bool = False
    """Whether it reaches the networks of this machine: none otherwise."""
    watcher: str = ""
    """What `Engine.beside` gave for the program that watches this one; empty where none does."""


@dataclass(frozen=True)
class Exit:
    """How an execution ended."""

    status: int
    """Exit status; 128 + signal number where a signal ended it."""
    timed_out: bool = False
    out_of_memory: bool = False


class Maker(Protocol):
    """What executes recipes: an engine, a Mac behind SSH, or nothing but a check of what somebody else has made."""

    name: str

    def version(self) -> str:
        """Name and version for records; raises `EngineError` with the way out where the engine does not answer."""
        ...

    def build(self, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False) -> Mapping[str, str]:
        """Execute a recipe with the network off and put the contents of its `/out` into the empty folder `out`.

        Returns what it executed besides the recipe's own files, by name, for records.
        `fresh` forbids the use of anything that an earlier build of the same recipe left behind.
        Raises `BuildError` (the step failed) or `EngineError` (the engine went away); the log is kept either way.
        """
        ...


class Engine(Maker, Protocol):
    """What executes recipes and commands: `docker`, or `process` where no container engine may run."""

    def execute(self, execution: Execution) -> Exit:
        """Run a command to its end, or stop it with everything that it started. Raises `EngineError`."""
        ...

    def beside(self, execution: Execution) -> AbstractContextManager[str]:
        """Keep a command running while the block runs, then ask it to end, and see to it that it does.

        It sees, below /proc, the processes of the executions whose `watcher` is what this gives. Raises `EngineError`.
        """
        ...

    def stop_strays(self, owner: str) -> int:
        """Stop executions of this owner that outlived the process that started them; returns how many."""
        ...
