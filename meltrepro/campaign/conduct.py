"""One campaign from locked devices to the last trial; what `run` and `replay` call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from meltrepro.campaign.campaign import Campaign, finish, start_or_resume
from meltrepro.campaign.journal import Journal
from meltrepro.campaign.runner import Tally, run_trials
from meltrepro.campaign.schedule import Trial, schedule
from meltrepro.campaign.setup import Setup, cell_runs, document_of, files_of
from meltrepro.measure.records import Kind
from meltrepro.settings import Settings
from meltrepro.spec.campaign import JOURNAL
from meltrepro.steps import Sink, Step, fan_out
from meltrepro.targets import lock


@dataclass(frozen=True)
class Result:
    """A campaign after its trials."""

    campaign: Campaign
    tally: Tally


def conduct(
    setup: Setup,
    settings: Settings,
    console: Sink,
    *,
    new: bool = False,
    fail_fast: bool = False,
    enough: Callable[[Path], bool] | None = None,
) -> Result:
    """Start or resume the campaign and run what is left of it, with the devices locked.

    `enough` is asked after each round of repetitions, with the campaign's folder, whether the rest may be left out.

    Raises `DeviceBusy`, `StoreError`, `RecordError`; after these and after `KeyboardInterrupt` the same call goes on.
    """
    manifest = setup.plan.manifest
    used = {cell.target_name for cell in setup.plan.cells}
    runs = cell_runs(setup)
    with ExitStack() as stack:
        for device in sorted({setup.devices[name].id for name in used}):
            stack.enter_context(lock.hold(lock.lock_path(settings.run, device), manifest.name))
        strays = sum(setup.targets[name].stop_strays() for name in sorted(used))
        campaign = start_or_resume(settings.records, document_of(setup, runs, time.time_ns()), files_of(setup), new=new)
        journal = stack.enter_context(Journal(campaign.folder / JOURNAL))
        sink = fan_out(console, journal)
        trials = schedule(list(runs), manifest.protocol, profile=manifest.measure.operators)
        detail = {"resumed": campaign.resumed, "folder": str(campaign.folder), "strays": strays}
        sink(Step("campaign", "begin", campaign.document.id, total=len(trials), unit="trials", detail=detail))
        try:
            for part in _rounds(trials) if enough else [trials]:
                tally = run_trials(
                    campaign.folder,
                    part,
                    runs,
                    sink,
                    journal,
                    retries=manifest.protocol.retries,
                    steady_within=manifest.protocol.steady_within,
                    fail_fast=fail_fast,
                )
                if tally.left or (enough is not None and enough(campaign.folder)):
                    break
        except BaseException as error:
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            sink(Step("campaign", "fail", campaign.document.id, detail={"error": reason}))
            raise
        if tally.left == 0:
            campaign = finish(campaign)
        detail = {"ok": tally.ok, "failed": len(tally.failed), "earlier": tally.earlier, "left": tally.left}
        sink(Step("campaign", "end", campaign.document.id, detail=detail))
        journal.check()
        return Result(campaign, tally)


def _rounds(trials: Sequence[Trial]) -> list[Sequence[Trial]]:
    """The trials up to the end of each round of an interleaved schedule; a tally always counts from the start."""
    ends = [i for i, trial in enumerate(trials) if trial.kind is Kind.repetition]
    last = {trials[i].index: i for i in ends}
    return [trials[: end + 1] for end in last.values()]
