"""Replay: the same artifacts, the same requests, the same seeds; was the recorded result reproduced?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from meltrepro.campaign.conduct import conduct
from meltrepro.campaign.setup import Setup
from meltrepro.manifest.schema import Replay
from meltrepro.measure.records import CampaignRecord, CellRecord, read_campaign
from meltrepro.record.trial import AnyRequest, Request
from meltrepro.replay.compare import JUDGED, Comparison, compare, judge_metric, overall, sessions_of, values_of
from meltrepro.replay.control import is_twin, twin_of
from meltrepro.replay.show import doubts
from meltrepro.settings import Settings
from meltrepro.stats.equivalence import Design, ReplayVerdict
from meltrepro.stats.ratio import comparable
from meltrepro.stats.sessions import Spread
from meltrepro.steps import Sink


@dataclass(frozen=True)
class Replayed:
    verdict: ReplayVerdict
    reasons: tuple[str, ...]
    comparison: Comparison
    folder: Path


def undecidable(recorded: CampaignRecord, wanted: Callable[[str], bool]) -> Mapping[str, str]:
    """Cells of a campaign whose trials could be repeated without ever being compared, with the reasons.

    They have no figure that is believed: they failed, are INVALID, or were skipped. Raises `RecordError`.
    """
    reasons = {skip.id: f"it was skipped: {skip.reason}" for skip in recorded.document.skipped}
    for cell in recorded.cells:
        if not cell.believed:
            reasons[cell.id] = f"no repetition of it is believed: {cell.validity}" if cell.trials else "it never ran"
        elif not cell.scores and not any(comparable(values_of(cell, metric)) for metric in JUDGED):
            reasons[cell.id] = "it has no figure that could be compared"
    return {cell_id: reason for cell_id, reason in reasons.items() if wanted(cell_id)}


def recorded_requests(recorded: CampaignRecord) -> Mapping[str, AnyRequest]:
    """The exact requests of a campaign by cell, from its own records, which are checked; raises `RecordError`."""
    recorded.verify()
    return {cell.id: _request(cell) for cell in recorded.cells if cell.repetitions}


def _request(cell: CellRecord) -> AnyRequest:
    """What a cell was asked: by each repetition, or by all of them in parts."""
    request = cell.repetitions[0].request
    if cell.asking is None or not isinstance(request, Request):
        return request
    parts = [trial.request for number, trial in enumerate(cell.repetitions) if trial.index == number]
    talks = [talk for part in parts if isinstance(part, Request) for talk in part.conversations]
    return request.model_copy(update={"conversations": talks})


def replay(
    recorded: CampaignRecord, setup: Setup, declared: Replay, settings: Settings, sink: Sink, wait_s: float = 0.0
) -> Replayed:
    """Repeat the recorded trials until every metric of every cell is decided, or the declared maximum is reached.

    `setup` is made from the campaign's own manifest, lock and requests, with `declared.maximum` repetitions; `wait_s` is
    that of `conduct`.
    """
    design = Design(margin=declared.margin, maximum=declared.maximum, session_cv=declared.session_cv)

    def decided(folder: Path) -> bool:
        replayed, controls = _arms(folder)
        cells = {cell.id: cell for cell in replayed.cells}
        return all(
            _final(old, new, design, controls.get(old.id), sessions_of((recorded, old), (replayed, new)))
            for old in recorded.cells
            if (new := cells.get(old.id)) is not None
        )

    result = conduct(setup, settings, sink, enough=decided, wait_s=wait_s)
    replayed, controls = _arms(result.campaign.folder)
    comparison = compare(recorded, replayed, design, controls)
    verdict, reasons = judge(comparison)
    return Replayed(verdict, reasons, comparison, result.campaign.folder)


def _arms(folder: Path) -> tuple[CampaignRecord, Mapping[str, CellRecord]]:
    """What was replayed, and the control of each cell that has one."""
    campaign = read_campaign(folder)
    twins = {cell.id: cell for cell in campaign.cells if is_twin(cell.id)}
    replayed = campaign.restricted(lambda id: id not in twins)
    return replayed, {cell.id: twins[twin_of(cell.id)] for cell in replayed.cells if twin_of(cell.id) in twins}


def judge(comparison: Comparison) -> tuple[ReplayVerdict, tuple[str, ...]]:
    """The answer for the whole replay, and what speaks against REPRODUCED."""
    reasons = [f"{cell_id}: not repeated" for cell_id in comparison.only_first]
    silent = [cell.cell for cell in comparison.cells if not (cell.metrics or cell.scores or cell.invalid)]
    reasons += [f"{cell_id}: nothing to compare: no trial of one side gave a result" for cell_id in silent]
    other_output = False
    for cell in comparison.cells:
        reasons += [f"{cell.cell}: {doubt}" for doubt in doubts(cell)]
        if cell.tokens is not None and not cell.tokens.exact:
            if cell.same_artifacts:
                other_output |= not cell.invalid
                reasons.append(f"{cell.cell}: the same binary and model generated other tokens")
            else:
                reasons.append(f"{cell.cell}: another binary generated other tokens (reported, not required)")
        if cell.invalid:
            continue  # nothing follows from its figures
        for score in cell.scores:
            if score.verdict is ReplayVerdict.reproduced:
                continue
            said = f"{cell.cell}: {score.name}: {score.first.value:.6g} -> {score.second.value:.6g}"
            if cell.same_artifacts:
                other_output = True
                reasons.append(f"{said}: the same binary and model came to another score")
            else:
                reasons.append(f"{said}: {score.verdict}")
        reasons += [
            f"{cell.cell}: {metric.metric}: {metric.decision.verdict}: {metric.decision.reason}"
            for metric in cell.metrics
            if metric.decision is not None
            and metric.decision.verdict is not ReplayVerdict.reproduced
            and (metric.decision.verdict.certain or not cell.proven)
        ]
    verdict = overall(comparison)
    if other_output:
        verdict = ReplayVerdict.differs
    elif (comparison.only_first or silent) and verdict is ReplayVerdict.reproduced:
        verdict = ReplayVerdict.inconclusive
    return verdict, tuple(reasons)


def _final(
    old: CellRecord,
    new: CellRecord,
    design: Design,
    control: CellRecord | None,
    known: Callable[[str], Spread | None],
) -> bool:
    """Whether no further trial of a cell can change an answer."""
    if old.asking is not None:
        return new.asking is not None and new.asking.asked >= old.asking.asked
    if old.scores:
        return True  # they do not vary
    usable = [metric for metric in JUDGED if comparable(values_of(old, metric))]
    decisions = (judge_metric(metric, old, new, design, control, known(metric)) for metric in usable)
    return all(decision is not None and decision.final for decision in decisions)
