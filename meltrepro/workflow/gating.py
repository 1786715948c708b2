"""A gate: does a change make anything worse? Both sides run in one campaign, in pairs, until that is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meltrepro import interrupts
from meltrepro import settings as settings_module
from meltrepro.build.tools import EngineName
from meltrepro.campaign.conduct import conduct
from meltrepro.campaign.setup import Setup
from meltrepro.errors import PlanError
from meltrepro.measure.metrics import directed
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.plan.planner import require_cells
from meltrepro.record.campaign import IMPORTED, LOCK
from meltrepro.replay.claims import programs_of
from meltrepro.replay.compare import JUDGED, Comparison
from meltrepro.replay.compare import compare as compare_records
from meltrepro.replay.control import is_twin, twin_of, with_controls
from meltrepro.replay.gate import GateResult, changed_settings, judged
from meltrepro.replay.locate import locate
from meltrepro.replay.maps import mapped
from meltrepro.settings import Settings
from meltrepro.stats.equivalence import Design
from meltrepro.steps import Sink, silent
from meltrepro.workflow.campaigns import prepare
from meltrepro.workflow.session import Session, open_session
from meltrepro.workflow.tracking import Logged, log_campaign


@dataclass(frozen=True)
class Gated:
    """A gate that was run."""

    result: GateResult
    comparison: Comparison
    folder: Path
    """Its campaign, with both sides."""
    logged: Logged | None = None


def gate(
    manifest: Path | str,
    against: str,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    metrics: Sequence[str] = (),
    margin: float | None = None,
    maximum: int | None = None,
    engine: EngineName = "docker",
    locked: bool = False,
    track: bool = False,
    wait_s: float = 0.0,
    begins: Callable[[Mapping[str, str]], None] = lambda _: None,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Gated:
    """Run a manifest beside what it is held against, and judge each metric.

    `against` is BEFORE=AFTER, names within the manifest (docs of `compare --map`), or a campaign or bundle, whose recorded
    programs and models then run beside those of today, asked the same. `metrics` are those that matter, all with a verdict where
    none is named. `begins` is told by cell what it is compared with. Raises `UsageError`, `PlanError` where nothing can be compared, and what `run` and `replay` raise.
    """
    settings = settings or settings_module.load()
    for name in metrics:
        directed(name, "--metric")
    changes = {"replay.margin": margin, "replay.maximum": maximum}
    asked = [*overrides, *(f"{key}={value}" for key, value in changes.items() if value is not None)]
    with (
        interrupts.raising(),
        open_session(
            Path(manifest), asked, only, engine=engine, locked=locked, sink=sink, settings=settings, measured=True
        ) as session,
    ):
        require_cells(session.plan)
        declared = session.loaded.manifest.replay
        session = session.repeated(declared.maximum)
        today = prepare(session, tuple(only), tracked=track)
        recorded = None if _is_map(against) else read_campaign(locate(against, settings, sink).campaign)
        if recorded is None:
            ids = [cell.id for cell in today.plan.cells]
            setup, pairs = today, mapped([against], ids, ids)
        else:
            setup, pairs = _beside(session, today, recorded)
        begins({after: before for before, after in pairs.items()})
        design = Design(margin=declared.margin, maximum=declared.maximum)

        def comparison(folder: Path) -> Comparison:
            campaign = read_campaign(folder)
            there = {cell.id for cell in campaign.cells if cell.repetitions}
            renamed = {before: after for before, after in pairs.items() if {before, after} <= there}
            whole = compare_records(campaign, campaign, design, renamed=renamed, judged=metrics or JUDGED)
            return whole.narrowed(metrics) if metrics else whole

        def decided(folder: Path) -> bool:
            found = comparison(folder).cells
            return all(each.decision.final for cell in found for each in cell.metrics if each.decision is not None)

        result = conduct(setup, settings, sink, enough=decided, wait_s=wait_s)
    folder = result.campaign.folder
    found = comparison(folder)
    compared = {name for cell in found.cells for name in cell.cell.split(" -> ")}
    cells = [cell.id for cell in setup.plan.cells]
    wanted = pairs.values() if recorded is None else cells
    changed = changed_settings(recorded, read_campaign(folder)) if recorded is not None else ()
    answer = judged(found, tuple(name for name in wanted if name not in compared), changed)
    logged = None
    if track and session.loaded.manifest.tracking.enabled:
        logged = log_campaign(folder, session.loaded.manifest.tracking.uri, settings, sink)
    return Gated(answer, found, folder, logged)


def _beside(session: Session, setup: Setup, recorded: CampaignRecord) -> tuple[Setup, Mapping[str, str]]:
    """The campaign with the recorded artifacts, and by cell of theirs that of today's."""
    store = session.tools.store
    declared = session.loaded.manifest.replay.model_copy(update={"reference": "control"})
    both = with_controls(setup, recorded, store, declared)
    found = {cell.id for cell in both.plan.cells}
    pairs = {twin_of(cell.id): cell.id for cell in setup.plan.cells if twin_of(cell.id) in found}
    if not pairs:
        raise PlanError(
            f"no cell of {session.loaded.path.name} can run beside {recorded.id}",
            hint="cells are the same by name, for one kind of CPU, and what was measured then must be here: name a bundle "
            "(meltrepro bundle export), or two names of one manifest (--against before=after)",
        )
    known = programs_of(recorded.restricted({*pairs.values()}.__contains__), recorded.file(LOCK), store)
    if not all(each.own for each in known) or (recorded.folder / IMPORTED).exists():
        bare = [cell for cell in both.plan.cells if is_twin(cell.id) and cell.target.here and not cell.target.contained]
        if bare:
            raise PlanError(
                f"{recorded.id} brings programs that were not built here: they run in a sandbox only, and target "
                f"{bare[0].target_name} has none",
                hint=f"leave out targets.{bare[0].target_name}.sandbox",
            )
    return both, pairs


def _is_map(against: str) -> bool:
    return ("=" in against or ":" in against) and not Path(against).exists()
