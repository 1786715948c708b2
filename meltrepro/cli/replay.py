"""`meltrepro replay`: repeat a recorded campaign and say whether it was reproduced, and if not, why."""

from __future__ import annotations

import json as json_module
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro.cli.common import EngineOption, OnlyOption
from meltrepro.errors import Differs, Inconclusive, PlanError, UsageError

if TYPE_CHECKING:
    from meltrepro.campaign.setup import Setup
    from meltrepro.manifest.schema import Manifest
    from meltrepro.measure.records import CampaignRecord
    from meltrepro.plan.model import Plan
    from meltrepro.replay.claims import Known
    from meltrepro.replay.replay import Replayed
    from meltrepro.settings import Settings
    from meltrepro.store.cas import Store
from meltrepro.manifest.targets import Target

COMPARISON = "comparison.html"
"""In the folder of the replay's own campaign."""


def command(
    what: Annotated[
        str,
        typer.Argument(metavar="RUN|RECORD|BUNDLE", help="An MLflow run id, a campaign or a part of it, or a bundle."),
    ],
    only: OnlyOption = [],
    target: Annotated[
        str | None,
        typer.Option(help="Repeat on this target instead: one that the manifest names, a kind, or {kind: ..., ...}."),
    ] = None,
    mac: Annotated[
        str | None, typer.Option(help="Let this Mac build and sign the app for iPhones, as ssh calls it.")
    ] = None,
    engine: EngineOption = "docker",
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Build by today's recipes; recorded artifacts that differ run beside them as a control."
        ),
    ] = False,
    margin: Annotated[float | None, typer.Option(help="Largest relative difference that counts as the same.")] = None,
    maximum: Annotated[int | None, typer.Option(help="Most trials per cell.")] = None,
    all_cells: Annotated[
        bool, typer.Option("--all-cells", help="Repeat also cells that are INVALID in the record.")
    ] = False,
    track: Annotated[
        bool, typer.Option("--track/--no-track", help="Log the replay and its comparison to MLflow.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Verify or rebuild the artifacts, repeat the same trials with the same seeds, compare."""
    from meltrepro import interrupts
    from meltrepro import settings as settings_module
    from meltrepro.atomic import write_text
    from meltrepro.cli.console import console
    from meltrepro.cli.summary import tell_logged
    from meltrepro.measure.records import read_campaign
    from meltrepro.plan.only import Selection
    from meltrepro.record.campaign import IMPORTED, LOCK, MANIFEST
    from meltrepro.replay.claims import programs_of
    from meltrepro.replay.control import with_controls
    from meltrepro.replay.locate import locate
    from meltrepro.replay.replay import recorded_requests, replay, undecidable
    from meltrepro.replay.show import html, text
    from meltrepro.stats.equivalence import Verdict
    from meltrepro.store.cas import Store
    from meltrepro.track.attach import attach
    from meltrepro.workflow.campaigns import prepare
    from meltrepro.workflow.session import open_session
    from meltrepro.workflow.tracking import log_campaign

    settings = settings_module.load()
    with interrupts.raising(), console(quiet=json) as sink:
        located = locate(what, settings, sink)
    folder = located.campaign
    recorded = read_campaign(folder)
    only = [*only, located.cell] if located.cell is not None else only
    left_out = undecidable(recorded, Selection(only).wants)
    if all_cells:  # of the others no record says what they were asked
        asked = {cell.id for cell in recorded.cells if cell.repetitions}
        left_out = {cell_id: reason for cell_id, reason in left_out.items() if cell_id not in asked}
    only = _repeated(recorded, only, left_out)
    for cell_id, reason in left_out.items():
        typer.echo(f"not repeated: {cell_id}: {reason}", err=True)
    recorded = recorded.restricted(frozenset(only).__contains__)
    requests = recorded_requests(recorded)
    overrides = _overrides(recorded.manifest, margin, maximum, target, mac)
    _require_named(recorded, target, mac, settings, rebuild=rebuild)
    programs = programs_of(recorded, recorded.file(LOCK), Store(settings.cache / "store"))
    foreign = [program for program in programs if not program.own]
    if foreign or rebuild or (folder / IMPORTED).exists():  # a model or a prompt may be hostile too
        overrides += _contained(recorded.manifest, target)
    with (
        interrupts.raising(),
        console(quiet=json) as sink,
        open_session(
            recorded.file(MANIFEST),
            overrides,
            only,  # a record may be of a part of its manifest, and some of that may have failed
            engine=engine,
            locked=True,
            sink=sink,
            lock_file=recorded.file(LOCK),
        ) as session,
    ):
        typer.echo(_whose(foreign, session.plan, rebuild=rebuild), err=True)
        declared = session.loaded.manifest.replay
        session.repeat(declared.maximum)
        setup = prepare(session, tuple(only), tracked=track, requests=requests, anew=rebuild)
        setup = with_controls(setup, recorded, session.tools.store)
        _require_contained(setup, {each.digest for each in programs if each.own}, session.tools.store)
        answer = replay(recorded, setup, declared, settings, session.tools.sink)
    page = html(answer.comparison)
    write_text(answer.folder / COMPARISON, page)
    if track and session.loaded.manifest.tracking.enabled:
        with console(quiet=json) as sink:
            logged = log_campaign(answer.folder, session.loaded.manifest.tracking.uri, settings, sink)
        tell_logged(logged, quiet=json)
        if logged.there:
            attach(
                [folder, answer.folder], {f"comparison/{recorded.id}--{answer.folder.name}.html": page}, logged.there
            )
    if json:
        document = {
            "verdict": answer.verdict,
            "reasons": answer.reasons,
            "not_repeated": left_out,
            "programs": [{"name": each.name, "sha256": each.digest, "built_here": each.own} for each in programs],
            **answer.comparison.as_json(),
        }
        typer.echo(json_module.dumps(document, indent=2))
    else:
        typer.echo(text(answer.comparison), nl=False)
        typer.echo(f"\n{answer.verdict}{_counted(len(answer.comparison.cells), len(left_out))}")
    _end(answer, reproduced=answer.verdict is Verdict.reproduced, differs=answer.verdict is Verdict.differs)


def _repeated(recorded: CampaignRecord, only: Sequence[str], left_out: Mapping[str, str]) -> list[str]:
    """The cells that are repeated, by id; raises `PlanError` where none is left, `UsageError` where none was meant."""
    from meltrepro.plan.only import Selection

    selection = Selection(only)
    names = [cell.id for cell in recorded.cells] + [skip.id for skip in recorded.document.skipped]
    meant = [name for name in names if selection.wants(name)]
    selection.refuse_idle(next(iter(names), "none"))
    repeated = [name for name in meant if name not in left_out]
    if not repeated:
        shown = [f"  {cell_id}: {reason}" for cell_id, reason in left_out.items()]
        raise PlanError(
            "\n".join([f"nothing in {recorded.id} can be compared with:", *shown]),
            hint="measure it anew with: meltrepro run SPEC; or repeat what is INVALID all the same with --all-cells",
        )
    return repeated


def _counted(compared: int, left_out: int) -> str:
    """How many cells a verdict is about."""
    cells = f"{compared} cell{'' if compared == 1 else 's'} compared"
    return f" ({cells}, {left_out} not repeated)" if left_out else f" ({cells})"


def _require_named(
    recorded: CampaignRecord, target: str | None, mac: str | None, settings: Settings, *, rebuild: bool
) -> None:
    """Raise `UsageError` where a replay would log in to a machine that only the record names."""
    from meltrepro.store.cas import Store

    what = f"meltrepro replay {recorded.id}"
    servers = {name: entry.server for name, entry in recorded.manifest.targets.items() if entry.server is not None}
    if servers and target is None:
        shown = ", ".join(f"{name} ({server})" for name, server in servers.items())
        raise UsageError(
            f"{recorded.id} was measured on {shown}: a replay logs in nowhere because a record says so",
            hint=f"if you know that machine: {what} --target {next(iter(servers))}; "
            f"or name one of yours: {what} --target '{{kind: linux, host: HOST}}'",
        )
    macs = [ios.mac for each in recorded.manifest.frameworks.values() if (ios := each.build.ios) and ios.mac]
    there = Store(settings.cache / "store").has
    if macs and mac is None and (rebuild or not all(there(cell.entry.bundle_digest) for cell in recorded.cells)):
        raise UsageError(
            f"the app of {recorded.id} was built on the Mac {macs[0]}: a replay logs in nowhere because a record says so",
            hint=f"if you know it: {what} --mac {macs[0]}; or name one of yours",
        )


def _whose(foreign: Sequence[Known], plan: Plan, *, rebuild: bool) -> str:
    """Whose programs a replay runs, and where, in one line."""
    if not foreign:
        return "runs programs alone that were built on this machine"
    when = "builds its programs anew; where they come out as other bytes, runs beside them" if rebuild else "runs"
    devices = {cell.target_name: cell.target.kind for cell in plan.cells}
    places = ["in a sandbox without network"] if "host" in devices.values() else []
    places += [f"on {name} ({kind}) as the user there" for name, kind in devices.items() if kind != "host"]
    return (
        f"{when} programs that came with this record and were not built here: "
        f"{', '.join(map(str, foreign))}, {' and '.join(places)}"
    )


def _contained(recorded: Manifest, target: str | None) -> list[str]:
    """What has this machine run nothing outside of a sandbox, whatever the record says."""
    there = None if target is None else _there(recorded, target)
    entries = {name: _unmetered(entry) if target is None else there for name, entry in recorded.targets.items()}
    bare = [name for name, entry in entries.items() if isinstance(entry, dict) and entry.get("sandbox") == "bare"]
    if bare:
        typer.echo(
            f"{', '.join(bare)}: in a sandbox, not bare: what a record brings or names runs nowhere else", err=True
        )
    return [f'targets."{name}".sandbox=container' for name in bare]


def _require_contained(setup: Setup, own: Collection[str], store: Store) -> None:
    """Raise `PlanError` where this machine would run bare what was built only now, of what a record names."""
    for cell in setup.plan.cells:
        bundle = setup.artifacts[cell.bundle_id]
        known = store.own.get_ref("artifacts", bundle.key) or {}
        bare = cell.target.here and not cell.target.contained
        if bare and bundle.digest not in own and known.get("digest") != bundle.digest:
            raise PlanError(
                f"{bundle.id} was built of what the record names: it runs in a sandbox only",
                hint="repeat it with --target host, which is a sandbox",
            )


def _overrides(
    recorded: Manifest, margin: float | None, maximum: int | None, target: str | None, mac: str | None = None
) -> list[str]:
    """What a replay changes in the recorded manifest."""
    import yaml

    from meltrepro.manifest.protocol import Want

    changes: dict[str, object] = {"replay.margin": margin, "replay.maximum": maximum}
    if recorded.tracking.uri is not None:  # a replay is the user's own campaign, and logged where those are
        changes["tracking"] = recorded.tracking.model_dump(exclude={"uri"}, exclude_none=True)
    for name, framework in recorded.frameworks.items():
        if framework.build.ios is not None and framework.build.ios.mac is not None:
            changes[f'frameworks."{name}".build.ios.mac'] = mac
    metered = [name for name, entry in recorded.targets.items() if entry.meter is not None]
    there: object = None
    if target is not None:
        there = _there(recorded, target)
        # Under the recorded names, so that every cell meets its own record.
        changes["targets"] = dict.fromkeys(recorded.targets, there)
    elif metered:
        changes["targets"] = {name: _unmetered(entry) for name, entry in recorded.targets.items()}
    if metered and not (isinstance(there, dict) and there.get("meter")):
        # Another day's file is no measurement of today.
        typer.echo(
            f"without the meter of {', '.join(metered)}: energy is measured as far as the device itself shows it; name the "
            "meter's file with --target '{kind: ..., meter: {...}}'",
            err=True,
        )
        if recorded.measure.energy is Want.required:
            changes["measure.energy"] = Want.if_available.value
    plain = {path: yaml.safe_dump(value, default_flow_style=True, width=10**6) for path, value in changes.items()}
    return [f"{path}={plain[path].removesuffix('...' + chr(10)).strip()}" for path, value in changes.items() if value]


def _there(recorded: Manifest, target: str) -> object:
    """The entry of the target that is asked for, as it stands in a manifest; raises `UsageError`."""
    from meltrepro.errors import Problem
    from meltrepro.manifest.yaml.positions import read_text
    from meltrepro.manifest.yaml.tree import Position

    if target in recorded.targets:
        return _unmetered(recorded.targets[target])
    problems: list[Problem] = []
    tree = read_text(target, Position("--target"), problems)
    if problems:
        raise UsageError(
            f"--target {target}: neither a target of the manifest ({', '.join(recorded.targets)}) nor a kind nor YAML",
            hint="for example: --target host, or --target '{kind: host, threads: 2}'",
        )
    there = tree.plain() if tree is not None else None
    if not isinstance(there, dict):
        return {"kind": there} if isinstance(there, str) else there
    if isinstance(there.get("meter"), dict):
        _check_clock(recorded, there["meter"])
        _from_here(there["meter"])
    return there


def _unmetered(entry: Target) -> dict[str, object]:
    return {key: value for key, value in entry.model_dump(mode="json", exclude_unset=True).items() if key != "meter"}


def _check_clock(recorded: Manifest, meter: dict[str, object]) -> None:
    """A replay asks the runner for what the record asked for: it makes sync marks where that did, or none."""
    marked = all(entry.meter is not None and entry.meter.clock == "own" for entry in recorded.targets.values())
    if meter.get("clock", "own") == "own" and not marked:
        raise UsageError(
            "--target: expected a meter that shows the clock of this machine or the device: the recorded campaign made no "
            "sync marks, by which a clock of its own could be aligned",
            hint="let the meter's program write Unix time and say so: meter: {clock: host, ...}",
        )


def _from_here(meter: dict[str, object]) -> None:
    """A meter's file that is named on the command line counts from the current folder."""
    if isinstance(meter.get("file"), str):
        meter["file"] = str(Path(str(meter["file"])).absolute())


def _end(answer: Replayed, *, reproduced: bool, differs: bool) -> None:
    if reproduced:
        return
    reasons = "\n".join(f"  {reason}" for reason in answer.reasons)
    hint = f"the whole comparison is in {answer.folder / COMPARISON}"
    if differs:
        raise Differs(f"DIFFERS:\n{reasons}", hint=hint)
    raise Inconclusive(f"INCONCLUSIVE:\n{reasons}", hint=hint)
