"""The state machine of a campaign: trial after trial, whatever happened before and whatever happens now.

The record folders are the only state. A trial whose folder has an outcome is done; one whose folder has none never
happened. So a rerun after any end, be it SIGKILL, goes on where the last one stopped, and can neither lose a trial nor
run one twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meltrepro.campaign import layout
from meltrepro.campaign.journal import Journal
from meltrepro.campaign.schedule import Trial
from meltrepro.campaign.trial import CellRun, read_outcome, run_trial
from meltrepro.campaign.warmup import is_steady
from meltrepro.interrupts import held
from meltrepro.measure.records import Kind
from meltrepro.spec.record import Outcome, TrialState
from meltrepro.steps import Phase, Sink, Step
from meltrepro.store.atomic import writing

_SHOWN = ("prefill_tps", "generation_tps", "temperature_max_c", "generation_power_w")
"""Metrics that are told while a campaign runs."""


@dataclass(frozen=True)
class Tally:
    """How the trials of a campaign ended."""

    ok: int
    failed: tuple[tuple[Trial, str], ...]
    """Trials that failed for good, with their reasons."""
    earlier: int
    """Trials among them that were done before this run."""
    left: int = 0
    """Trials that were not run, because the first failure was to end the campaign."""


@dataclass(frozen=True)
class _Place:
    """Where in the campaign a trial stands, for those who watch."""

    sink: Sink
    trial: Trial
    number: int
    total: int

    def tell(self, phase: Phase, attempt: int, **detail: object) -> None:
        trial = self.trial
        known = {"cell": trial.cell_id, "trial": trial.folder, "attempt": attempt}
        self.sink(
            Step(
                "trial",
                phase,
                str(trial),
                done=self.number,
                total=self.total,
                unit="trials",
                detail={**known, **detail},
            )
        )

    def waiting(self, reasons: Sequence[str], first: bool) -> None:
        """Tell what a trial waits for; nothing any more where there are no reasons."""
        phase: Phase = "end" if not reasons else "begin" if first else "progress"
        self.sink(Step("gate", phase, str(self.trial), detail={"waiting": "; ".join(reasons)}))


def run_trials(
    campaign: Path,
    trials: Sequence[Trial],
    runs: Mapping[str, CellRun],
    sink: Sink,
    journal: Journal,
    *,
    retries: int,
    steady_within: float | None = None,
    fail_fast: bool = False,
) -> Tally:
    """Run every trial that has no outcome yet; `runs` are by cell id, `retries` go to transient failures only.

    Warm-ups of a cell that is steady already are left out: two in a row generated equally fast, to within this share.

    Raises `StoreError` where records cannot be written, `RecordError` where an earlier one is damaged.
    """
    ok, earlier = 0, 0
    failed: list[tuple[Trial, str]] = []
    for number, trial in enumerate(trials):
        folder = layout.trial_folder(campaign, trial)
        outcome = read_outcome(folder)
        if outcome is None and trial.kind is Kind.warmup and is_steady(folder.parent, trial.index, steady_within):
            continue
        if outcome is None or _may_retry(outcome, retries):
            place = _Place(sink, trial, number, len(trials))
            outcome = _until_settled(runs[trial.cell_id], folder, outcome, place, retries)
            journal.check()
        else:
            earlier += 1
        if outcome.state is TrialState.ok:
            ok += 1
            continue
        failed.append((trial, outcome.reason or "no reason given"))
        if fail_fast:
            return Tally(ok, tuple(failed), earlier, left=len(trials) - number - 1)
    return Tally(ok, tuple(failed), earlier)


def _until_settled(run: CellRun, folder: Path, outcome: Outcome | None, place: _Place, retries: int) -> Outcome:
    """Attempt a trial until it succeeds or may not be tried again; failed attempts are kept beside it."""
    while True:
        if outcome is not None:
            with held(), writing(folder.parent):
                folder.rename(layout.attempt_folder(folder, outcome.attempt))
        attempt = layout.attempts(folder) + 1
        place.tell("begin", attempt)
        try:
            ended = run_trial(run, place.trial, attempt, folder, place.waiting)
        except BaseException as error:
            place.tell("fail", attempt, error=f"{type(error).__name__}: {error}", discarded=True)
            raise
        outcome = ended.outcome
        retry = _may_retry(outcome, retries)
        if outcome.state is TrialState.ok:
            speeds = {name: ended.metrics[name] for name in _SHOWN if name in ended.metrics}
            place.tell("end", attempt, duration_s=outcome.duration_s, folder=str(folder), **speeds)
        else:
            place.tell("fail", attempt, error=outcome.reason, retry=retry)
        if not retry:
            return outcome


def _may_retry(outcome: Outcome, retries: int) -> bool:
    return outcome.state is TrialState.failed and outcome.transient and outcome.attempt <= retries
