"""The values that planning returns; all frozen, none of them touches disk or device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pydantic import BaseModel, JsonValue

from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import ModelStep, Purpose, Release, SkipKind, Variant, framework
from meltrepro.manifest.accuracy import AccuracyWorkload, TextWorkload
from meltrepro.manifest.schema import Manifest, Model, Offload, Workload
from meltrepro.manifest.sources import Source, is_checkpoint
from meltrepro.manifest.targets import Target
from meltrepro.record.ids import ADAPTED, RUN, BundleId, CellId, LogitsId, ModelId

EVERY = ""
"""Stands for every quantization."""
Refusals = Mapping[tuple[str, str, str], str]
"""Why a framework cannot load a model, or make a quantization of it, by the names of model, framework and quantization."""


@dataclass(frozen=True)
class Away:
    """Where the engine of a cell runs whose device only asks."""

    name: str
    """Of the target."""
    target: Target
    asker: Variant
    """What the device that asks runs."""
    offload: Offload


@dataclass(frozen=True)
class Cell:
    """One point of the matrix, with everything that a trial of it needs to know."""

    model_name: str
    quantization: str
    framework_name: str
    target_name: str
    workload_name: str
    model: Model
    target: Target
    workload: Workload | AccuracyWorkload
    kind: str
    """Of framework."""
    variant: Variant
    options: Mapping[str, JsonValue]
    """The framework's own part of its request."""
    model_key: ModelId
    """The model that it runs."""
    logits_key: LogitsId | None = None
    """What it is compared with; `None` for a cell that is compared with nothing."""
    draft_key: ModelId | None = None
    """The model that foresees what that one says; `None` where none does."""
    adapter_key: ModelId | None = None
    """What is added to its weights; `None` where nothing is."""
    away: Away | None = None
    """`None` where the engine runs on the cell's own device."""
    point: str = ""
    """What the framework's name has behind it where options are axes."""

    @cached_property
    def key(self) -> CellId:
        framework = self.framework_name + self.point
        return CellId(self.model_name, self.quantization, framework, self.target_name, self.workload_name)

    @cached_property
    def id(self) -> str:
        """How its key is spelled: folder of its records, name in console and MLflow."""
        return str(self.key)

    @cached_property
    def model_id(self) -> str:
        return str(self.model_key)

    @property
    def bundle_id(self) -> str:
        """Id of the programs that it runs."""
        return str(BundleId(self.framework_name, RUN, self.variant.name))

    @property
    def asker_id(self) -> str | None:
        """Id of the programs of its own device, where its engine runs on another one."""
        return str(BundleId(self.framework_name, RUN, self.away.asker.name)) if self.away is not None else None

    @property
    def engine_name(self) -> str:
        """The target that its engine runs on."""
        return self.away.name if self.away is not None else self.target_name

    @property
    def engine_target(self) -> Target:
        return self.away.target if self.away is not None else self.target

    @property
    def target_names(self) -> tuple[str, ...]:
        """The targets that its trials occupy."""
        return (self.target_name, self.away.name) if self.away is not None else (self.target_name,)

    @property
    def draft_id(self) -> str | None:
        return str(self.draft_key) if self.draft_key is not None else None

    @property
    def adapter_id(self) -> str | None:
        return str(self.adapter_key) if self.adapter_key is not None else None

    @property
    def logits_id(self) -> str | None:
        return str(self.logits_key) if self.logits_key is not None else None


@dataclass(frozen=True)
class SkippedCell:
    """A cell that will not run, and why; decided before anything is fetched."""

    cell_id: str
    kind: SkipKind
    reason: str


@dataclass(frozen=True)
class BundleNode:
    """A bundle to build or reuse: one framework release for one variant and purpose."""

    framework_name: str
    kind: str
    """Of framework."""
    release: Release
    variant: Variant
    purpose: Purpose
    recipe: RecipeSource

    @property
    def id(self) -> str:
        return str(BundleId(self.framework_name, self.purpose, self.variant.name))

    @property
    def sources(self) -> Mapping[str, Source]:
        """Inputs of the recipe by name."""
        return self.recipe.inputs


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
    variant: Variant | None = None
    """The one that it is made for; `None` where it fits all."""

    @property
    def id(self) -> str:
        variant = self.variant.name if self.variant is not None else ""
        return str(ModelId(self.model_name, self.quantization, self.framework_name, variant))

    @property
    def is_adapter(self) -> bool:
        """Whether it is no model, and what is added to one's weights."""
        return self.quantization == ADAPTED

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
class Costs:
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
    skipped: tuple[SkippedCell, ...]
    bundles: tuple[BundleNode, ...]
    models: tuple[ModelNode, ...]
    estimate: Costs
    logits: tuple[LogitsNode, ...] = ()
    """What cells are compared with; of models and bundles above."""
    warnings: tuple[str, ...] = ()
    """What may go wrong although every cell by itself can run, for people."""

    def options(self, node: BundleNode | ModelNode) -> BaseModel:
        """The options of a node's framework: the usual ones where the manifest does not name it, and others compare with it."""
        entry = self.manifest.frameworks.get(node.framework_name)
        return entry.options if entry is not None else framework(node.kind).options()

    def optional(self, node: BundleNode | ModelNode) -> bool:
        """Whether the others go on where a node of a framework cannot be had."""
        entry = self.manifest.frameworks.get(node.framework_name)
        return entry is not None and entry.optional

    def without(self, frameworks: Mapping[str, str]) -> Plan:
        """The same without these entries of frameworks, whose cells are skipped for the reasons given."""
        if not frameworks:
            return self
        lost = {
            cell.id: frameworks[needed[0]]
            for cell in self.cells
            if (needed := [name for name in _needed(cell, self.logits) if name in frameworks])
        }
        return replace(
            self,
            cells=tuple(cell for cell in self.cells if cell.id not in lost),
            skipped=(*self.skipped, *(SkippedCell(id, SkipKind.build, reason) for id, reason in lost.items())),
            bundles=tuple(node for node in self.bundles if node.framework_name not in frameworks),
            models=tuple(node for node in self.models if node.framework_name not in frameworks),
            logits=tuple(
                node
                for node in self.logits
                if not {node.model.framework_name, node.bundle.framework_name} & frameworks.keys()
            ),
        )


def _needed(cell: Cell, logits: Sequence[LogitsNode]) -> list[str]:
    """The entries of frameworks that a cell cannot do without."""
    compared = [node for node in logits if node.id == cell.logits_id]
    return [
        cell.framework_name,
        *(name for one in compared for name in (one.model.framework_name, one.bundle.framework_name)),
    ]
