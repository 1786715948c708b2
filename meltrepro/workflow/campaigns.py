"""Campaigns: everything that one needs, and one manifest measured from its plan to MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meltrepro import interrupts
from meltrepro import settings as settings_module
from meltrepro.accuracy.answers import ask
from meltrepro.accuracy.requests import score_requests, with_inputs
from meltrepro.build.model import Engine
from meltrepro.build.pipeline import Built
from meltrepro.build.tools import EngineName
from meltrepro.campaign.conduct import conduct
from meltrepro.campaign.meter import FileMeter, require_meters
from meltrepro.campaign.request import make_requests, with_files
from meltrepro.campaign.runner import Tally
from meltrepro.campaign.setup import Setup, kept
from meltrepro.chat.template import ChatTemplate
from meltrepro.frameworks.base import framework
from meltrepro.manifest.accuracy import AnswerWorkload
from meltrepro.manifest.lock import dump_lock
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.prompts import load_conversations
from meltrepro.manifest.schema import Workload
from meltrepro.plan.model import Plan
from meltrepro.plan.planner import require_cells
from meltrepro.record import calibrations, capabilities
from meltrepro.record.calibrations import Calibration
from meltrepro.record.capabilities import Capabilities
from meltrepro.record.trial import AnyRequest
from meltrepro.settings import Settings
from meltrepro.steps import Sink, Step, silent
from meltrepro.targets.base import DeviceFacts
from meltrepro.workflow.session import Session, open_session
from meltrepro.workflow.templates import templates_of
from meltrepro.workflow.tracking import Logged, log_campaign


@dataclass(frozen=True)
class Ran:
    """A campaign after its trials."""

    folder: Path
    """Where its records are."""
    tally: Tally
    missing: Mapping[str, str] = field(default_factory=dict)
    """Targets that could not be measured, by name, and why; the same call goes on with them."""
    logged: Logged | None = None
    """What became of logging it; `None` where that was not wanted."""
    measured_s: float = 0.0
    """How long its trials took, and what they waited for."""


def run(
    manifest: Path | str,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    engine: EngineName = "docker",
    new: bool = False,
    fail_fast: bool = False,
    locked: bool = False,
    track: bool = True,
    wait_s: float = 0.0,
    measured: Callable[[Path], None] = lambda _: None,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Ran:
    """Build what is missing, run every trial that is left, and log them to MLflow.

    An unfinished campaign of the same manifest and artifacts goes on where it stopped, unless `new`. Other campaigns on its
    devices are waited for, at most `wait_s` (`math.inf`: however long), first come, first served. `measured` is called
    with the campaign's folder when its records are complete, before anything is logged. Trials that failed are in the
    tally and raise nothing; nor does an MLflow that does not answer.

    Raises `ManifestError`, `PlanError`, `LockError`, `TargetError`, `DeviceBusy`, `RecordError`, the errors of fetching and
    building, and `Interrupted`; the same call goes on.
    """
    settings = settings or settings_module.load()
    with (
        interrupts.raising(),
        open_session(
            Path(manifest), overrides, only, engine=engine, locked=locked, sink=sink, settings=settings, measured=True
        ) as session,
    ):
        require_cells(session.plan)
        setup = prepare(session, tuple(only), tracked=track)
        result = conduct(setup, settings, sink, new=new, fail_fast=fail_fast, wait_s=wait_s)
    folder = result.campaign.folder
    measured(folder)
    logged = None
    if track and session.loaded.manifest.tracking.enabled:  # the wish of now, whatever that of an earlier part was
        logged = log_campaign(folder, session.loaded.manifest.tracking.uri, settings, sink)
    return Ran(folder, result.tally, result.missing, logged, result.measured_s)


def prepare(
    session: Session,
    only: tuple[str, ...],
    *,
    tracked: bool,
    requests: Mapping[str, AnyRequest] | None = None,
    anew: bool = False,
) -> Setup:
    """Everything that a campaign needs; what can be wrong with a manifest is found before anything is built.

    `requests` by cell are taken as they are, for a replay; else they follow from the manifest. `anew` is that of
    `Session.build`.
    """
    loaded, plan = session.loaded, session.plan
    conversations = {
        name: load_conversations(workload, loaded.path.parent, session.tools.fetcher.get)
        for name, workload in loaded.manifest.conversations.items()
    }
    require_meters(loaded, {cell.target_name for cell in plan.cells})
    devices = session.survey.devices
    data = session.data()
    scoring, inputs = score_requests(plan, data, devices, session.keep)
    asked = {
        name: ask(workload, data[name].content, data[name].digest, data[name].label)
        for name, workload in loaded.manifest.accuracy.items()
        if isinstance(workload, AnswerWorkload) and name in data
    }
    templates: dict[str, ChatTemplate] = {}
    if requests is None:
        templates = templates_of(session)
        talks = {**conversations, **{name: [[prompt] for prompt in prompts] for name, (prompts, _) in asked.items()}}
        requests = {**make_requests(loaded, plan, talks, devices, templates, session.warn), **scoring}
    built = session.build(anew=anew)
    plan = plan.without(built.failed)
    require_cells(plan)
    requests, logits = with_inputs(with_files(requests, plan, built.artifacts), plan, built.artifacts)
    recipes = {recipe.name for recipe in built.recipes.values()}
    engine = _trial_engine(session)
    known = {name: _report(session, name, facts) for name, facts in devices.items()}
    digests = {name: each.digest for name, each in data.items()}
    # A record's lock must be that of the manifest that it keeps.
    pinned = {"manifest": manifest_digest(kept(plan.manifest, digests))}
    lock = session.completed().narrowed(built.artifacts, recipes).model_copy(update=pinned)
    return Setup(
        plan=plan,
        artifacts=built.artifacts,
        requests=requests,
        targets=session.targets,
        devices=devices,
        engine=engine.version() if engine else "none",
        lock_text=dump_lock(lock),
        builds=built.files(session.tools.store),
        meters={
            name: FileMeter(loaded.path.parent / target.meter.file, target.meter)
            for name, target in loaded.manifest.targets.items()
            if target.meter is not None
        },
        capabilities={name: report for name, report in known.items() if report is not None},
        calibrations=calibrations_of(session),
        conversations=conversations,
        templates=templates,
        inputs={**inputs, **logits},
        parameters=_parameters(plan, built),
        data=digests,
        checks={name: checks for name, (_, checks) in asked.items()},
        missing=session.missing,
        only=only,
        tracking=tracked,
        sources={key: pin.digest for key, pin in lock.sources.items()},
    )


def _parameters(plan: Plan, built: Built) -> dict[str, int]:
    """Number of weights of each model that gets a score, by id of its node."""
    scored = {cell.model_id: cell.kind for cell in plan.cells if not isinstance(cell.workload, Workload)}
    counted = {name: framework(kind).parameter_count(built.artifacts[name].path) for name, kind in scored.items()}
    return {name: count for name, count in sorted(counted.items()) if count is not None}


def calibrations_of(session: Session) -> dict[str, Calibration]:
    """What is known of the steadiness of devices, by target name, as long as their systems are those of then."""
    found = {}
    for name, facts in session.survey.devices.items():
        known = calibrations.load(session.settings.home, facts.id)
        if known is not None and known.system == capabilities.system_of(facts.facts):
            found[name] = known
        elif known is not None:
            why = "its system was changed since it was calibrated, so that it counts as not calibrated: meltrepro calibrate"
            session.tools.sink(Step("device", "note", name, detail={"report": why}))
    return found


def _report(session: Session, name: str, facts: DeviceFacts) -> Capabilities | None:
    """What a probe of a device found, as long as its system is still the one that was probed."""
    report = capabilities.load(session.settings.home, facts.id)
    if report is None or report.system == capabilities.system_of(facts.facts):
        return report
    why = "its system was changed since it was probed, so that the report is not used; probe it again"
    session.tools.sink(Step("device", "note", name, detail={"report": why}))
    return None


def _trial_engine(session: Session) -> Engine | None:
    """The engine, where any trial runs in a sandbox of it; `None` leaves a daemon that nobody needs alone."""
    contained = any(cell.target.contained or cell.engine_target.contained for cell in session.plan.cells)
    return session.tools.engine() if contained else None
