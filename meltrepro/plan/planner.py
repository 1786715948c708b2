"""Manifest -> plan: the matrix of cells, what must be built for them, what is left out and why.

Nothing here touches disk or device. A name that nobody knows is the user's mistake and ends in `ManifestError`, with
all such names reported at once; a combination that cannot run becomes a `SkippedCell`, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from meltrepro.errors import DeviceBusy, NothingThere, PlanError
from meltrepro.frameworks.base import Asked, ContextUse, ModelStep, Skip, SkipKind, Variant
from meltrepro.manifest.accuracy import AnswerWorkload, TextWorkload
from meltrepro.manifest.axes import Point
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.manifest.schema import AnyWorkload, Manifest, Model, Offload, Workload
from meltrepro.plan import estimate
from meltrepro.plan.estimate import Sizes, StoreSpace
from meltrepro.plan.model import (
    EVERY,
    Away,
    BundleNode,
    Cell,
    Costs,
    LogitsNode,
    ModelNode,
    Plan,
    Refusals,
    SkippedCell,
)
from meltrepro.plan.names import KnownFramework, Selection, references, resolve
from meltrepro.record.ids import ADAPTED, RUN, BundleId, CellId, LogitsId, ModelId
from meltrepro.targets.base import DeviceFacts
from meltrepro.words import readable


def make_plan(
    loaded: LoadedManifest,
    devices: Mapping[str, DeviceFacts],
    sizes: Sizes | None = None,
    only: Sequence[str] = (),
    unusable: Mapping[str, Skip] | None = None,
    refusals: Refusals | None = None,
) -> Plan:
    """Expand a manifest over what there is. `devices` is by target name; a target that is missing there is skipped, for the
    reason that `unusable` has. `refusals` say what a framework cannot load or make.

    `only` are glob patterns over cell ids; `*` also matches `/`. Raises `ManifestError` for names that are unknown,
    `UsageError` where a pattern matches no cell.
    """
    manifest, sizes, selection = loaded.manifest, sizes or Sizes(), Selection(only)
    named = resolve(loaded)
    others = references(named)
    frameworks = {**named, **{each.name: each for each in others.values()}}
    cells: list[Cell] = []
    skipped: list[SkippedCell] = []
    memory: dict[str, int | None] = {}
    weights: dict[str, int | None] = {}
    judge, space = _Judge(manifest, devices, unusable or {}, refusals or {}), StoreSpace(sizes)

    points = manifest.points
    for key in _points(manifest):
        if only and not selection.wants(str(key)):
            continue
        name, point = points[key.framework]
        known = frameworks[name]
        offload = offload_of(manifest, key)
        # What is measured is made for the device that its engine runs on.
        variant = judge.variant(known, key if offload is None else replace(key, target=offload.to), point)
        if isinstance(variant, Skip):
            skipped.append(SkippedCell(str(key), variant.kind, variant.reason))
            continue
        away = judge.away(known, key, point, offload) if offload is not None else None
        if isinstance(away, Skip):
            skipped.append(SkippedCell(str(key), away.kind, away.reason))
            continue
        source = known.source(manifest.models[key.model])
        cell = Cell(
            *(key.model, key.quantization, name, key.target, key.workload),
            manifest.models[key.model],
            manifest.targets[key.target],
            manifest.workloads[key.workload],
            known.framework.kind,
            variant,
            known.framework.request(point.options, variant),
            known.model_id(key.model, source, key.quantization, variant),
            _logits(key, manifest.workloads[key.workload], others[name]),
            _draft(key, manifest, known, variant),
            ModelId(key.model, ADAPTED, name) if manifest.models[key.model].lora is not None else None,
            away,
            point.name,
        )
        if cell.model_id not in weights:
            weights[cell.model_id] = _weights(cell.model, cell.model_key, known, sizes)
        size = weights[cell.model_id]
        if (
            cell.draft_key is not None
            and cell.draft_key.model in manifest.models
            and str(cell.draft_key) not in weights
        ):
            weights[str(cell.draft_key)] = _weights(manifest.models[cell.draft_key.model], cell.draft_key, known, sizes)
        needed = estimate.peak_memory_bytes(cell, size, known.framework.cache_bits(point.options))
        if needed is not None and cell.draft_key is not None:
            needed += weights[str(cell.draft_key)] or 0
        if cell.adapter_id is not None and cell.model.lora is not None:
            weights[cell.adapter_id] = sizes.weights.get(cell.adapter_id, sizes.downloads.get(cell.model.lora.source))
            needed = needed and needed + (weights[cell.adapter_id] or 0)
        skip = (
            judge.accuracy(cell, known, others[name])
            or judge.adapter(cell, known)
            or judge.workload(cell, known)
            or judge.options(cell, known, point)
            or judge.fit(cell, needed, size, stored=cell.model_id in sizes.stored)
            or space.take(cell, source, size)
        )
        if skip is not None:
            skipped.append(SkippedCell(cell.id, skip.kind, skip.reason))
            continue
        memory[cell.id] = needed
        cells.append(cell)

    selection.refuse_idle(map(str, _points(manifest)))
    models = _model_nodes(cells, frameworks, manifest.models)
    bundles = _bundle_nodes(cells, models, frameworks)
    by_node: dict[ModelNode, int | None] = {}
    for node in models:
        if node.id not in weights:  # of a model that others are compared with
            known, model = frameworks[node.framework_name], manifest.models[node.model_name]
            weights[node.id] = _weights(model, ModelId.parse(node.id), known, sizes)
        by_node[node] = weights[node.id]
    downloads = estimate.download_bytes(estimate.sources_of(models, bundles, cells, sizes), sizes)
    disk = estimate.disk_bytes(downloads, by_node, bundles, sizes)
    return Plan(
        manifest,
        tuple(cells),
        tuple(skipped),
        bundles,
        models,
        Costs(downloads, disk, memory, estimate.new_model_bytes(by_node, sizes)),
        logits=_logits_nodes(cells, models, bundles, frameworks),
        warnings=(*_disk_warnings(cells, weights, devices, sizes), *_proof_warnings(cells, devices)),
    )


def selected(manifest: Manifest, only: Sequence[str] = ()) -> list[CellId]:
    """The cells that a plan has anything to do with; raises `UsageError` where a pattern matches none."""
    selection = Selection(only)
    keys = [key for key in _points(manifest) if selection.wants(str(key))]
    selection.refuse_idle(map(str, _points(manifest)))
    return keys


def offload_of(manifest: Manifest, key: CellId) -> Offload | None:
    """Where the engine of a cell is to run, if not on its own device."""
    workload = manifest.workloads[key.workload]
    return workload.offload if isinstance(workload, Workload) else None


def targets_of(manifest: Manifest, keys: Sequence[CellId]) -> set[str]:
    """The targets that cells have anything to do with."""
    found = {offload.to for key in keys if (offload := offload_of(manifest, key)) is not None}
    return found | {key.target for key in keys}


def require_cells(plan: Plan, *, now: bool = True, shown: bool = False) -> None:
    """Raise an error with the reasons where a plan has nothing to run: `PlanError`, or `NothingThere` where cells only wait for
    their devices (`DeviceBusy` for other campaigns). Unless it is to run `now`, that is no error. Reasons that were `shown` already
    are not told again.
    """
    if plan.cells:
        return
    waiting = {skip.reason: skip.kind for skip in plan.skipped if skip.kind.of_device}
    if waiting and not now:
        return
    others = [skip for skip in plan.skipped if not skip.kind.of_device]
    reasons = [*waiting, *(f"{skip.cell_id}: {skip.reason}" for skip in others[:5])]
    more = [f"and {len(others) - 5} more"] if len(others) > 5 else []
    listed = [f"  {line}" for line in (*reasons, *more)]
    if not waiting:
        what = "nothing in this manifest can run here; every cell is skipped"
        raise PlanError(what if shown else "\n".join([f"{what}:", *listed]), hint=_mend(plan))
    if not others and set(waiting.values()) == {SkipKind.busy}:
        raise DeviceBusy("\n".join(["no device is free:", *listed]), hint="wait in the queue: the same with --wait")
    what = "nothing is left to run; no device of these cells can be measured now:"
    raise NothingThere("\n".join([what, *listed]), hint="see what is there and what it needs: meltrepro devices")


def _mend(plan: Plan) -> str:
    """What lets something run: what the reasons have in common, else where all of them stand."""
    kinds = {skip.kind for skip in plan.skipped}
    if kinds and kinds <= {SkipKind.disk, SkipKind.store}:
        return "free space with: meltrepro gc, put the store on another disk (MELTREPRO_CACHE), or name smaller models"
    if kinds == {SkipKind.memory}:
        return "name smaller models or quantizations, or a target with more memory"
    return "change what the reasons name, or try a manifest that runs on any machine: specs/quickstart.yaml"


def _weights(model: Model, node: ModelId, known: KnownFramework, sizes: Sizes) -> int | None:
    """Size of a model's file: known of the file, exact where the framework knows what it makes of a shape, else estimated."""
    size = sizes.weights.get(str(node))
    if size is None and model.shape is not None:
        size = known.framework.model_bytes(model.shape, node.quantization, known.release)
    bits = known.quantizations.get(node.quantization)
    if size is None and model.parameter_count is not None and bits is not None:
        size = int(model.parameter_count * bits / 8)
    return size


def _logits(cell: CellId, workload: AnyWorkload, other: KnownFramework) -> LogitsId | None:
    """What a cell is compared with, which the `other` framework makes; `None` where it is compared with nothing."""
    if not isinstance(workload, TextWorkload) or workload.task != "kl-divergence":
        return None
    return LogitsId(cell.model, workload.against, other.name, cell.workload)


def _draft(key: CellId, manifest: Manifest, known: KnownFramework, variant: Variant) -> ModelId | None:
    """The model that foresees what a cell's says; `None` where none does."""
    workload = manifest.workloads[key.workload]
    if not isinstance(workload, Workload) or workload.speculate is None or workload.speculate.model is None:
        return None
    name, quantization = workload.speculate.model, workload.speculate.quantization or key.quantization
    return known.model_id(name, known.source(manifest.models[name]), quantization, variant)


def _points(manifest: Manifest) -> Iterator[CellId]:
    rest = [*product(manifest.points, manifest.targets, manifest.workloads)]
    for name, model in manifest.models.items():
        for quantization in model.quantizations:
            for framework, target, workload in rest:
                yield CellId(name, quantization, framework, target, workload)


class _Judge:
    """Decides what a cell runs with, or why it does not run; remembers what many cells share."""

    def __init__(
        self,
        manifest: Manifest,
        devices: Mapping[str, DeviceFacts],
        unusable: Mapping[str, Skip],
        refusals: Refusals,
    ) -> None:
        self._manifest = manifest
        self._refusals = refusals
        self._unusable = unusable
        self._devices = devices
        self._variants: dict[tuple[str, str], Variant | Skip] = {}

    def variant(self, known: KnownFramework, key: CellId, point: Point) -> Variant | Skip:
        """What of its framework a cell runs, or why it cannot have that, or its model."""
        if point.name in known.unfit:
            return Skip(SkipKind.options, f"framework {key.framework}: {known.unfit[point.name]}")
        if key.quantization not in known.quantizations:
            return Skip(SkipKind.model, f"framework {known.name} does not offer quantization {key.quantization}")
        if (refusal := self._refusals.get((key.model, key.framework, EVERY))) is not None:
            return Skip(SkipKind.model, f"framework {key.framework} cannot load model {key.model}: {refusal}")
        if (refusal := self._refusals.get((key.model, key.framework, key.quantization))) is not None:
            made = f"{key.quantization} of model {key.model}"
            return Skip(SkipKind.model, f"framework {known.name} cannot make {made}: {refusal}")
        if (key.framework, key.target) not in self._variants:
            self._variants[key.framework, key.target] = self._choose(known, point, key.target)
        variant = self._variants[key.framework, key.target]
        if isinstance(variant, Skip):
            return variant
        steps = known.steps(key.model, known.source(self._manifest.models[key.model]), key.quantization, variant)
        if isinstance(steps, Skip):
            return Skip(steps.kind, f"framework {known.name} cannot make model {key.model}: {steps.reason}")
        return variant

    def _choose(self, known: KnownFramework, point: Point, target: str) -> Variant | Skip:
        device = self._devices.get(target)
        if device is None:
            return self._unusable.get(target, Skip(SkipKind.absent, f"target {target} could not be reached"))
        level = self._manifest.targets[target].isa
        found = known.framework.variant(point.options, known.release, device, level)
        if isinstance(found, Skip):
            return Skip(found.kind, f"framework {known.name} on target {target}: {found.reason}")
        return found

    def away(self, known: KnownFramework, key: CellId, point: Point, offload: Offload) -> Away | Skip:
        """How another device's engine answers a cell's own device, or why it cannot."""
        if key.target == offload.to:
            return Skip(SkipKind.options, f"target {key.target} is the one that others are to ask")
        asker, manifest = self.variant(known, key, point), self._manifest
        if isinstance(asker, Skip):
            return asker
        for name in (key.target, offload.to):
            if not manifest.targets[name].runs_programs:
                return Skip(SkipKind.options, f"target {name} runs the runner app alone, which asks nobody")
        if self._devices[key.target].id == self._devices[offload.to].id:
            return Skip(SkipKind.options, f"targets {key.target} and {offload.to} are the same device")
        if manifest.measure.operators:
            return Skip(SkipKind.options, "operators are those of the device that computes: measure it by itself")
        return Away(offload.to, manifest.targets[offload.to], asker, offload)

    def accuracy(self, cell: Cell, known: KnownFramework, other: KnownFramework) -> Skip | None:
        """Why a cell has no accuracy; `None` where it has one, or is not asked for it."""
        workload = cell.workload
        if isinstance(workload, Workload):
            return None
        reason = None
        if cell.model.synthetic:
            reason = f"model {cell.model_name} is synthetic: its weights were made up, and have no accuracy"
        elif isinstance(workload, AnswerWorkload):
            return None  # the runner asks them
        elif not cell.target.runs_programs:
            reason = f"target {cell.target_name} runs the runner app alone, which is no scorer"
        elif known.framework.scorer is None:
            reason = f"framework {known.name} has no scorer"
        elif (refusal := known.framework.scorer.refusal(workload.task)) is not None:
            reason = f"framework {known.name} has no scorer for {workload.task}, {refusal}"
        elif cell.logits_key is not None and cell.logits_key.quantization not in other.quantizations:
            against = cell.logits_key.quantization
            reason = f"framework {other.name} does not offer quantization {against} to compare with"
        return None if reason is None else Skip(SkipKind.accuracy, reason)

    def adapter(self, cell: Cell, known: KnownFramework) -> Skip | None:
        """Why nothing can be added to a cell's weights; `None` where it can, or nothing is to be."""
        if cell.adapter_key is None:
            return None
        reason = known.framework.adapter_refusal(known.release)
        if reason is None and cell.logits_key is not None:
            reason = "what the unquantized model expects of a text is written down without it"
        elif reason is None and not cell.engine_target.runs_programs:
            reason = f"target {cell.engine_name} runs the runner app alone, with one file"
        return None if reason is None else Skip(SkipKind.model, f"model {cell.model_name} has an adapter: {reason}")

    def workload(self, cell: Cell, known: KnownFramework) -> Skip | None:
        """Why a framework cannot hold a cell's conversations as they are asked for; `None` where it can."""
        workload, kind = cell.workload, known.framework.kind
        if not isinstance(workload, Workload):
            return None
        asked = [each for each in ContextUse if getattr(workload, each) != Workload.model_fields[each].default]
        if lacking := [each for each in asked if each not in known.framework.context_uses]:
            return Skip(SkipKind.options, f"framework {kind} has no {lacking[0]}")
        if cell.draft_key is None:
            return None
        if not cell.engine_target.runs_programs:
            return Skip(SkipKind.options, f"target {cell.engine_name} runs the runner app alone, with one model")
        quantization = cell.draft_key.quantization
        if quantization not in known.quantizations:
            return Skip(
                SkipKind.model, f"framework {known.name} does not offer quantization {quantization} to draft with"
            )
        source = known.source(self._manifest.models[cell.draft_key.model])
        steps = known.steps(cell.draft_key.model, source, quantization, cell.variant)
        return steps if isinstance(steps, Skip) else None

    def options(self, cell: Cell, known: KnownFramework, point: Point) -> Skip | None:
        """Why a cell cannot have its options where it is to run; `None` where it can."""
        asked = Asked(point.options, point.values.keys(), cell.variant, cell.workload.batch, cell.engine_target)
        refusal = known.framework.option_refusal(asked, self._devices[cell.engine_name])
        if refusal is None:
            return None
        return Skip(SkipKind.options, f"framework {cell.key.framework} on target {cell.engine_name}: {refusal}")

    def fit(self, cell: Cell, memory: int | None, weights: int | None, *, stored: bool) -> Skip | None:
        """Why a cell cannot run for lack of context, memory or disk on its device; `None` where it can."""
        trained = cell.model.trained_context
        if trained is not None and cell.workload.context > trained:
            needed = f"needs a context of {cell.workload.context} tokens"
            return Skip(SkipKind.context, f"{needed}, model {cell.model_name} has {trained}")
        device, has = self._devices[cell.engine_name], f"target {cell.engine_name} has"
        if memory is not None and memory > device.memory_bytes:
            return Skip(SkipKind.memory, f"needs {readable(memory)} of memory, {has} {readable(device.memory_bytes)}")
        free = device.disk_free_bytes
        if weights is not None and not stored and weights > free:
            return Skip(SkipKind.disk, f"needs {readable(weights)} on disk, {has} {readable(free)} free")
        return None


# -- nodes ------------------------------------------------------------------------------------------------------------


def _model_nodes(
    cells: Sequence[Cell], frameworks: Mapping[str, KnownFramework], models: Mapping[str, Model]
) -> tuple[ModelNode, ...]:
    wanted = {cell.model_key: cell.variant for cell in cells}
    for cell in cells:
        if cell.draft_key is not None:
            wanted.setdefault(cell.draft_key, cell.variant)
        if (key := _compared_with(cell, frameworks)) is not None:
            wanted.setdefault(key, frameworks[key.framework].framework.tool_variant(RUN))
    made = [
        ModelNode(
            *(key.model, key.quantization, key.framework, frameworks[key.framework].source(models[key.model])),
            frameworks[key.framework].framework.kind,
            _steps(frameworks[key.framework], models[key.model], key, variant),
            variant if key.variant else None,
        )
        for key, variant in wanted.items()
    ]
    added = {
        cell.adapter_id: ModelNode(cell.model_name, ADAPTED, cell.framework_name, cell.model.lora.source, cell.kind)
        for cell in cells
        if cell.model.lora is not None
    }
    return (*made, *added.values())  # adapters are held against the models that they are for


def _compared_with(cell: Cell, frameworks: Mapping[str, KnownFramework]) -> ModelId | None:
    """The model that a cell is compared with, as this machine's tools load it."""
    key = cell.logits_key
    if key is None:
        return None
    known = frameworks[key.framework]
    return known.model_id(key.model, known.source(cell.model), key.quantization, known.framework.tool_variant(RUN))


def _steps(known: KnownFramework, entry: Model, model: ModelId, variant: Variant) -> tuple[ModelStep, ...]:
    """How a model of a cell is made; its cell would have been skipped where that were not known."""
    steps = known.steps(model.model, known.source(entry), model.quantization, variant)
    assert not isinstance(steps, Skip), steps.reason
    return tuple(steps)


def _logits_nodes(
    cells: Sequence[Cell],
    models: Sequence[ModelNode],
    bundles: Sequence[BundleNode],
    frameworks: Mapping[str, KnownFramework],
) -> tuple[LogitsNode, ...]:
    """What cells are compared with, each made once; by the variant of this machine's tools, as the models are."""
    models_by_id, bundles_by_id = {node.id: node for node in models}, {node.id: node for node in bundles}
    nodes: dict[str, LogitsNode] = {}
    for cell in cells:
        model_key = _compared_with(cell, frameworks)
        if isinstance(cell.workload, TextWorkload) and cell.logits_key is not None and model_key is not None:
            key = cell.logits_key
            scorer = BundleId(key.framework, RUN, frameworks[key.framework].framework.tool_variant(RUN).name)
            model, bundle = models_by_id[str(model_key)], bundles_by_id[str(scorer)]
            nodes[str(key)] = LogitsNode(str(key), model, bundle, cell.workload)
    return tuple(nodes.values())


def _bundle_nodes(
    cells: Sequence[Cell], models: Sequence[ModelNode], frameworks: Mapping[str, KnownFramework]
) -> tuple[BundleNode, ...]:
    """What cells run, what the options want besides, and what makes the models."""
    nodes: list[BundleNode] = []
    compared = dict.fromkeys(cell.logits_key.framework for cell in cells if cell.logits_key is not None)
    for name in dict.fromkeys([*(cell.framework_name for cell in cells), *compared]):
        known, own = frameworks[name], [cell for cell in cells if cell.framework_name == name]
        run = {cell.variant.name: cell.variant for cell in own}
        run |= {cell.away.asker.name: cell.away.asker for cell in own if cell.away is not None}
        if own:
            run |= {each.name: each for each in known.framework.extra_variants(known.options, known.release)}
        if name in compared:
            scorer = known.framework.tool_variant(RUN)
            run.setdefault(scorer.name, scorer)
        steps = (step for model in models if model.framework_name == name for step in model.steps)
        purposes = {step.purpose for step in steps if step.purpose is not None}
        wanted = [(RUN, variant) for variant in run.values()]
        wanted += [(purpose, known.framework.tool_variant(purpose)) for purpose in sorted(purposes, reverse=True)]
        for purpose, variant in wanted:
            recipe = known.framework.recipe(known.options, known.release, variant, purpose)
            nodes.append(BundleNode(name, known.framework.kind, known.release, variant, purpose, recipe))
    return tuple(nodes)


def _proof_warnings(cells: Sequence[Cell], devices: Mapping[str, DeviceFacts]) -> Iterator[str]:
    for target in dict.fromkeys(name for cell in cells for name in cell.target_names):
        if proof := devices[target].facts.get("proof"):
            yield f"target {target}: {proof}; what it measures has nothing behind it yet (docs/devices/{devices[target].kind}.md)"


def _disk_warnings(
    cells: Sequence[Cell], weights: Mapping[str, int | None], devices: Mapping[str, DeviceFacts], sizes: Sizes
) -> Iterator[str]:
    needed: dict[str, dict[str, int]] = {}
    for cell in cells:
        node = cell.model_id
        size = weights[node]
        if cell.engine_target.here:  # it reads what the store has, for which there is room
            continue
        if size is not None and node not in sizes.stored:
            needed.setdefault(cell.engine_name, {})[node] = size
    for target, models in needed.items():
        total, free = sum(models.values()), devices[target].disk_free_bytes
        if total > free:
            yield (
                f"the {len(models)} models for target {target} need {readable(total)} on disk together, "
                f"{readable(free)} are free; leave some out with --only or --set 'models.NAME.quantizations=[...]'"
            )
