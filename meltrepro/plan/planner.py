"""Manifest -> plan: the matrix of cells, what must be built for them, what is left out and why.

Nothing here touches disk or device. A name that nobody knows is the user's mistake and ends in `ManifestError`, with
all such names reported at once; a combination that cannot run becomes a `Skip`, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from itertools import product

from meltrepro.errors import PlanError
from meltrepro.frameworks.base import Skip as NotMade
from meltrepro.manifest.accuracy import TextWorkload
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.manifest.schema import Manifest, Model, Workload
from meltrepro.manifest.sources import is_checkpoint
from meltrepro.manifest.targets import Target
from meltrepro.plan import estimate, isa
from meltrepro.plan.estimate import Sizes
from meltrepro.plan.model import (
    AS_IS,
    IOS,
    BundleNode,
    Catalog,
    Cell,
    CudaBuild,
    Estimate,
    Isa,
    LogitsNode,
    ModelNode,
    Plan,
    Skip,
)
from meltrepro.plan.names import KnownFramework, resolve
from meltrepro.plan.only import Selection
from meltrepro.plan.room import Room
from meltrepro.record.ids import CellId
from meltrepro.targets.base import DeviceFacts
from meltrepro.words import readable


def make_plan(
    loaded: LoadedManifest,
    catalog: Catalog,
    devices: Mapping[str, DeviceFacts],
    sizes: Sizes | None = None,
    only: Sequence[str] = (),
    unusable: Mapping[str, str] | None = None,
) -> Plan:
    """Expand a manifest over what there is. `devices` is by target name; a target that is missing there is skipped, for the
    reason that `unusable` has.

    `only` are glob patterns over cell ids; `*` also matches `/`. Raises `ManifestError` for names that are unknown,
    `UsageError` where a pattern matches no cell.
    """
    manifest, sizes, selection = loaded.manifest, sizes or Sizes(), Selection(only)
    frameworks = resolve(loaded, catalog)
    cells: list[Cell] = []
    skipped: list[Skip] = []
    memory: dict[str, int | None] = {}
    weights: dict[str, int | None] = {}
    judge, room = _Judge(manifest, devices, unusable or {}), Room(sizes)

    for key in _points(manifest):
        model, quantization, framework, target, workload = astuple(key)
        cell_id = str(key)
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
        node = str(key.model_id)
        if node not in weights:
            bits = resolved.info.quantizations.get(quantization)
            known = sizes.weights.get(node) or _shape_bytes(cell, resolved)
            weights[node] = estimate.weight_bytes(cell.model, bits, known)
        needed = estimate.peak_memory_bytes(cell, weights[node])
        reason = (
            judge.accuracy(cell, resolved)
            or judge.fit(cell, needed, weights[node], stored=node in sizes.stored)
            or room.refuse(cell, node, weights[node])
        )
        if reason is not None:
            skipped.append(Skip(cell_id, reason))
            continue
        memory[cell_id] = needed
        cells.append(cell)

    selection.refuse_idle(str(next(_points(manifest))))
    models = _model_nodes(cells, frameworks)
    bundles = _bundle_nodes(cells, frameworks)
    for model_node in models:
        if model_node.id not in weights:  # of a model that others are compared with
            bits = frameworks[model_node.framework_name].info.quantizations.get(model_node.quantization)
            known = sizes.weights.get(model_node.id)
            weights[model_node.id] = estimate.weight_bytes(manifest.models[model_node.model_name], bits, known)
    used = {node.id: weights[node.id] for node in models}
    downloads = estimate.download_bytes(estimate.sources_of(models, bundles, cells, sizes), sizes)
    by_node = {node: weights[node.id] for node in models}
    disk = estimate.disk_bytes(downloads, by_node, bundles, sizes)
    return Plan(
        manifest,
        tuple(cells),
        tuple(skipped),
        bundles,
        models,
        Estimate(downloads, disk, memory, estimate.new_model_bytes(by_node, sizes)),
        logits=_logits_nodes(cells, models, bundles, frameworks),
        warnings=(*_disk_warnings(cells, used, devices, sizes), *_proof_warnings(cells, devices)),
    )


def require_cells(plan: Plan) -> None:
    """Raise `PlanError` with the reasons where a plan has nothing to run."""
    if plan.cells:
        return
    shown = [f"  {skip.cell_id}: {skip.reason}" for skip in plan.skipped[:5]]
    more = [f"  and {len(plan.skipped) - 5} more"] if len(plan.skipped) > 5 else []
    raise PlanError(
        "\n".join(["nothing in this manifest can run here; every cell is skipped:", *shown, *more]),
        hint=_mend(plan),
    )


def _mend(plan: Plan) -> str:
    """What lets something run: what the reasons have in common, else where all of them stand."""
    reasons = {skip.reason for skip in plan.skipped}
    if reasons and all(" on disk, " in reason or " in the store " in reason for reason in reasons):
        return "free space with: meltrepro gc, put the store on another disk (MELTREPRO_CACHE), or name smaller models"
    if reasons and all(" of memory, " in reason for reason in reasons):
        return "name smaller models or quantizations, or a target with more memory"
    return "change what the reasons name, or try a manifest that runs on any machine: specs/quickstart.yaml"


def _shape_bytes(cell: Cell, framework: KnownFramework) -> int | None:
    """Exact size of a model with made-up weights, where the framework knows what its quantizer makes of the shape."""
    if cell.model.shape is None or framework.info.model_bytes is None:
        return None
    return framework.info.model_bytes(cell.model.shape, cell.quantization, framework.release.name)


def _points(manifest: Manifest) -> Iterator[CellId]:
    rest = [*product(manifest.frameworks, manifest.targets, manifest.workloads)]
    for name, model in manifest.models.items():
        for quantization in model.quantizations:
            for framework, target, workload in rest:
                yield CellId(name, quantization, framework, target, workload)


class _Judge:
    """Decides what a cell runs with, or why it does not run; remembers what many cells share."""

    def __init__(self, manifest: Manifest, devices: Mapping[str, DeviceFacts], unusable: Mapping[str, str]) -> None:
        self._manifest = manifest
        self._unusable = unusable
        self._devices = devices
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
            return self._unusable.get(name, f"target {name} could not be reached")
        offered = isa.for_machine(device.arch, framework.info.isas)
        if not offered:
            return f"framework {framework.name} has no build for {device.arch}, which target {name} is"
        offered = tuple(
            level for level in offered if level.releases is None or framework.release.name in level.releases
        )
        if not offered:
            return (
                f"release {framework.release.name} of framework {framework.name} has no build for {device.arch}, "
                f"which target {name} is"
            )
        if device.arch == IOS and (lacking := _lacks_app(framework, self._manifest.targets[name])):
            return f"target {name}: {lacking}"
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
        if framework.cuda is not None and isa.machine(device.arch) == "aarch64":
            return self._with_cuda(framework, framework.cuda, name, level, device)
        target, ndk = self._manifest.targets[name], framework.ndk
        linked = isa.built_with(level, ndk)
        if ndk is None:
            return linked
        if target.kind != "android":
            if linked == level:
                return level
            return (
                f"framework {framework.name} is built with the NDK for {device.arch}, and target {name} is no Android"
            )
        if linked == level:
            return f"the NDK is used for aarch64 alone, and target {name} is {device.arch}"
        if getattr(target, "lab", None) is not None:
            return f"target {name} is a phone of the lab, which has no bionic: the C library of the NDK's programs"
        level_there = device.facts.get("sdk", "")
        if level_there.isdecimal() and int(level_there) < ndk.api:
            return (
                f"framework {framework.name} is built for Android API level {ndk.api}, target {name} has {level_there}"
            )
        return linked

    def _with_cuda(
        self, framework: KnownFramework, cuda: CudaBuild, name: str, level: Isa, device: DeviceFacts
    ) -> Isa | str:
        """The level with CUDA, or why the target cannot use that; nothing else is built of such a framework for boards."""
        target, what = self._manifest.targets[name], f"framework {framework.name} is built with CUDA"
        if target.kind != "jetson":
            return f"{what} for {device.arch}, and target {name} is no Jetson"
        if getattr(target, "lab", None) is not None:
            return f"{what}, and target {name} is a board of the lab, which has no GPU"
        release = device.facts.get("l4t", "")
        if release and release.partition(".")[0] != cuda.l4t:
            return f"{what} of JetPack {cuda.jetpack} (L4T {cuda.l4t}), and target {name} has L4T {release}"
        return isa.built_with_cuda(level, cuda)

    def accuracy(self, cell: Cell, framework: KnownFramework) -> str | None:
        """Why a cell has no accuracy; `None` where it has one, or is not asked for it."""
        workload = cell.workload
        if isinstance(workload, Workload):
            return None
        if cell.model.synthetic:
            return f"model {cell.model_name} is synthetic: its weights were made up, and have no accuracy"
        if not cell.target.runs_programs:
            return f"target {cell.target_name} runs the runner app alone, which is no scorer"
        if not framework.info.scorer:
            return f"framework {framework.name} has no scorer"
        if isinstance(workload, TextWorkload) and cell.logits_id is not None and not _offers(framework, workload):
            return f"framework {framework.name} does not offer quantization {workload.against} to compare with"
        return None

    def fit(self, cell: Cell, memory: int | None, weights: int | None, *, stored: bool) -> str | None:
        """Why a cell cannot run for lack of context, memory or disk on its device; `None` where it can."""
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
        return None


def _lacks_app(framework: KnownFramework, target: Target) -> str | None:
    """Why a phone cannot have the app of a framework; `None` where it can."""
    if framework.ios is None:
        return (
            f"framework {framework.name} does not say where the signed app for iPhones comes from: "
            "build.ios (docs/devices/ios.md)"
        )
    if (app := getattr(target, "app", None)) != framework.ios.app:
        return f"its app is {app}, and framework {framework.name} comes as {framework.ios.app}: build.ios.app"
    return None


def _offers(framework: KnownFramework, workload: TextWorkload) -> bool:
    return workload.against == AS_IS or workload.against in framework.info.quantizations


def _lacks(level: Isa, device: DeviceFacts) -> str:
    return f"lacks {', '.join(isa.missing(level, device.features))}, which {level.name} needs"


# -- nodes ------------------------------------------------------------------------------------------------------------


def _model_nodes(cells: Sequence[Cell], frameworks: Mapping[str, KnownFramework]) -> tuple[ModelNode, ...]:
    nodes: dict[tuple[str, str, str], ModelNode] = {}

    def add(cell: Cell, quantization: str) -> None:
        key = (cell.model_name, quantization, cell.framework_name)
        if key in nodes:
            return
        framework = frameworks[cell.framework_name]
        steps = framework.info.model_steps(cell.model.source, quantization, framework.release)
        assert not isinstance(steps, NotMade), cell.id
        nodes[key] = ModelNode(*key, cell.model.source, framework.info.kind, tuple(steps))

    for cell in cells:
        add(cell, cell.quantization)
    for cell in cells:
        if isinstance(cell.workload, TextWorkload) and cell.logits_id is not None:
            add(cell, cell.workload.against)
    return tuple(nodes.values())


def _logits_nodes(
    cells: Sequence[Cell],
    models: Sequence[ModelNode],
    bundles: Sequence[BundleNode],
    frameworks: Mapping[str, KnownFramework],
) -> tuple[LogitsNode, ...]:
    """What cells are compared with, each made once; by the level of the quantizer, as the models are."""
    by_id = {model.id: model for model in models}
    runs = {(bundle.framework_name, bundle.isa.name): bundle for bundle in bundles if bundle.purpose == "run"}
    nodes: dict[str, LogitsNode] = {}
    for cell in cells:
        if isinstance(cell.workload, TextWorkload) and cell.logits_key is not None and cell.logits_id is not None:
            model = by_id[str(cell.logits_key.model_id)]
            bundle = runs[cell.framework_name, frameworks[cell.framework_name].info.quantizer_isa.name]
            nodes[cell.logits_id] = LogitsNode(cell.logits_id, model, bundle, cell.workload)
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
        if isinstance(cell.workload, TextWorkload) and cell.logits_id is not None:
            level = frameworks[cell.framework_name].info.quantizer_isa
            levels[cell.framework_name].setdefault(level.name, level)
            if cell.workload.against != AS_IS:
                quantized.add(cell.framework_name)
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
                ios=framework.ios if level.triple == IOS else None,
                cuda=framework.cuda if level.libc == "glibc" else None,
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


def _proof_warnings(cells: Sequence[Cell], devices: Mapping[str, DeviceFacts]) -> Iterator[str]:
    for target in dict.fromkeys(cell.target_name for cell in cells):
        if proof := devices[target].facts.get("proof"):
            yield f"target {target}: {proof}; what it measures has nothing behind it yet (docs/devices/{devices[target].kind}.md)"


def _disk_warnings(
    cells: Sequence[Cell], weights: Mapping[str, int | None], devices: Mapping[str, DeviceFacts], sizes: Sizes
) -> Iterator[str]:
    needed: dict[str, dict[str, int]] = {}
    for cell in cells:
        node = cell.model_id
        size = weights[node]
        if cell.target.here:  # it reads what the store has, for which there is room
            continue
        if size is not None and node not in sizes.stored:
            needed.setdefault(cell.target_name, {})[node] = size
    for target, models in needed.items():
        total, free = sum(models.values()), devices[target].disk_free_bytes
        if total > free:
            yield (
                f"the {len(models)} models for target {target} need {readable(total)} on disk together, "
                f"{readable(free)} are free; leave some out with --only or --set 'models.NAME.quantizations=[...]'"
            )
