"""Manifest -> plan: the matrix of cells, what must be built for them, what is left out and why.

Nothing here touches disk or device. A name that nobody knows is the user's mistake and ends in `ManifestError`, with
all such names reported at once; a combination that cannot run becomes a `Skip`, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from meltrepro.errors import PlanError
from meltrepro.plan import estimate, isa
from meltrepro.plan.estimate import Sizes, readable
from meltrepro.plan.model import (
    AS_IS,
    BundleNode,
    Catalog,
    Cell,
    DeviceFacts,
    Estimate,
    Isa,
    ModelNode,
    Plan,
    Skip,
)
from meltrepro.plan.names import KnownFramework, resolve
from meltrepro.plan.only import Selection
from meltrepro.spec.loader import LoadedManifest
from meltrepro.spec.manifest import Manifest, Model
from meltrepro.spec.sources import is_checkpoint
from meltrepro.spec.targets import AndroidTarget


def make_plan(
    loaded: LoadedManifest,
    catalog: Catalog,
    devices: Mapping[str, DeviceFacts],
    sizes: Sizes | None = None,
    only: Sequence[str] = (),
) -> Plan:
    """Expand a manifest over what there is. `devices` is by target name; a target that is missing there is skipped.

    `only` are glob patterns over cell ids; `*` also matches `/`. Raises `ManifestError` for names that are unknown,
    `UsageError` where a pattern matches no cell.
    """
    manifest, sizes, selection = loaded.manifest, sizes or Sizes(), Selection(only)
    frameworks = resolve(loaded, catalog)
    cells: list[Cell] = []
    skipped: list[Skip] = []
    memory: dict[str, int | None] = {}
    weights: dict[str, int | None] = {}
    judge = _Judge(manifest, devices, sizes)

    for model, quantization, framework, target, workload in _points(manifest):
        cell_id = f"{model}/{quantization}/{framework}/{target}/{workload}"
        if not selection.wants(cell_id):
            continue
        resolved = frameworks[framework]
        level = judge.level(resolved, quantization, target, manifest.models[model])
        if isinstance(level, str):
            skipped.append(Skip(cell_id, level))
            continue
        cell = Cell(
            model,
            quantization,
            framework,
            target,
            workload,
            manifest.models[model],
            manifest.frameworks[framework],
            manifest.targets[target],
            manifest.workloads[workload],
            level,
        )
        node = f"{model}/{quantization}/{framework}"
        if node not in weights:
            bits = resolved.info.quantizations.get(quantization)
            known = sizes.weights.get(node) or _shape_bytes(cell, resolved)
            weights[node] = estimate.weight_bytes(cell.model, bits, known)
        needed = estimate.peak_memory_bytes(cell, weights[node])
        reason = judge.fit(cell, needed, weights[node], stored=node in sizes.stored)
        if reason is not None:
            skipped.append(Skip(cell_id, reason))
            continue
        memory[cell_id] = needed
        cells.append(cell)

    selection.refuse_idle("/".join(next(_points(manifest))))
    models = _model_nodes(cells)
    bundles = _bundle_nodes(cells, frameworks)
    used = {node.id: weights[node.id] for node in models}
    downloads = estimate.download_bytes(estimate.sources_of(models, bundles, sizes), sizes)
    disk = estimate.disk_bytes(downloads, {node: weights[node.id] for node in models}, bundles, sizes)
    return Plan(
        manifest,
        tuple(cells),
        tuple(skipped),
        bundles,
        models,
        Estimate(downloads, disk, memory),
        tuple(_disk_warnings(cells, used, devices, sizes)),
    )


def require_cells(plan: Plan) -> None:
    """Raise `PlanError` with the reasons where a plan has nothing to run."""
    if plan.cells:
        return
    shown = [f"  {skip.cell_id}: {skip.reason}" for skip in plan.skipped[:5]]
    more = [f"  and {len(plan.skipped) - 5} more"] if len(plan.skipped) > 5 else []
    raise PlanError(
        "\n".join(["nothing in this manifest can run here; every cell is skipped:", *shown, *more]),
        hint="see all of it with: meltrepro plan SPEC",
    )


def _shape_bytes(cell: Cell, framework: KnownFramework) -> int | None:
    """Exact size of a model with made-up weights, where the framework knows what its quantizer makes of the shape."""
    if cell.model.shape is None or framework.info.model_bytes is None:
        return None
    return framework.info.model_bytes(cell.model.shape, cell.quantization, framework.release.name)


def _points(manifest: Manifest) -> Iterator[tuple[str, str, str, str, str]]:
    rest = [*product(manifest.frameworks, manifest.targets, manifest.workloads)]
    for name, model in manifest.models.items():
        for quantization in model.quantizations:
            for framework, target, workload in rest:
                yield name, quantization, framework, target, workload


class _Judge:
    """Decides what a cell runs with, or why it does not run; remembers what many cells share."""

    def __init__(self, manifest: Manifest, devices: Mapping[str, DeviceFacts], sizes: Sizes) -> None:
        self._manifest = manifest
        self._devices = devices
        self._sizes = sizes
        self._levels: dict[tuple[str, str], Isa | str] = {}

    def level(self, framework: KnownFramework, quantization: str, target: str, model: Model) -> Isa | str:
        """The CPU level of a cell, or the reason why there is none."""
        if is_checkpoint(model.source) and not (framework.release.converter and framework.info.converter_isa):
            return f"framework {framework.name} at {framework.release.name} has no converter for checkpoints"
        if quantization != AS_IS and quantization not in framework.info.quantizations:
            return f"framework {framework.name} does not offer quantization {quantization}"
        key = (framework.name, target)
        if key not in self._levels:
            self._levels[key] = self._choose(framework, target)
        return self._levels[key]

    def _choose(self, framework: KnownFramework, name: str) -> Isa | str:
        device = self._devices.get(name)
        if device is None:
            return f"target {name} could not be reached"
        offered = isa.for_machine(device.arch, framework.info.isas)
        if not offered:
            return f"framework {framework.name} has no build for {device.arch}, which target {name} is"
        wanted = self._manifest.targets[name].isa
        if wanted == "auto":
            best = isa.choose(device.features, device.arch, offered)
            if best is None:
                return f"the CPU of target {name} {_lacks(offered[-1], device)}"
            return self._linked(framework, name, best, device)
        level = next((level for level in offered if level.name == wanted), None)
        if level is None:
            return f"framework {framework.name} has no CPU level {wanted} for {device.arch}, which target {name} is"
        if isa.missing(level, device.features):
            return f"the CPU of target {name} {_lacks(level, device)}"
        return self._linked(framework, name, level, device)

    def _linked(self, framework: KnownFramework, name: str, level: Isa, device: DeviceFacts) -> Isa | str:
        """The level with the C library of the framework's toolchain, or why the target cannot use that."""
        target, ndk = self._manifest.targets[name], framework.ndk
        linked = isa.built_with(level, ndk)
        if ndk is None:
            return linked
        if not isinstance(target, AndroidTarget):
            if linked == level:
                return level
            return (
                f"framework {framework.name} is built with the NDK for {device.arch}, and target {name} is no Android"
            )
        if linked == level:
            return f"the NDK is used for aarch64 alone, and target {name} is {device.arch}"
        if target.lab is not None:
            return f"target {name} is a phone of the lab, which has no bionic: the C library of the NDK's programs"
        level_there = device.facts.get("sdk", "")
        if level_there.isdecimal() and int(level_there) < ndk.api:
            return (
                f"framework {framework.name} is built for Android API level {ndk.api}, target {name} has {level_there}"
            )
        return linked

    def fit(self, cell: Cell, memory: int | None, weights: int | None, *, stored: bool) -> str | None:
        """Why a cell cannot run for lack of context, memory or disk; `None` where it can."""
        trained = cell.model.trained_context
        if trained is not None and cell.workload.context > trained:
            return f"needs a context of {cell.workload.context} tokens, model {cell.model_name} has {trained}"
        device = self._devices[cell.target_name]
        if memory is not None and memory > device.memory_bytes:
            return f"needs {readable(memory)} of memory, target {cell.target_name} has {readable(device.memory_bytes)}"
        if weights is not None and not stored and weights > device.disk_free_bytes:
            return (
                f"needs {readable(weights)} on disk, target {cell.target_name} has "
                f"{readable(device.disk_free_bytes)} free"
            )
        making = self._making_bytes(cell, weights) if not stored else 0
        if self._sizes.free_bytes is not None and making > self._sizes.free_bytes:
            return (
                f"needs {readable(making)} in the store to be made, its disk has "
                f"{readable(self._sizes.free_bytes)} free"
            )
        return None

    def _making_bytes(self, cell: Cell, weights: int | None) -> int:
        """What made-up weights take before and after they are quantized, as far as they are not in the store."""
        if not cell.model.synthetic:
            return 0
        source = self._sizes.made.get(cell.model.source, 0)
        return source if cell.quantization == AS_IS else source + (weights or 0)


def _lacks(level: Isa, device: DeviceFacts) -> str:
    return f"lacks {', '.join(isa.missing(level, device.features))}, which {level.name} needs"


# -- nodes ------------------------------------------------------------------------------------------------------------


def _model_nodes(cells: Sequence[Cell]) -> tuple[ModelNode, ...]:
    nodes: dict[tuple[str, str, str], ModelNode] = {}
    for cell in cells:
        key = (cell.model_name, cell.quantization, cell.framework_name)
        if key not in nodes:
            nodes[key] = ModelNode(*key, source=cell.model.source)
    return tuple(nodes.values())


def _bundle_nodes(cells: Sequence[Cell], frameworks: Mapping[str, KnownFramework]) -> tuple[BundleNode, ...]:
    levels: dict[str, dict[str, Isa]] = {}
    quantized: set[str] = set()
    converted: set[str] = set()
    for cell in cells:
        levels.setdefault(cell.framework_name, {})[cell.isa.name] = cell.isa
        if cell.quantization != AS_IS:
            quantized.add(cell.framework_name)
        if is_checkpoint(cell.model.source):
            converted.add(cell.framework_name)
    nodes: list[BundleNode] = []
    for name, used in levels.items():
        framework = frameworks[name]
        wanted = used | {level.name: level for level in framework.extra_isas}
        nodes += [
            BundleNode(
                name,
                framework.info.kind,
                framework.release,
                level,
                ndk=framework.ndk if level.libc == "bionic" else None,
            )
            for level in wanted.values()
        ]
        if name in quantized:
            level = framework.info.quantizer_isa
            nodes.append(BundleNode(name, framework.info.kind, framework.release, level, "quantize"))
        if name in converted and framework.info.converter_isa is not None:
            level = framework.info.converter_isa
            nodes.append(BundleNode(name, framework.info.kind, framework.release, level, "convert"))
    return tuple(nodes)


def _disk_warnings(
    cells: Sequence[Cell], weights: Mapping[str, int | None], devices: Mapping[str, DeviceFacts], sizes: Sizes
) -> Iterator[str]:
    needed: dict[str, dict[str, int]] = {}
    for cell in cells:
        node = f"{cell.model_name}/{cell.quantization}/{cell.framework_name}"
        size = weights[node]
        if size is not None and node not in sizes.stored:
            needed.setdefault(cell.target_name, {})[node] = size
    for target, models in needed.items():
        total, free = sum(models.values()), devices[target].disk_free_bytes
        if total > free:
            yield (
                f"the {len(models)} models for target {target} need {readable(total)} on disk together, "
                f"{readable(free)} are free"
            )
