"""Replaying a campaign: what its record decides, and what is asked of it before anything of a stranger runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from meltrepro import interrupts
from meltrepro import settings as settings_module
from meltrepro.atomic import write_bytes
from meltrepro.build.tools import EngineName
from meltrepro.campaign.setup import Setup
from meltrepro.errors import PlanError, Problem, UsageError
from meltrepro.frameworks.base import framework
from meltrepro.manifest.protocol import Want
from meltrepro.manifest.schema import Manifest, Reference
from meltrepro.manifest.targets import Target
from meltrepro.manifest.yaml.positions import read_text
from meltrepro.manifest.yaml.tree import Position
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.plan.model import Plan
from meltrepro.plan.names import Selection
from meltrepro.plan.planner import require_cells
from meltrepro.record.campaign import IMPORTED, LOCK, MANIFEST
from meltrepro.replay import replay as replaying
from meltrepro.replay.bundle import verify_bundle
from meltrepro.replay.claims import Known, programs_of
from meltrepro.replay.control import with_controls
from meltrepro.replay.gaps import require_ready
from meltrepro.replay.locate import locate
from meltrepro.replay.replay import Replayed, recorded_requests, undecidable
from meltrepro.report.comparison import html
from meltrepro.settings import Settings
from meltrepro.steps import Sink, silent
from meltrepro.store.cas import Store
from meltrepro.track.logged import attach
from meltrepro.workflow.campaigns import prepare
from meltrepro.workflow.session import open_session
from meltrepro.workflow.tracking import Logged, log_campaign

COMPARISON = "comparison.html"
"""In the folder of the replay's own campaign."""


@dataclass(frozen=True)
class Intent:
    """What a replay will do, as far as the record and the user decide it; no device was asked."""

    recorded: CampaignRecord
    """What is repeated of it."""
    left_out: Mapping[str, str]
    """Cells that are not repeated, by id, and why."""
    overrides: Sequence[str]
    """What is changed in the recorded manifest."""
    unmetered: Sequence[str]
    """Targets whose meter is left out: another day's file is no measurement of today."""
    contained: Sequence[str]
    """Targets that run in a sandbox, though the record says bare."""
    programs: Sequence[Known]
    """What may be run, as far as it is known before anything is built."""
    rebuild: bool

    @property
    def foreign(self) -> list[Known]:
        """Programs that came with the record and were not built here."""
        return [program for program in self.programs if not program.own]


@dataclass(frozen=True)
class ReplayResult:
    """A campaign that was repeated, and the answer."""

    answer: Replayed
    """The verdict, its reasons, the comparison, and the folder of the replay's own campaign."""
    intent: Intent
    page: Path
    """The comparison as HTML."""
    logged: Logged | None = None
    """What became of logging it; `None` where that was not wanted."""


def replay(
    what: Path | str,
    *,
    only: Sequence[str] = (),
    target: str | None = None,
    mac: str | None = None,
    engine: EngineName = "docker",
    rebuild: bool = False,
    margin: float | None = None,
    reference: Reference | None = None,
    maximum: int | None = None,
    all_cells: bool = False,
    track: bool = True,
    wait_s: float = 0.0,
    begins: Callable[[Intent, Plan], None] = lambda _, __: None,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> ReplayResult:
    """Verify or rebuild a campaign's artifacts, repeat its trials with the same requests, and compare.

    `what` is a campaign (folder, id, part of one, `last`), a bundle or the id of an MLflow run. `begins` is called before
    anything is built or run; `wait_s` is that of `run`. The verdict is in the answer and raises nothing.

    Raises `UsageError` where the replay would log in to a machine that only the record names, `PlanError` where nothing
    can be repeated, `RecordError`, `BundleError`, `TrackingError`, and what `run` raises.
    """
    settings = settings or settings_module.load()
    with interrupts.raising():
        if Path(what).is_file():
            try:
                require_ready(Path(what), settings, engine, only=only, rebuild=rebuild, elsewhere=target is not None)
            except PlanError:
                verify_bundle(Path(what))  # that it is damaged matters more
                raise
        located = locate(str(what), settings, sink)
        recorded = read_campaign(located.campaign)
        only = [*only, located.cell] if located.cell is not None else only
        intent = intend(
            recorded,
            settings,
            only=only,
            target=target,
            mac=mac,
            rebuild=rebuild,
            margin=margin,
            reference=reference,
            maximum=maximum,
            all_cells=all_cells,
        )
        recorded = intent.recorded
        requests = recorded_requests(recorded)
        cells = [cell.id for cell in recorded.document.cells]
        with open_session(
            recorded.file(MANIFEST),
            intent.overrides,
            cells,  # a record may be of a part of its manifest, and some of that may have failed
            engine=engine,
            locked=True,
            sink=sink,
            settings=settings,
            lock_file=recorded.file(LOCK),
            measured=True,
        ) as session:
            require_cells(session.plan)
            begins(intent, session.plan)
            declared, store = session.loaded.manifest.replay, session.tools.store
            session = session.repeated(declared.maximum)
            setup = prepare(session, tuple(cells), tracked=track, requests=requests, anew=rebuild)
            setup = with_controls(setup, recorded, store, declared)
            _require_contained(setup, {each.digest for each in intent.programs if each.own}, store)
            answer = replaying.replay(recorded, setup, declared, settings, sink, wait_s)
    page = html([answer.comparison])
    write_bytes(answer.folder / COMPARISON, page.encode())
    logged = None
    tracking = session.loaded.manifest.tracking
    if track and tracking.enabled:
        logged = log_campaign(answer.folder, tracking.uri, settings, sink)
        if logged.there:
            name = f"comparison/{recorded.id}--{answer.folder.name}.html"
            attach([recorded.folder, answer.folder], {name: page}, logged.there)
    return ReplayResult(answer, intent, answer.folder / COMPARISON, logged)


def intend(
    recorded: CampaignRecord,
    settings: Settings,
    *,
    only: Sequence[str] = (),
    target: str | None = None,
    mac: str | None = None,
    rebuild: bool = False,
    margin: float | None = None,
    reference: Reference | None = None,
    maximum: int | None = None,
    all_cells: bool = False,
) -> Intent:
    """What a replay of a campaign will do; raises `UsageError`, `PlanError` and `RecordError` as `replay` does."""
    left_out = undecidable(recorded, Selection(only).wants)
    if all_cells:  # of the others no record says what they were asked
        asked = {cell.id for cell in recorded.cells if cell.repetitions}
        left_out = {cell_id: reason for cell_id, reason in left_out.items() if cell_id not in asked}
    repeated = frozenset(_repeated(recorded, only, left_out))
    recorded = recorded.restricted(repeated.__contains__)
    changed = changes(recorded.manifest, target=target, mac=mac, margin=margin, reference=reference, maximum=maximum)
    _require_named(recorded, target, mac, settings, rebuild=rebuild)
    programs = programs_of(recorded, recorded.file(LOCK), Store(settings.store))
    # A model or a prompt may be hostile too.
    hostile = rebuild or not all(each.own for each in programs) or (recorded.folder / IMPORTED).exists()
    contained = changed.bare if hostile else ()
    overrides = [*changed.overrides, *(f'targets."{name}".sandbox=container' for name in contained)]
    return Intent(recorded, left_out, overrides, changed.unmetered, contained, programs, rebuild)


def _repeated(recorded: CampaignRecord, only: Sequence[str], left_out: Mapping[str, str]) -> list[str]:
    """The cells that are repeated, by id; raises `PlanError` where none is left, `UsageError` where none was meant."""
    selection = Selection(only)
    names = [cell.id for cell in recorded.cells] + [skip.id for skip in recorded.document.skipped]
    meant = [name for name in names if selection.wants(name)]
    selection.refuse_idle(names)
    repeated = [name for name in meant if name not in left_out]
    if not repeated:
        shown = [f"  {cell_id}: {reason}" for cell_id, reason in left_out.items()]
        raise PlanError(
            "\n".join([f"nothing in {recorded.id} can be compared with:", *shown]),
            hint="measure it anew with: meltrepro run SPEC; or repeat what is INVALID all the same with --all-cells",
        )
    return repeated


def _require_named(
    recorded: CampaignRecord, target: str | None, mac: str | None, settings: Settings, *, rebuild: bool
) -> None:
    """Raise `UsageError` where a replay would log in to a machine that only the record names."""
    what = f"meltrepro replay {recorded.id}"
    servers = {name: entry.server for name, entry in recorded.manifest.targets.items() if entry.server is not None}
    if servers and target is None:
        shown = ", ".join(f"{name} ({server})" for name, server in servers.items())
        raise UsageError(
            f"{recorded.id} was measured on {shown}: a replay logs in nowhere because a record says so",
            hint=f"if you know that machine: {what} --target {next(iter(servers))}; "
            f"or name one of yours: {what} --target '{{kind: linux, host: HOST}}'",
        )
    entries = recorded.manifest.frameworks.values()
    macs = [mac for each in entries for mac in framework(each.kind).servers(each.options).values()]
    there = Store(settings.store).has
    if macs and mac is None and (rebuild or not all(there(cell.entry.bundle_digest) for cell in recorded.cells)):
        raise UsageError(
            f"the app of {recorded.id} was built on the Mac {macs[0]}: a replay logs in nowhere because a record says so",
            hint=f"if you know it: {what} --mac {macs[0]}; or name one of yours",
        )


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


@dataclass(frozen=True)
class Changes:
    """What a replay changes in a recorded manifest."""

    overrides: Sequence[str]
    unmetered: Sequence[str]
    """Targets whose meter is left out."""
    bare: Sequence[str]
    """Targets by whose entry this machine would run something outside of a sandbox."""


def changes(
    recorded: Manifest,
    *,
    target: str | None = None,
    mac: str | None = None,
    margin: float | None = None,
    reference: Reference | None = None,
    maximum: int | None = None,
) -> Changes:
    """What the user changes in a manifest, and what must not be taken from a record; raises `UsageError`."""
    wanted: dict[str, object] = {"replay.margin": margin, "replay.maximum": maximum, "replay.reference": reference}
    if recorded.tracking.uri is not None:  # a replay is the user's own campaign, and logged where those are
        wanted["tracking"] = recorded.tracking.model_dump(exclude={"uri"}, exclude_none=True)
    for name, entry in recorded.frameworks.items():
        servers = framework(entry.kind).servers(entry.options)
        wanted |= {f'frameworks."{name}".options.{".".join(keys)}': mac for keys in servers}
    entries: dict[str, object] = {name: _unmetered(entry) for name, entry in recorded.targets.items()}
    unmetered = [name for name, entry in recorded.targets.items() if entry.meter is not None]
    if target is not None:
        there = _there(recorded, target)
        entries = dict.fromkeys(entries, there)  # under the recorded names, so that every cell meets its own record
        if isinstance(there, dict) and there.get("meter"):
            unmetered = []
    if target is not None or unmetered:
        wanted["targets"] = entries
    if unmetered and recorded.measure.energy is Want.required:
        wanted["measure.energy"] = Want.if_available.value
    plain = {path: yaml.safe_dump(value, default_flow_style=True, width=10**6) for path, value in wanted.items()}
    overrides = [
        f"{path}={plain[path].removesuffix('...' + chr(10)).strip()}" for path, value in wanted.items() if value
    ]
    bare = [name for name, entry in entries.items() if isinstance(entry, dict) and entry.get("sandbox") == "bare"]
    return Changes(overrides, unmetered, bare)


def _there(recorded: Manifest, target: str) -> object:
    """The entry of the target that is asked for, as it stands in a manifest; raises `UsageError`."""
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
