"""The values that planning takes and returns; all frozen, none of them touches disk or device.

`Catalog` and `DeviceFacts` carry what lower stages may not import: what a framework offers, what a device is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from meltrepro.spec.manifest import Framework, Manifest, Model, Ndk, Workload
from meltrepro.spec.sources import Source
from meltrepro.spec.targets import Target
from meltrepro.spec.zoo import ModelShape

AS_IS = "as-is"
"""The quantization that leaves a model as it is; every framework has it."""


@dataclass(frozen=True)
class Isa:
    """A CPU level that binaries are built for, and what a CPU must have to run them."""

    name: str
    """For example x86_64_v3; part of an artifact's identity."""
    triple: str
    """For example x86_64-linux-musl, or aarch64-linux-android29 for a bundle of the NDK's."""
    requires: frozenset[str]
    """CPU features as the kernel spells them in /proc/cpuinfo."""
    enable: tuple[str, ...]
    """Compiler target features (clang spelling) above the triple's baseline."""
    rank: int
    """The higher, the better, among the levels that a CPU can run."""

    @property
    def libc(self) -> str:
        """The C library of its bundles."""
        return "bionic" if "-android" in self.triple else "musl"


@dataclass(frozen=True)
class DeviceFacts:
    """What planning and records need to know of a device."""

    id: str
    """Stable across reboots and reconnections."""
    kind: str
    model: str
    arch: str
    """Machine as `uname -m` spells it."""
    features: frozenset[str]
    """CPU features as the kernel spells them."""
    cores: int
    memory_bytes: int
    disk_free_bytes: int
    virtual: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    """Everything else worth keeping: kernel, governor, CPU model, OS build."""


@dataclass(frozen=True)
class Release:
    """A pinned version of a framework, as its module declares it."""

    name: str
    commit: str
    date: str
    sources: Mapping[str, Source]
    """Inputs of the recipe by name, each with its digest."""
    converter: Mapping[str, Source] = field(default_factory=dict)
    """What its converter of checkpoints needs besides, by name; empty where it converts none."""


@dataclass(frozen=True)
class FrameworkInfo:
    """What one framework module offers, handed down as a value."""

    kind: str
    releases: Mapping[str, Release]
    isas: tuple[Isa, ...]
    quantizations: Mapping[str, float]
    """Name -> bits per weight, to estimate sizes before anything is built."""
    quantizer_isa: Isa
    """Level of the quantizer, fixed so that a model's bytes do not depend on who runs it."""
    converter_isa: Isa | None = None
    """That of the converter of checkpoints; absent where the framework has none."""
    model_bytes: Callable[[ModelShape, str, str], int | None] | None = None
    """Exact size of the model file for a shape, quantization and release, where the framework knows it."""


@dataclass(frozen=True)
class Catalog:
    """Every framework that is installed, by kind, and the chat templates by name."""

    frameworks: Mapping[str, FrameworkInfo]
    chat_templates: frozenset[str]


@dataclass(frozen=True)
class Cell:
    """One point of the matrix, with everything that a trial of it needs to know."""

    model_name: str
    quantization: str
    framework_name: str
    target_name: str
    workload_name: str
    model: Model
    framework: Framework
    target: Target
    workload: Workload
    isa: Isa

    @property
    def id(self) -> str:
        """`model/quantization/framework/target/workload`: folder of its records, name in console and MLflow."""
        return "/".join((self.model_name, self.quantization, self.framework_name, self.target_name, self.workload_name))


@dataclass(frozen=True)
class Skip:
    """A cell that will not run, and why; decided before anything is fetched."""

    cell_id: str
    reason: str


@dataclass(frozen=True)
class BundleNode:
    """A bundle to build or reuse: one framework release for one CPU level and purpose."""

    framework_name: str
    kind: str
    release: Release
    isa: Isa
    purpose: Literal["run", "quantize", "convert"] = "run"
    ndk: Ndk | None = None
    """What compiles it instead of the pinned zig."""

    @property
    def id(self) -> str:
        return f"{self.framework_name}/{self.purpose}/{self.isa.name}"

    @property
    def sources(self) -> Mapping[str, Source]:
        """Inputs of the recipe by name."""
        converter = self.release.converter if self.purpose == "convert" else {}
        return {**self.release.sources, **converter, **({"ndk": self.ndk.source} if self.ndk else {})}


@dataclass(frozen=True)
class ModelNode:
    """A quantized model to make or reuse. The quantizer belongs to its identity."""

    model_name: str
    quantization: str
    framework_name: str
    source: Source

    @property
    def id(self) -> str:
        return f"{self.model_name}/{self.quantization}/{self.framework_name}"


@dataclass(frozen=True)
class Estimate:
    """What a plan will cost, in bytes; `None` where it cannot be known before fetching."""

    download_bytes: int | None
    disk_bytes: int | None
    peak_memory_bytes: Mapping[str, int | None]
    """By cell id: weights + KV cache + working memory."""


@dataclass(frozen=True)
class Plan:
    """Cells in the order in which the manifest names them, what must be built for them, what is left out."""

    manifest: Manifest
    cells: tuple[Cell, ...]
    skipped: tuple[Skip, ...]
    bundles: tuple[BundleNode, ...]
    models: tuple[ModelNode, ...]
    estimate: Estimate
    warnings: tuple[str, ...] = ()
    """What may go wrong although every cell by itself can run, for people."""
