"""The state machine of a campaign: trial after trial, whatever happened before and whatever happens now.

The record folders are the only state. A trial whose folder has an outcome is done; one whose folder has none never
happened. So a rerun after any end, be it SIGKILL, goes on where the last one stopped, and can neither lose a trial nor
run one twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from meltrepro.accuracy.answers import marks, read_checks
from meltrepro.atomic import writing
from meltrepro.campaign.trial import Attempt, CellRun, Watcher, run_trial
from meltrepro.campaign.watching import watched
from meltrepro.errors import RecordError
from meltrepro.interrupts import held
from meltrepro.measure.metrics import compute
from meltrepro.measure.validity import SPEED
from meltrepro.record import layout
from meltrepro.record import trial as record
from meltrepro.record.events import read_trace
from meltrepro.record.journal import Journal
from meltrepro.record.layout import Trial, TrialKind
from meltrepro.record.outcomes import TrialFailure
from meltrepro.record.reader import read_outcome
from meltrepro.record.trial import Outcome, TrialState
from meltrepro.steps import Phase, Sink, Step

_SHOWN = ("prefill_tps", "generation_tps", "temperature_max_c", "generation_power_w")
"""Metrics that are shown while a campaign runs."""

Perform = Callable[[CellRun, Trial, int, Path, Watcher], Attempt]
"""Carries out an attempt at a trial, whose number it is told, and leaves its record in a folder."""


class Halted(BaseException):
    """A trial was given up, because the campaign is to end."""


@dataclass(frozen=True)
class Tally:
    """How the trials of a campaign ended."""

    ok: int
    failed: tuple[tuple[Trial, TrialFailure], ...]
    """Trials that failed for good, with their reasons."""
    earlier: int
    """Trials among them that were done before this run."""
    left: int = 0
    """Trials that were not run, because the first failure was to end the campaign."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.ok + other.ok, self.failed + other.failed, self.earlier + other.earlier, self.left + other.left
        )


@dataclass
class CampaignProgress:
    """How many trials of a campaign are settled; shared by lanes."""

    total: int
    done: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when no further trial is to begin."""
    halted: threading.Event = field(default_factory=threading.Event)
    """Set when those that run are being ended."""
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def settle(self) -> int:
        """Count one more; returns how many there were before."""
        with self._guard:
            self.done += 1
            return self.done - 1


@dataclass(frozen=True)
class _Place:
    """Where in the campaign a trial stands, for those who watch."""

    sink: Sink
    trial: Trial
    progress: CampaignProgress

    def tell(self, phase: Phase, attempt: int, **detail: object) -> None:
        trial = self.trial
        known = {"cell": trial.cell_id, "trial": trial.folder, "attempt": attempt}
        self.sink(
            Step(
                "trial",
                phase,
                str(trial),
                done=self.progress.done,
                total=self.progress.total,
                unit="trials",
                detail={**known, **detail},
            )
        )

    def watcher(self) -> Watcher:
        """Tells what a trial does; raises `Halted` in it where the campaign is to end."""
        return Watcher(self.deploying, self.waiting, self.rest, self.running, self.ending)

    def running(self, run: CellRun, folder: Path) -> AbstractContextManager[None]:
        """Tell how far a trial is that runs."""

        def tell(seen: Mapping[str, object]) -> None:
            done, total = self.progress.done, self.progress.total
            self.sink(Step("trial", "progress", str(self.trial), done=done, total=total, unit="trials", detail=seen))

        return watched(folder / record.EVENTS, tell, spare=run.request.threads < run.facts.cores)

    def rest(self, seconds: float) -> None:
        """Wait, unless what runs is being ended."""
        if self.progress.halted.wait(seconds):
            raise Halted

    def ending(self) -> None:
        """A trial that was ended from outside never happened, whatever it came to."""
        if self.progress.halted.is_set():
            raise Halted

    def deploying(self, done: int, total: int) -> None:
        """Tell how much of a file has reached the device."""
        self._go_on()
        phase: Phase = "end" if done >= total else "progress"
        self.sink(Step("deploy", phase, str(self.trial), done=done, total=total, unit="bytes"))

    def waiting(self, reasons: Sequence[str], first: bool) -> None:
        """Tell what a trial waits for; nothing any more where there are no reasons."""
        self._go_on()
        phase: Phase = "end" if not reasons else "begin" if first else "progress"
        self.sink(Step("gate", phase, str(self.trial), detail={"waiting": "; ".join(reasons)}))

    def _go_on(self) -> None:
        if self.progress.stop.is_set():
            raise Halted


@dataclass(frozen=True)
class Rules:
    """What happens to trials that do not go as they should."""

    retries: int
    """Further attempts after a transient failure."""
    steady_within: float | None = None
    """Warm-ups of a cell that is steady already are left out: two in a row generated equally fast, to within this share."""
    fail_fast: bool = False
    """End the campaign at the first trial that fails for good."""


def run_trials(
    campaign: Path,
    trials: Sequence[Trial],
    runs: Mapping[str, CellRun],
    sink: Sink,
    journal: Journal,
    rules: Rules,
    progress: CampaignProgress,
    perform: Perform | None = None,
) -> Tally:
    """Run every trial that has no outcome yet, until `progress.stop` is set; `runs` are by cell id.

    They are carried out on this machine (`run_trial`), unless something else is to `perform` them. Where that gives a trial up by `Halted`, the rest is left.

    Raises `StoreError` where records cannot be written, `RecordError` where an earlier one is damaged.
    """
    ok, earlier = 0, 0
    failed: list[tuple[Trial, TrialFailure]] = []
    for number, trial in enumerate(trials):
        if progress.stop.is_set():
            return Tally(ok, tuple(failed), earlier, left=len(trials) - number)
        folder = layout.trial_folder(campaign, trial)
        outcome = read_outcome(folder)
        if outcome is None and is_settled(campaign, trial, rules):
            progress.settle()
            continue
        now = False
        if outcome is None or _may_retry(outcome, rules.retries):
            place = _Place(sink, trial, progress)
            now = True
            outcome = _until_settled(runs[trial.cell_id], folder, outcome, place, rules.retries, perform or run_trial)
            journal.check()
            if outcome is None:
                return Tally(ok, tuple(failed), earlier, left=len(trials) - number)
        else:
            earlier += 1
        progress.settle()
        if outcome.failure is None:
            ok += 1
            continue
        failed.append((trial, outcome.failure))
        if rules.fail_fast and now:
            progress.stop.set()
    return Tally(ok, tuple(failed), earlier)


def is_settled(campaign: Path, trial: Trial, rules: Rules) -> bool:
    """Whether a trial has an outcome, or is left out: a warm-up of a steady cell, or questions of one whose score is known.

    Raises `RecordError` for a damaged record.
    """
    folder = layout.trial_folder(campaign, trial)
    if read_outcome(folder) is not None:
        return True
    if trial.kind is TrialKind.repetition:
        return is_known(folder.parent, trial.index)
    return trial.kind is TrialKind.warmup and is_steady(folder.parent, trial.index, rules.steady_within)


def is_steady(cell: Path, index: int, within: float | None) -> bool:
    """Whether two warm-ups in a row before number `index` generated equally fast; never without a limit `within`.

    `cell` is the cell's folder. Raises `RecordError` for a damaged outcome.
    """
    if within is None:
        return False
    speeds = [_warmup_speed(cell / f"w{number:03d}") for number in range(index)]
    pairs = pairwise(speeds)
    return any(a is not None and b is not None and abs(b - a) <= within * max(a, b) for a, b in pairs)


def is_known(cell: Path, index: int) -> bool:
    """Whether the answers before repetition number `index` tell the score of all questions as nearly as is wished.

    `cell` is the cell's folder. Raises `RecordError` for a damaged record.
    """
    found, stop = list[bool](), None
    for folder in (cell / f"r{number:03d}" for number in range(index)):
        outcome = read_outcome(folder)
        if outcome is None or outcome.state is not TrialState.ok:
            continue  # it was left out itself, or failed
        if record.CHECKS not in outcome.files:
            return False
        checks = read_checks(folder / record.CHECKS)
        if (stop := checks.stop) is None:
            return False
        found += [mark.right for mark in marks(checks, read_trace(folder / record.EVENTS).turns)]
    return stop is not None and stop.known(len(found), sum(found))


def _warmup_speed(folder: Path) -> float | None:
    outcome = read_outcome(folder)
    if outcome is None or outcome.state is not TrialState.ok:
        return None
    try:
        return compute(read_trace(folder / record.EVENTS)).values.get(SPEED)
    except RecordError:
        return None


def _until_settled(
    run: CellRun, folder: Path, outcome: Outcome | None, place: _Place, retries: int, perform: Perform
) -> Outcome | None:
    """Attempt a trial until it succeeds or may not run again; failed attempts are kept beside it.

    `None` where the campaign is to end: an attempt that was cut short by that never happened.
    """
    while True:
        if outcome is not None:
            with held(), writing(folder.parent):
                folder.rename(layout.attempt_folder(folder, outcome.attempt))
        attempt = layout.attempts(folder) + 1
        place.tell("begin", attempt)
        try:
            ended = perform(run, place.trial, attempt, folder, place.watcher())
        except Halted:
            place.tell("fail", attempt, error="given up", discarded=True)
            return None
        except BaseException as error:
            place.tell("fail", attempt, error=f"{type(error).__name__}: {error}", discarded=True)
            raise
        outcome = ended.outcome
        retry = _may_retry(outcome, retries)
        if outcome.state is TrialState.ok:
            speeds = {name: ended.metrics[name] for name in _SHOWN if name in ended.metrics}
            place.tell("end", attempt, duration_s=outcome.duration_s, folder=str(folder), **speeds)
        else:
            place.tell("fail", attempt, error=str(outcome.failure), retry=retry)
        if not retry:
            return outcome


def _may_retry(outcome: Outcome, retries: int) -> bool:
    return outcome.state is TrialState.failed and outcome.transient and outcome.attempt <= retries
