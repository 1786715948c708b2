"""`meltrepro run`: build what is missing, run every trial that is left, log to MLflow, show what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro.cli.common import EngineOption, LockedOption, OnlyOption, SetOption, SpecArgument
from meltrepro.errors import ManifestError, TrialFailed
from meltrepro.words import counted, plural

if TYPE_CHECKING:
    from meltrepro.build.model import Engine
    from meltrepro.build.pipeline import Built
    from meltrepro.build.tools import EngineName
    from meltrepro.campaign.conduct import Result
    from meltrepro.campaign.setup import Setup
    from meltrepro.manifest.loader import LoadedManifest
    from meltrepro.plan.model import Plan
    from meltrepro.record.capabilities import Capabilities
    from meltrepro.record.trial import AnyRequest
    from meltrepro.store.cas import Store
    from meltrepro.targets.base import DeviceFacts
    from meltrepro.workflow.session import Session


def command(
    spec: SpecArgument,
    set_: SetOption = [],
    only: OnlyOption = [],
    engine: EngineOption = "docker",
    new: Annotated[
        bool, typer.Option("--new", help="Begin a new campaign, even if one like it is unfinished.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; fetch, build and run nothing.")] = False,
    fail_fast: Annotated[
        bool,
        typer.Option("--fail-fast/--keep-going", help="Stop at the first trial that fails, or go on with the rest."),
    ] = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log the results to MLflow.")] = True,
    locked: LockedOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show results alone, no progress.")] = False,
) -> None:
    """Run a manifest: build what is missing, run its trials, log them to MLflow.

    An unfinished campaign of the same manifest and the same artifacts goes on where it stopped.
    """
    if dry_run:
        from meltrepro.cli.plan import command as plan_command

        plan_command(spec, set_, only)
        return
    from meltrepro.cli import next_steps

    result = run_manifest(spec, set_, only, Options(engine, new, fail_fast, track, locked, quiet))
    if left := result.tally.left:
        typer.echo(
            f"{counted(left, 'trial')} {plural(left, 'was', 'were')} not run; the same command goes on with {plural(left, 'it', 'them')}",
            err=True,
        )
    if not quiet:
        next_steps.tell(result.campaign.folder)
    if result.tally.failed:
        raise _failed(result)


@dataclass(frozen=True)
class Options:
    """How campaigns are run, whatever their manifest."""

    engine: EngineName = "docker"
    new: bool = False
    fail_fast: bool = False
    track: bool = True
    locked: bool = False
    quiet: bool = False


def run_manifest(spec: Path, set_: Sequence[str], only: Sequence[str], options: Options) -> Result:
    """Run one manifest to its end, show what came out and log it; trials that failed are in the result."""
    from meltrepro import interrupts
    from meltrepro.campaign.conduct import conduct
    from meltrepro.cli import findings
    from meltrepro.cli.console import console
    from meltrepro.cli.summary import show_results, tell_logged
    from meltrepro.plan.planner import require_cells
    from meltrepro.workflow.session import open_session
    from meltrepro.workflow.tracking import log_campaign

    quiet = options.quiet
    with (
        interrupts.raising(),
        console(quiet=quiet) as sink,
        open_session(spec, set_, only, engine=options.engine, locked=options.locked, sink=sink) as session,
    ):
        require_cells(session.plan)
        setup = prepare(session, tuple(only), tracked=options.track)
        result = conduct(setup, session.settings, session.tools.sink, new=options.new, fail_fast=options.fail_fast)
    show_results(result.campaign.folder)
    typer.echo(f"records: {result.campaign.folder}")
    tracked = result.campaign.document.tracking.enabled
    place = None
    if tracked:
        uri = session.loaded.manifest.tracking.uri
        with console(quiet=quiet) as sink:
            logged = log_campaign(result.campaign.folder, uri, session.settings, sink)
        tell_logged(logged, quiet=quiet)
        place = logged.there
    findings.tell(result.campaign.folder, place)
    return result


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
    from meltrepro.accuracy.requests import score_requests, with_logits
    from meltrepro.campaign.meter import FileMeter
    from meltrepro.campaign.request import make_requests
    from meltrepro.campaign.setup import Setup, kept
    from meltrepro.frameworks.registry import scorer_of
    from meltrepro.manifest.lock import dump_lock
    from meltrepro.manifest.pins import manifest_digest
    from meltrepro.manifest.prompts import load_conversations
    from meltrepro.targets.registry import open_targets, probe

    loaded, plan = session.loaded, session.plan
    conversations = {
        name: load_conversations(workload, loaded.path.parent, session.tools.fetcher.get)
        for name, workload in loaded.manifest.conversations.items()
    }
    _require_meters(loaded)
    known_devices = probe(session.targets)
    data = session.data()
    scoring, inputs = score_requests(plan, data, known_devices, session.keep, scorer_of)
    requests = requests or {**make_requests(loaded, plan, conversations, known_devices), **scoring}
    built = session.build(anew=anew)
    requests, logits = with_logits(requests, plan, built.artifacts)
    recipes = {recipe.name for recipe in built.recipes.values()}
    engine = _trial_engine(session)
    targets, _ = open_targets(loaded.manifest, session.settings, engine)
    devices = probe(targets)
    known = {name: _report(session, name, facts) for name, facts in devices.items()}
    digests = {name: each.digest for name, each in data.items()}
    # A record's lock must be that of the manifest that it keeps.
    pinned = {"manifest": manifest_digest(kept(plan.manifest, digests))}
    lock = session.completed().narrowed(built.artifacts, recipes).model_copy(update=pinned)
    return Setup(
        plan=plan,
        artifacts=built.artifacts,
        requests=requests,
        targets=targets,
        devices=devices,
        engine=engine.version() if engine else "none",
        lock_text=dump_lock(lock),
        builds=_kept_files(built, session.tools.store),
        meters={
            name: FileMeter(loaded.path.parent / target.meter.file, target.meter)
            for name, target in loaded.manifest.targets.items()
            if target.meter is not None
        },
        capabilities={name: report for name, report in known.items() if report is not None},
        conversations=conversations,
        inputs={**inputs, **logits},
        parameters=_parameters(plan, built),
        data=digests,
        only=only,
        tracking=tracked,
    )


def _parameters(plan: Plan, built: Built) -> dict[str, int]:
    """Number of weights of each model that gets a score, by id of its node."""
    from meltrepro.frameworks.llamacpp.gguf import parameters
    from meltrepro.manifest.schema import Workload

    scored = {cell.model_id for cell in plan.cells if not isinstance(cell.workload, Workload)}
    return {name: parameters(built.artifacts[name].path) for name in sorted(scored)}


def _report(session: Session, name: str, facts: DeviceFacts) -> Capabilities | None:
    """What a probe of a device found, as long as its system is still the one that was probed."""
    from meltrepro.record import capabilities
    from meltrepro.steps import Step

    report = capabilities.load(session.settings.home, facts.id)
    if report is None or report.system == capabilities.system_of(facts.facts):
        return report
    why = "its system was changed since it was probed, so that the report is not used; probe it again"
    session.tools.sink(Step("device", "note", name, detail={"report": why}))
    return None


def _require_meters(loaded: LoadedManifest) -> None:
    """Raise `ManifestError` where the file of a meter is not there: its program was not started, or writes elsewhere."""
    from meltrepro.manifest.loader import problem_at

    meters = {name: target.meter for name, target in loaded.manifest.targets.items() if target.meter is not None}
    missing = [
        problem_at(loaded, ("targets", name, "meter", "file"), f"{loaded.path.parent / meter.file} does not exist")
        for name, meter in meters.items()
        if not (loaded.path.parent / meter.file).is_file()
    ]
    if missing:
        raise ManifestError(missing, hint="start the program of the meter before the campaign")


def _trial_engine(session: Session) -> Engine | None:
    """The engine, where any trial runs in a sandbox of it; `None` leaves a daemon that nobody needs alone."""
    contained = any(cell.target.sandbox == "container" for cell in session.plan.cells)
    return session.tools.engine() if contained else None


def _kept_files(built: Built, store: Store) -> dict[str, Mapping[str, bytes]]:
    """Recipe, log and statements of every build, by node id."""
    from meltrepro.build import toolchain
    from meltrepro.build.attest import statements
    from meltrepro.build.render import render_text

    kept: dict[str, dict[str, bytes]] = {}
    for name, recipe in built.recipes.items():
        if recipe.maker != "engine":
            kept[name] = {"parameters.json": recipe.files["parameters.json"]}
            continue
        dockerfile = render_text(
            recipe.dockerfile,
            {
                "builder": f"meltrepro/builder:{recipe.triple}"
                if toolchain.uses_zig(recipe.triple)
                else "meltrepro/toolchain",
                "env": toolchain.environment(recipe.triple),
                "phases": recipe.phases or ("",),
                "labels": recipe.labels,
            },
            name=f"{recipe.name}: Dockerfile",
        )
        kept[name] = {"Dockerfile": dockerfile.encode(), "build.sh": recipe.files["build.sh"]}
    for name, log in built.logs.items():
        if log.is_file():
            kept.setdefault(name, {})["build.log"] = log.read_bytes()
    for name, artifact in built.artifacts.items():
        kept.setdefault(name, {}).update(statements(artifact, store))
    return dict(kept)


def _failed(result: Result) -> TrialFailed:
    failed = result.tally.failed
    shown = [f"  {trial}: {reason.splitlines()[0]}" for trial, reason in failed[:5]]
    more = [f"  and {len(failed) - 5} more"] if len(failed) > 5 else []
    return TrialFailed(
        "\n".join([f"{counted(len(failed), 'trial')} failed:", *shown, *more]),
        hint=f"what each runner said last is in outcome.json and stderr.log below {result.campaign.folder}",
    )
