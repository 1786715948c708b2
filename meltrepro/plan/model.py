"""The values that planning takes and returns; all frozen, none of them touches disk or device.

`Catalog` carries what a framework offers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from meltrepro.frameworks.base import ModelStep
from meltrepro.frameworks.base import Skip as NotMade
from meltrepro.manifest.accuracy import AccuracyWorkload, TextWorkload
from meltrepro.manifest.apps import IosBuild
from meltrepro.manifest.schema import ALL_LAYERS, Framework, Manifest, Model, Ndk, Workload
from meltrepro.manifest.shapes import ModelShape
from meltrepro.manifest.sources import Source, is_checkpoint
from meltrepro.manifest.targets import Target
from meltrepro.record.ids import RUN, BundleId, CellId, LogitsId, ModelId

AS_IS = "as-is"
"""The quantization that leaves a model as it is; every framework has it."""

IOS = "arm64-ios"
"""Machine of iPhones, and triple of what runs there: programs for Linux on such CPUs do not."""


@dataclass(frozen=True)
class Isa:
    """A CPU level that binaries are built for, and what a CPU must have to run them."""

    name: str
    """For example x86_64_v3; part of an artifact's identity."""
    triple: str
    """For example x86_64-linux-musl; aarch64-linux-android29 with the NDK, aarch64-linux-gnu with CUDA."""
    requires: frozenset[str]
    """CPU features as the kernel spells them in /proc/cpuinfo."""
    enable: tuple[str, ...]
    """Compiler target features (clang spelling) above the triple's baseline."""
    rank: int
    """The higher, the better, among the levels that a CPU can run."""
    releases: frozenset[str] | None = None
    """Releases that can be built for it; all where absent."""

    @property
    def libc(self) -> str:
        """The C library of its bundles."""
        if self.triple == IOS:
            return "libSystem"
        if self.triple.endswith("-linux-gnu"):
            return "glibc"
        return "bionic" if "-android" in self.triple else "musl"


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
class CudaBuild:
    """How a framework is built with CUDA for one release of JetPack."""

    jetpack: str
    l4t: str
    """Linux for Tegra that the release of JetPack belongs to: the number before the first dot."""
    cuda: str
    arch: str
    """GPU that machine code is made for, as in sm_87 without its prefix."""
    triple: str
    releases: frozenset[str]
    """Releases of the framework that can be built so."""
    sources: Mapping[str, Source]
    """Compilers, headers and libraries by the names under which the recipe finds them."""


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
    model_steps: Callable[[Source, str, Release], Sequence[ModelStep] | NotMade] = lambda *_: ()
    """How a model is made from its source, for a quantization and release."""
    cuda: Mapping[str, CudaBuild] = field(default_factory=dict)
    """Builds with CUDA by release of JetPack."""
    scorer: bool = False
    """Whether its bundles have a scorer, which accuracy workloads need."""


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
    workload: Workload | AccuracyWorkload
    isa: Isa

    @property
    def gpu_layers(self) -> int:
        """How many layers its trials run on a GPU: none with a bundle for CPUs."""
        if self.isa.libc != "glibc":  # only what is built with CUDA has the device's own C library
            return 0
        wanted = self.framework.gpu_layers
        return ALL_LAYERS if wanted in (None, "all") else int(wanted)

    @property
    def key(self) -> CellId:
        return CellId(self.model_name, self.quantization, self.framework_name, self.target_name, self.workload_name)

    @property
    def id(self) -> str:
        """How its key is spelled: folder of its records, name in console and MLflow."""
        return str(self.key)

    @property
    def model_id(self) -> str:
        """Id of the model that it runs."""
        return str(self.key.model_id)

    @property
    def bundle_id(self) -> str:
        """Id of the programs that it runs."""
        return str(BundleId(self.framework_name, RUN, self.isa.name))

    @property
    def logits_key(self) -> LogitsId | None:
        """What it is compared with; `None` for a cell that is compared with nothing."""
        workload = self.workload
        if not isinstance(workload, TextWorkload) or workload.task != "kl-divergence":
            return None
        return LogitsId(self.model_name, workload.against, self.framework_name, self.workload_name)

    @property
    def logits_id(self) -> str | None:
        return str(self.logits_key) if self.logits_key is not None else None


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
    ios: IosBuild | None = None
    """Where the app comes from, of a bundle for iPhones."""
    cuda: CudaBuild | None = None
    """Which GPU it can use; a bundle for CPUs alone where absent."""

    @property
    def id(self) -> str:
        return str(BundleId(self.framework_name, self.purpose, self.isa.name))

    @property
    def sources(self) -> Mapping[str, Source]:
        """Inputs of the recipe by name."""
        if self.ios is not None:
            file = self.ios.file
            if self.ios.ipa is not None and file is not None:
                return {"app.ipa": file}
            return {**self.release.sources, **({"xcframework.zip": file} if file is not None else {})}
        return {
            **self.release.sources,
            **(self.release.converter if self.purpose == "convert" else {}),
            **({"ndk": self.ndk.source} if self.ndk else {}),
            **(self.cuda.sources if self.cuda else {}),
        }


@dataclass(frozen=True)
class ModelNode:
    """A model to make or reuse, as one framework loads it."""

    model_name: str
    quantization: str
    framework_name: str
    source: Source
    kind: str
    """Of the framework."""
    steps: tuple[ModelStep, ...] = ()
    """How it is made from its source."""

    @property
    def id(self) -> str:
        return str(ModelId(self.model_name, self.quantization, self.framework_name))

    @property
    def is_folder(self) -> bool:
        """Whether what is loaded is a folder: the last step leaves one, or a checkpoint is loaded as it is."""
        return self.steps[-1].output == "folder" if self.steps else is_checkpoint(self.source)


@dataclass(frozen=True)
class LogitsNode:
    """What the unquantized model expects of a text, to compare others with; made here once, for all targets."""

    id: str
    model: ModelNode
    bundle: BundleNode
    workload: TextWorkload


@dataclass(frozen=True)
class Estimate:
    """What a plan will cost, in bytes; `None` where it cannot be known before fetching."""

    download_bytes: int | None
    disk_bytes: int | None
    peak_memory_bytes: Mapping[str, int | None]
    """By cell id: weights + KV cache + working memory."""
    model_bytes: Mapping[str, int | None] = field(default_factory=dict)
    """By model node id: what the store will grow by for it."""


@dataclass(frozen=True)
class Plan:
    """Cells in the order in which the manifest names them, what must be built for them, what is left out."""

    manifest: Manifest
    cells: tuple[Cell, ...]
    skipped: tuple[Skip, ...]
    bundles: tuple[BundleNode, ...]
    models: tuple[ModelNode, ...]
    estimate: Estimate
    logits: tuple[LogitsNode, ...] = ()
    """What cells are compared with; of models and bundles above."""
    warnings: tuple[str, ...] = ()
    """What may go wrong although every cell by itself can run, for people."""
