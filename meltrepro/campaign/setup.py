"""Everything that a campaign needs, decided before it begins, and what it writes down of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import meltrepro
from meltrepro.accuracy.answers import Checks
from meltrepro.accuracy.requests import inputs_of
from meltrepro.build.model import ADAPTER, DRAFT, Argument, Artifact, Input
from meltrepro.campaign.campaign import manifest_identity, new_id
from meltrepro.campaign.meter import FileMeter
from meltrepro.campaign.request import request_digest
from meltrepro.campaign.trial import CellRun
from meltrepro.chat.template import ChatTemplate
from meltrepro.errors import RecordError
from meltrepro.frameworks.base import Release, Scorer, framework, scorer_of
from meltrepro.manifest.pins import with_data
from meltrepro.manifest.schema import Manifest, Workload
from meltrepro.measure.calibration import calibrated
from meltrepro.measure.sensor_plan import sensor_plan
from meltrepro.measure.surroundings import NO_CALIBRATION
from meltrepro.plan.identity import digest_of, plan_digest, plan_document
from meltrepro.plan.model import BundleNode, Cell, Plan
from meltrepro.record import layout
from meltrepro.record.calibrations import Calibration
from meltrepro.record.campaign import (
    CALIBRATIONS,
    LOCK,
    MANIFEST,
    MOST_W,
    PLAN,
    CampaignDocument,
    CellEntry,
    SkipEntry,
    TrackingEntry,
)
from meltrepro.record.capabilities import Capabilities
from meltrepro.record.ids import RUN, BundleId
from meltrepro.record.trial import AnyRequest, Request, ScoringRequest
from meltrepro.registry import FRAMEWORKS, TARGETS
from meltrepro.store.names import redact
from meltrepro.store.source import key_of
from meltrepro.targets.base import RUNNERS, SAMPLERS, DeviceFacts, Target, TargetKind
from meltrepro.targets.offload import Meeting, OffloadTarget
from meltrepro.targets.presence import Absence

_ADDRESSES = ("git", "url", "uri")
"""Keys of a manifest that may hold a URL, besides all those of a framework's options."""


@dataclass(frozen=True)
class Setup:
    """A plan with everything built and every device at hand."""

    plan: Plan
    artifacts: Mapping[str, Artifact]
    """By node id."""
    requests: Mapping[str, AnyRequest]
    """By cell id."""
    targets: Mapping[str, Target]
    devices: Mapping[str, DeviceFacts]
    """Both by target name."""
    engine: str
    """What executes trials, with its version."""
    lock_text: str
    builds: Mapping[str, Mapping[str, bytes]]
    """By node id: the files to keep of its build (Dockerfile, build.sh, build.log), by name."""
    conversations: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    """By workload: its prompts, so that the recorded manifest needs no other file."""
    templates: Mapping[str, ChatTemplate] = field(default_factory=dict)
    """By model: how its prompts became text; of none where requests were taken from a record."""
    meters: Mapping[str, FileMeter] = field(default_factory=dict)
    """External meters by target name."""
    capabilities: Mapping[str, Capabilities] = field(default_factory=dict)
    """What is known of devices that were probed, by target name."""
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    """What is known of the steadiness of devices, by target name."""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    """What scorers read besides the model, by digest."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Number of weights by id of a model's node, where scores stand beside it."""
    data: Mapping[str, str] = field(default_factory=dict)
    """By accuracy workload: sha256 of its data."""
    checks: Mapping[str, Checks] = field(default_factory=dict)
    """By workload whose answers are checked: what they are held against."""
    missing: Mapping[str, Absence] = field(default_factory=dict)
    """Why targets whose cells are skipped cannot be measured now, by name."""
    only: tuple[str, ...] = ()
    tracking: bool = True
    sources: Mapping[str, str] = field(default_factory=dict)
    """sha256 of sources that the lock alone pins, by their keys there."""


def cell_runs(setup: Setup, sensors: Mapping[str, bytes] | None = None) -> dict[str, CellRun]:
    """By cell id, what its trials have in common; `sensors` are the plans of their targets, found out where absent.

    Raises `RecordError` for a bundle without a runner or a scorer.
    """
    runners = {id: runner_digest(artifact) for id, artifact in setup.artifacts.items() if _runs(artifact)}
    manifest = setup.plan.manifest
    bundles = {node.framework_name: node for node in setup.plan.bundles}
    if sensors is None:
        used = {cell.target_name for cell in setup.plan.cells}
        sensors = {name: plan for name in used if (plan := sensor_plan_of(setup, name)) is not None}
    return {
        cell.id: CellRun(
            bundle=setup.artifacts[cell.bundle_id],
            model=setup.artifacts[cell.model_id],
            runner_digest=runners[cell.bundle_id],
            request=setup.requests[cell.id],
            target=_target(setup, cell),
            engine_facts=setup.devices[cell.engine_name] if cell.away is not None else None,
            facts=setup.devices[cell.target_name],
            timeout_s=manifest.protocol.timeout_s,
            measure=manifest.measure,
            gates=manifest.protocol.gates,
            abort_above_c=manifest.protocol.abort_above_c,
            idle_s=manifest.protocol.idle_s,
            sensor_plan=sensors.get(cell.target_name)
            if has_sampler(setup.artifacts[cell.asker_id or cell.bundle_id])
            else None,
            meter=setup.meters.get(cell.target_name),
            most_w=_most_w(cell, setup.devices[cell.target_name]),
            capabilities=setup.capabilities.get(cell.target_name),
            synthetic=cell.model.synthetic,
            checks=setup.checks.get(cell.workload_name),
            about=_about(cell, setup.artifacts[cell.model_id], bundles[cell.framework_name].release.name),
            **(_scorer(setup, cell, bundles[cell.framework_name]) or _files(setup, cell)),
        )
        for cell in setup.plan.cells
    }


def _target(setup: Setup, cell: Cell) -> Target:
    """What runs a cell's trials."""
    near = setup.targets[cell.target_name]
    if cell.away is None or cell.asker_id is None:
        return near
    wanted = cell.away.offload
    meeting = Meeting(wanted.address, wanted.listen, wanted.port)
    return OffloadTarget(near, setup.targets[cell.away.name], setup.artifacts[cell.asker_id], meeting)


def _about(cell: Cell, model: Artifact, release: str) -> Callable[[], str | None]:
    """What says of a cell's model what it is; of a folder nobody can tell."""
    known = FRAMEWORKS.has(cell.kind) and not model.is_folder
    return lambda: framework(cell.kind).describe(model.path, release) if known else None


def _most_w(cell: Cell, facts: DeviceFacts) -> float:
    """The most that a cell's device can draw: as the manifest says, else as its kind does."""
    kind: TargetKind = TARGETS.get(cell.target.kind)
    return cell.target.max_power_w or kind.most_w(facts.cores)


class _Scored(TypedDict, total=False):
    scorer: Scorer
    program: str
    arguments: Sequence[Argument]
    inputs: Mapping[str, Input]


def _scorer(setup: Setup, cell: Cell, node: BundleNode) -> _Scored:
    """What runs instead of the runner, where anything does."""
    request = setup.requests[cell.id]
    if not isinstance(request, ScoringRequest):
        return {}
    bundle, scorer = setup.artifacts[cell.bundle_id], scorer_of(node.kind)
    if not (bundle.path / scorer.program).is_file():
        raise RecordError(
            f"bundle {bundle.id} has no scorer ({scorer.program})", hint="build it anew: meltrepro build SPEC"
        )
    return {
        "scorer": scorer,
        "program": scorer.program,
        "arguments": scorer.arguments(request, node.release.name),
        "inputs": inputs_of(request, setup.inputs),
    }


def _files(setup: Setup, cell: Cell) -> _Scored:
    """The model that foresees what a cell's says, and what is added to that one, where there are any."""
    wanted = {DRAFT: cell.draft_id, ADAPTER: cell.adapter_id}
    found = {name: setup.artifacts[id] for name, id in wanted.items() if id is not None}
    return {"inputs": {name: Input(each.path, each.digest) for name, each in found.items()}}


def sensor_plan_of(setup: Setup, target: str) -> bytes | None:
    """What a target is to log of its sensors; `None` where nothing is sampled. Raises what `Target.sources` raises."""
    rate_hz = setup.plan.manifest.measure.sampling_hz
    if rate_hz <= 0:
        return None
    known = setup.capabilities.get(target)
    return sensor_plan(calibrated(setup.targets[target].sources(), known.battery if known else None), rate_hz)


def document_of(setup: Setup, runs: Mapping[str, CellRun], wall_ns: int) -> CampaignDocument:
    """The `campaign.json` of a campaign that begins now."""
    plan, manifest = setup.plan, setup.plan.manifest
    releases = {node.framework_name: node.release for node in plan.bundles}
    tracking = manifest.tracking
    return CampaignDocument(
        id=new_id(manifest.name, wall_ns),
        name=manifest.name,
        description=manifest.description,
        started_wall_ns=wall_ns,
        manifest_digest=manifest_identity(manifest),
        plan_digest=digest_of(
            {
                "plan": plan_digest(plan),
                "requests": {cell_id: request_digest(request) for cell_id, request in setup.requests.items()},
                "devices": {name: facts.id for name, facts in setup.devices.items()},
                **({"checks": setup.checks} if setup.checks else {}),
            }
        ),
        meltrepro_version=meltrepro.__version__,
        virtual=any(run.facts.virtual for run in runs.values()),
        synthetic=any(cell.model.synthetic for cell in plan.cells),
        tracking=TrackingEntry(
            experiment=tracking.experiment or manifest.name,
            uri=redact(tracking.uri) if tracking.uri else None,
            enabled=tracking.enabled and setup.tracking,
        ),
        engine=setup.engine,
        only=list(setup.only),
        seed=manifest.protocol.seed,
        order=manifest.protocol.order,
        cells=[_cell_entry(setup, cell, runs[cell.id], releases[cell.framework_name]) for cell in plan.cells],
        skipped=[SkipEntry(id=skip.cell_id, kind=skip.kind, reason=skip.reason) for skip in plan.skipped],
    )


def kept(manifest: Manifest, data: Mapping[str, str]) -> Manifest:
    """A manifest as its campaigns keep it: its data pinned, and no login or token in any address."""
    return Manifest.model_validate(_redacted(with_data(manifest, data).model_dump(mode="json", exclude_none=True)))


def _redacted(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        inside = key == "options"
        return {name: _redacted(inner, key if inside else name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_redacted(inner, key if key == "options" else "") for inner in value]
    return redact(value) if key in (*_ADDRESSES, "options") and isinstance(value, str) else value


def files_of(setup: Setup) -> dict[str, bytes]:
    """What a campaign folder holds besides `campaign.json` and its trials, by relative path."""
    import yaml

    manifest = kept(setup.plan.manifest, setup.data).model_dump(mode="json", exclude_none=True)
    for name, conversations in setup.conversations.items():
        workload = manifest["workloads"][name]
        workload["conversations"] = [list(turns) for turns in conversations]
        for cut in ("first", "turns", "prompts"):
            workload.pop(cut, None)
    for name, template in setup.templates.items():
        if (
            isinstance(manifest["models"][name]["chat_template"], dict)
            and "file" in manifest["models"][name]["chat_template"]
        ):
            manifest["models"][name]["chat_template"] = {"jinja": template.text}
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120)
    return {
        MANIFEST: text.encode(),
        LOCK: setup.lock_text.encode(),
        PLAN: json.dumps(plan_document(setup.plan), indent=2, ensure_ascii=False).encode() + b"\n",
        **{
            str(layout.build_folder(Path(), node) / name): content
            for node, files in setup.builds.items()
            for name, content in files.items()
        },
        **{
            f"{CALIBRATIONS}/{name}.json": each.model_dump_json(indent=1).encode() + b"\n"
            for name, each in setup.calibrations.items()
        },
    }


def _cell_entry(setup: Setup, cell: Cell, run: CellRun, release: Release) -> CellEntry:
    return CellEntry(
        id=cell.id,
        model=cell.model_name,
        quantization=cell.quantization,
        framework=cell.key.framework,
        release=release.name,
        commit=release.commit,
        target=cell.target_name,
        workload=cell.workload_name,
        isa=cell.variant.name,
        model_digest=run.model.digest,
        model_bytes=run.model.size,
        bundle_digest=run.bundle.digest,
        runner_digest=run.runner_digest,
        source_digest=_source_digest(release, setup.sources),
        params=_params(setup, cell, run, setup.parameters.get(cell.model_id), setup.templates.get(cell.model_name)),
        synthetic=cell.model.synthetic,
    )


def _params(
    setup: Setup, cell: Cell, run: CellRun, parameters: int | None, template: ChatTemplate | None
) -> dict[str, str | int | float]:
    """What varies between cells or explains them, flat."""
    protocol = {
        name: getattr(setup.plan.manifest.protocol, name)
        for name in ("profile", "repetitions", "warmups", "order", "seed")
    }
    if not isinstance(cell.workload, Workload):
        protocol |= {"repetitions": run.parts or cell.workload.repetitions, "warmups": 0}
    params: dict[str, object] = {
        "kind": cell.kind,
        "libc": cell.variant.libc,
        **({"accelerator": cell.variant.accelerator} if cell.variant.accelerator else {}),
        **({"software_device": "true"} if cell.variant.software else {}),
        **_template(cell, template),
        "threads": run.request.threads,
        "context": run.request.context,
        "batch": run.request.batch,
        **_asked(run),
        "request_digest": request_digest(run.request),
        **{f"protocol.{name}": value for name, value in protocol.items()},
        **({"parameters": parameters, "bits_per_weight": 8 * run.model.size / parameters} if parameters else {}),
        **{f"settings.{name}": value for name, value in cell.target.asked.items()},
        **_engine_away(setup, cell, run),
        "device.id": run.facts.id,
        "device.model": run.facts.model,
        "device.arch": run.facts.arch,
        "device.cores": run.facts.cores,
        "device.memory_bytes": run.facts.memory_bytes,
        "device.calibration": _calibration(setup, cell),
        **({MOST_W: run.most_w} if run.most_w else {}),
        **{f"device.{name}": value for name, value in sorted(run.facts.facts.items())},
    }
    return {name: _scalar(value) for name, value in params.items()}


def _calibration(setup: Setup, cell: Cell) -> str:
    known = setup.calibrations.get(cell.target_name)
    return str(known) if known is not None else NO_CALIBRATION


def _template(cell: Cell, template: ChatTemplate | None) -> dict[str, object]:
    """The name of a chat template, and which one that is where the name alone does not say it."""
    choice = cell.model.chat_template
    if isinstance(choice, str) and (template is None or template.trusted):
        return {"chat_template": choice}
    name = choice if isinstance(choice, str) else choice.file or choice.named or "of the manifest"
    known = {"chat_template_digest": digest_of([template.text, template.variables, template.begin])} if template else {}
    return {"chat_template": name, **known}


def _engine_away(setup: Setup, cell: Cell, run: CellRun) -> dict[str, object]:
    """The device whose engine answers, where that is another one, and what asks it."""
    if cell.away is None or cell.asker_id is None or (facts := run.engine_facts) is None:
        return {}
    return {
        "offload.to": cell.away.name,
        "offload.asker_digest": setup.artifacts[cell.asker_id].digest,
        **{f"offload.settings.{name}": value for name, value in cell.away.target.asked.items()},
        **{
            f"offload.device.{name}": getattr(facts, name)
            for name in ("id", "kind", "model", "arch", "cores", "memory_bytes")
        },
        **{f"offload.device.{name}": value for name, value in sorted(facts.facts.items())},
    }


def _asked(run: CellRun) -> dict[str, object]:
    """What only conversations or only accuracy tasks have."""
    request, checks = run.request, run.checks
    if isinstance(request, ScoringRequest):
        found: dict[str, object] = {
            "task": request.task,
            "questions": request.questions,
            "chunks": request.chunks,
            "data": request.data,
            "lora.scale": request.adapter_scale,
            "lora.digest": request.inputs.get(ADAPTER),
        }
        return {name: value for name, value in {**(request.options or {}), **found}.items() if value is not None}
    sampling = request.sampling.model_dump(exclude={"seed"})
    if request.sampling.greedy:
        sampling = {"greedy": True}  # the rest has no effect
    task: dict[str, object] = {}
    if checks is not None:
        task = {"task": checks.task, "questions": len(checks.questions), "data": checks.data}
    if checks is not None and checks.stop is not None:
        task |= {"stop_within": checks.stop.within, "stop_every": checks.stop.every}
    return {
        **task,
        **request.options,
        **_context_use(request),
        "max_tokens": request.max_tokens,
        "ignore_eos": request.ignore_eos,
        "conversations": len(request.conversations),
        "turns": sum(map(len, request.conversations)),
        **{f"sampling.{name}": value for name, value in sampling.items()},
    }


def _context_use(request: Request) -> dict[str, object]:
    """What is asked of the context, the page cache and the weights besides conversations."""
    names = ("depth", "restore", "sequences", "shared_prompt", "page_cache")
    asked = {name: getattr(request, name) for name in names}
    if request.speculate is not None:
        said = request.speculate.model_dump(exclude={"model"})
        asked |= {f"speculate.{name}": value for name, value in said.items()}
    if request.lora is not None:
        asked |= {"lora.scale": request.lora.scale, "lora.digest": request.lora.digest}
    return {name: value for name, value in asked.items() if value is not None}


def _scalar(value: object) -> str | int | float:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def has_sampler(bundle: Artifact) -> bool:
    """Bundles of before there was one are still replayed."""
    return any((bundle.path / member).is_file() for member in SAMPLERS)


def _runs(artifact: Artifact) -> bool:
    return artifact.kind == "bundle" and BundleId.parse(artifact.id).purpose == RUN


def runner_digest(bundle: Artifact) -> str:
    """sha256 of the program of a bundle that runs trials; raises `RecordError` where there is none."""
    paths = [bundle.path / member for member in RUNNERS]
    path = next((path for path in paths if path.exists()), paths[0])
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecordError(
            f"bundle {bundle.id} has no runner: {path}: {error.strerror}", hint="build it anew: meltrepro build SPEC"
        ) from error


def _source_digest(release: Release, pinned: Mapping[str, str]) -> str:
    digests = {name: source.digest or pinned.get(key_of(source)) for name, source in release.sources.items()}
    only = next(iter(digests.values())) if len(digests) == 1 else None
    return only or digest_of(digests)
