"""One campaign from locked devices to the last trial; what `run` and `replay` call."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from threading import Thread

from meltrepro.campaign import gates
from meltrepro.campaign.campaign import Campaign, finish, start_or_resume
from meltrepro.campaign.devices import Hold, make_ready
from meltrepro.campaign.lanes import lanes_of, run_lanes
from meltrepro.campaign.runner import CampaignProgress, Halted, Perform, Rules, Tally, is_settled, run_trials
from meltrepro.campaign.setup import Setup, cell_runs, document_of, files_of
from meltrepro.campaign.trial import CellRun
from meltrepro.errors import EngineError, TargetError
from meltrepro.interrupts import held
from meltrepro.manifest.protocol import Order, Protocol
from meltrepro.manifest.schema import Workload
from meltrepro.record import layout
from meltrepro.record.campaign import JOURNAL
from meltrepro.record.ids import CellId
from meltrepro.record.journal import Journal
from meltrepro.record.layout import Trial, TrialKind
from meltrepro.record.reader import read_outcome
from meltrepro.settings import Settings
from meltrepro.steps import Phase, Sink, Step, fan_out, one_at_a_time
from meltrepro.targets import device_lock
from meltrepro.targets.base import Adjustable, DeviceState, Target
from meltrepro.targets.presence import driving


@dataclass(frozen=True)
class CampaignResult:
    """A campaign after its trials."""

    campaign: Campaign
    tally: Tally
    missing: Mapping[str, str] = field(default_factory=dict)
    """Targets that could not be measured, by name, and why."""
    measured_s: float = 0.0
    """How long its trials took, and what they waited for."""


@dataclass(frozen=True)
class Means:
    """How the trials of a campaign are carried out: on devices of this machine, unless others do it."""

    perform: Perform | None = None
    hold: Hold = device_lock.hold
    lanes: Callable[[Sequence[Trial], Mapping[str, CellRun]], list[list[Trial]]] = lanes_of
    missing: Callable[[], Mapping[str, str]] = dict
    """Targets that were lost on the way, by name, and why."""


HERE = Means()


def conduct(
    setup: Setup,
    settings: Settings,
    console: Sink,
    *,
    new: bool = False,
    fail_fast: bool = False,
    enough: Callable[[Path], bool] | None = None,
    wait_s: float = 0.0,
    means: Means = HERE,
) -> CampaignResult:
    """Start or resume the campaign and run what is left of it, with the devices locked.

    Campaigns that measure on them are waited for, at most `wait_s`, first come, first served. `enough` is asked after each round of repetitions, with the campaign's folder, whether the rest may be left out.

    Raises `DeviceBusy`, `StoreError`, `RecordError`; after these and after `KeyboardInterrupt` the same call goes on.
    """
    manifest, known = setup.plan.manifest, setup.missing
    with ExitStack() as stack:
        ready = make_ready(setup, stack, console, wait_s, means.hold)
        setup, runs = ready.setup, cell_runs(ready.setup, ready.sensors)
        document, files = document_of(setup, runs, time.time_ns()), files_of(setup)
        campaign = start_or_resume(settings.records, document, files, new=new, ended=enough is None)
        journal = stack.enter_context(Journal(campaign.folder / JOURNAL))
        sink = one_at_a_time(fan_out(console, journal))
        for name, absence in setup.missing.items():
            step = Step("absent", "note", name, detail={"error": absence.reason, "kind": absence.kind.value})
            (journal if name in known else sink)(step)  # the console has heard of those that were known before
        cells = {cell.id: cell for cell in campaign.document.cells}
        own = {
            name: cell.expected or each.repetitions
            for name, cell in cells.items()
            if not isinstance(each := manifest.workloads[cell.workload], Workload)
        }
        whole = schedule(list(cells), manifest.protocol, profile=manifest.measure.operators, own=own)
        trials = [trial for trial in whole if trial.cell_id in runs]
        rules = Rules(manifest.protocol.retries, manifest.protocol.steady_within, fail_fast)
        detail = {"resumed": campaign.resumed, "folder": str(campaign.folder)}
        detail |= {"strays": ready.strays, "restored": ready.restored}
        sink(Step("campaign", "begin", campaign.document.id, total=len(trials), unit="trials", detail=detail))
        tell_busy(runs, sink)
        since = time.monotonic()
        try:
            with _restoring(ready.targets, sink):
                tally, progress = Tally(0, (), 0), CampaignProgress(len(trials))
                for part in _rounds(trials) if enough else [trials]:
                    parallel = manifest.protocol.parallel
                    tally += _run(campaign.folder, part, runs, sink, journal, rules, progress, parallel, means)
                    if tally.left or (enough is not None and enough(campaign.folder)):
                        break
        except BaseException as error:
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            sink(Step("campaign", "fail", campaign.document.id, detail={"error": reason}))
            raise
        measured_s = time.monotonic() - since
        away = (trial for trial in whole if trial.cell_id not in runs)  # of devices that are not there now
        tally += Tally(0, (), 0, sum(not is_settled(campaign.folder, trial, rules) for trial in away))
        if tally.left == 0 and campaign.document.finished_wall_ns is None:
            campaign = finish(campaign)
        detail = {"ok": tally.ok, "failed": len(tally.failed), "earlier": tally.earlier, "left": tally.left}
        sink(Step("campaign", "end", campaign.document.id, detail=detail))
        journal.check()
        missing = {**{name: absence.reason for name, absence in setup.missing.items()}, **means.missing()}
        return CampaignResult(campaign, tally, missing, measured_s)


def _run(
    folder: Path,
    trials: Sequence[Trial],
    runs: Mapping[str, CellRun],
    sink: Sink,
    journal: Journal,
    rules: Rules,
    progress: CampaignProgress,
    parallel: bool,
    means: Means,
) -> Tally:
    """Run trials, those of different devices at the same time; all devices have what they need before the first begins."""
    lanes = means.lanes(trials, runs) if parallel else [list(trials)]

    stopping: dict[int, Thread] = {}

    def halt() -> None:
        """Have every device end what it runs, each in its own time: one that is lost must not keep the others waiting."""
        progress.stop.set()
        progress.halted.set()
        for target in {id(run.target): run.target for run in runs.values()}.values():
            if not (known := stopping.get(id(target))) or not known.is_alive():
                stopping[id(target)] = Thread(target=_stop, args=(target,), daemon=True)
                stopping[id(target)].start()

    if len(lanes) > 1:
        run_lanes(lanes, lambda lane: _deploy(_unfinished(folder, lane), runs, sink, progress), halt)
    perform = means.perform
    tallies = run_lanes(
        lanes, lambda lane: run_trials(folder, lane, runs, sink, journal, rules, progress, perform), halt
    )
    tally = sum(tallies, Tally(0, (), 0))
    order = {trial: number for number, trial in enumerate(trials)}
    return replace(tally, failed=tuple(sorted(tally.failed, key=lambda entry: order[entry[0]])))


LOOK_S = 0.3
"""Time over which a device is looked at before the first trial."""


def tell_busy(runs: Mapping[str, CellRun], sink: Sink) -> None:
    """Say which devices others keep so busy that trials will wait for a CPU; one that cannot be asked tells itself later."""
    devices: dict[str, tuple[str, CellRun]] = {}
    for cell, run in sorted(runs.items(), key=lambda item: item[1].request.threads):
        devices[run.facts.id] = (CellId.parse(cell).target, run)  # that with the most threads
    before = {id: state for id, (_, run) in devices.items() if (state := _state(run.target)) is not None}
    if any(state.cpu_idle_s is not None for state in before.values()):
        time.sleep(LOOK_S)
    for id, earlier in before.items():
        name, run = devices[id]
        now = None if earlier.cpu_idle_s is None else _state(run.target)
        busy = None if now is None else gates.busy_cores(earlier, now, run.facts.cores)
        threads, cores = run.request.threads, run.facts.cores
        if busy is not None and gates.overfull(busy, threads, cores):
            sink(Step("busy", "note", name, detail={"busy": busy, "cores": cores, "threads": threads}))


def _state(target: Target) -> DeviceState | None:
    with suppress(TargetError), driving("device"):
        return target.state()
    return None


def _stop(target: Target) -> None:
    with suppress(TargetError, EngineError), driving("device"):
        target.stop_strays()


def _unfinished(folder: Path, trials: Sequence[Trial]) -> list[str]:
    """The cells that have trials without a good end."""
    outcomes = ((trial.cell_id, read_outcome(layout.trial_folder(folder, trial))) for trial in trials)
    return list(dict.fromkeys(cell for cell, outcome in outcomes if outcome is None or outcome.state != "ok"))


def _deploy(cells: Sequence[str], runs: Mapping[str, CellRun], sink: Sink, progress: CampaignProgress) -> None:
    """Bring everything to a lane's devices, so that no transfer falls into the trials of another lane.

    What goes wrong here goes wrong again in the trial that needs it, so that a device that is lost is not waited for here.
    """
    for cell in cells:
        run = runs[cell]

        def tell(done: int, total: int, cell: str = cell) -> None:
            if progress.stop.is_set():
                raise Halted
            phase: Phase = "end" if done >= total else "progress"
            sink(Step("deploy", phase, cell, done=done, total=total, unit="bytes"))

        if progress.stop.is_set():
            return
        try:
            run.deploy(tell)
        except Halted:
            return
        except TargetError as error:
            sink(Step("deploy", "fail", cell, detail={"error": error.message}))
            if error.transient:
                return


@contextmanager
def _restoring(targets: Mapping[str, Target], sink: Sink) -> Iterator[None]:
    """Put the devices' settings back after the block, however it ends; what cannot be put back now is a step that failed."""

    def restore(name: str) -> None:
        try:
            if isinstance(target := targets[name], Adjustable):
                target.restore()
        except Exception as error:  # whatever one device does, the others get theirs back
            detail = {"error": str(error), "next": "meltrepro devices restore DEVICE"}
            sink(Step("restore", "fail", name, detail=detail))

    try:
        yield
    finally:
        with held(), ThreadPoolExecutor(len(targets)) as pool:
            list(pool.map(restore, targets))


def _rounds(trials: Sequence[Trial]) -> list[Sequence[Trial]]:
    """The rounds of an interleaved schedule, one after the other."""
    last = {trial.index: i for i, trial in enumerate(trials) if trial.kind is TrialKind.repetition}
    ends = [-1, *last.values()]
    return [trials[before + 1 : end + 1] for before, end in pairwise(ends)]


def schedule(
    cell_ids: Sequence[str], protocol: Protocol, *, profile: bool = False, own: Mapping[str, int] | None = None
) -> tuple[Trial, ...]:
    """Every trial of a campaign in the order in which it runs.

    `interleaved`: rounds of one repetition per cell, each round in an order of its own. `blocked`: cell after cell, the
    cells in an order drawn from the seed. `as-written`: cell after cell as the manifest names them. A cell's warm-ups
    come right before its first repetition, its profiled trial, where one is asked for, after its last.

    `own` has the repetitions of cells that do not follow the protocol, by id: they have neither warm-ups nor profiles.
    """
    return tuple(_trials(cell_ids, protocol, profile, own or {}))


def _trials(cell_ids: Sequence[str], protocol: Protocol, profile: bool, own: Mapping[str, int]) -> Iterator[Trial]:
    most = max([protocol.count * any(cell_id not in own for cell_id in cell_ids), *own.values()])

    def repetitions(cell_id: str, indices: Iterable[int]) -> Iterator[Trial]:
        for index in indices:
            if index >= own.get(cell_id, protocol.count):
                continue
            if cell_id in own:
                yield Trial(cell_id, TrialKind.repetition, index)
                continue
            if index == 0:
                yield from (Trial(cell_id, TrialKind.warmup, warmup) for warmup in range(protocol.warmups))
            yield Trial(cell_id, TrialKind.repetition, index)
            if profile and index == protocol.count - 1:
                yield Trial(cell_id, TrialKind.profile, 0)

    if protocol.order is Order.interleaved:
        for index in range(most):
            for cell_id in _shuffled(cell_ids, protocol.seed, index):
                yield from repetitions(cell_id, [index])
        return
    blocks = cell_ids if protocol.order is Order.as_written else _shuffled(cell_ids, protocol.seed, 0)
    for cell_id in blocks:
        yield from repetitions(cell_id, range(most))


def _shuffled(cell_ids: Iterable[str], seed: int, index: int) -> list[str]:
    """Ordered by a digest: no random generator whose algorithm may change with the Python version."""
    return sorted(cell_ids, key=lambda cell_id: hashlib.sha256(f"{seed}/{index}/{cell_id}".encode()).digest())
