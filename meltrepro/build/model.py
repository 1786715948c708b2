"""The values and the seam of building: recipes go in, content-addressed artifacts come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from meltrepro.steps import Sink


@dataclass(frozen=True)
class Recipe:
    """A rendered recipe: the exact files that an engine executes.

    `files` are written to the build context's root; `build.sh` is run by `/bin/sh` with the inputs read-only under
    `/inputs/<name>` and must leave its results in `/out`. Nothing else of it may reach the outside.
    """

    name: str
    """For example llama.cpp/2024-02-27/x86_64_v3."""
    files: Mapping[str, bytes]
    """`Dockerfile`, `build.sh` and the sources that travel with the toolkit, by relative path."""
    inputs: Mapping[str, Path]
    """Verified files or folders by name."""
    input_digests: Mapping[str, str]
    """sha256 of each input."""
    triple: str
    """Target whose C library the builder image must hold ready."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A build output in the store."""

    id: str
    """Identity of the node that it belongs to, for people."""
    kind: str
    """`bundle` or `model`."""
    key: str
    """Digest of everything that went in; equal keys are never built twice."""
    digest: str
    """sha256 of the bytes that came out (of the deterministic tar, for a bundle)."""
    path: Path
    """The file (model) or the unpacked folder (bundle)."""
    size: int


@dataclass(frozen=True)
class Execution:
    """A command to run in a clean place without network: a quantizer, a runner."""

    argv: Sequence[str]
    readonly: Mapping[str, Path] = field(default_factory=dict)
    """Absolute path inside -> file or folder outside."""
    writable: Mapping[str, Path] = field(default_factory=dict)
    timeout_s: float | None = None
    stdout: Path | None = None
    stderr: Path | None = None


class Engine(Protocol):
    """What executes recipes and commands: `docker`, or `process` where no container engine may run."""

    name: str

    def version(self) -> str:
        """Name and version for records; raises `EngineError` with the way out where the engine does not answer."""
        ...

    def build(self, recipe: Recipe, out: Path, log: Path, sink: Sink) -> None:
        """Execute a recipe with the network off and put the contents of its `/out` into the empty folder `out`.

        Raises `BuildError` (the step failed) or `EngineError` (the engine went away); the log is kept either way.
        """
        ...

    def execute(self, execution: Execution) -> int:
        """Run a command to its end and return its exit status; 124 after the timeout. Raises `EngineError`."""
        ...
