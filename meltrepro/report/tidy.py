"""Results as tidy tables for programs: one row a metric of a cell, a metric of a trial, a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from meltrepro.accuracy.scores import metric_name
from meltrepro.measure.metric import token_gaps_ns
from meltrepro.measure.metrics import METRICS
from meltrepro.measure.records import CampaignRecord, CellRecord, TrialRecord
from meltrepro.report.read import read_results
from meltrepro.report.results import CellResult, State

TableName = Literal["metrics", "trials", "tokens"]
Verdict = Literal["VALID", "INVALID", "FAILED", "SKIPPED"]
VERDICTS: Mapping[State, Verdict] = {
    "measured": "VALID",
    "invalid": "INVALID",
    "failed": "FAILED",
    "skipped": "SKIPPED",
}
_TWO_SIDED = 1.96
"""Standard errors on either side of a score that hold it at 95 %."""


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A metric of a cell; a cell without any has one row, whose reason says why."""

    campaign: str
    """Id of the campaign."""
    cell: str
    """Id of the cell."""
    target: str
    """The device's name in the manifest."""
    device: str
    """The hardware."""
    power_mode: str | None
    """Of a board that has some."""
    framework: str
    """Kind of the inference engine."""
    release: str
    """Its release."""
    model: str
    """The model's name in the manifest."""
    quantization: str
    """How its weights are stored."""
    workload: str
    """The workload's name in the manifest."""
    virtual: bool
    """Whether the device is made up: its figures say nothing of real ones."""
    synthetic: bool
    """Whether the weights are made up: fit for speed, memory and size alone."""
    validity: Verdict
    """Whether the cell's figures may be believed, and what became of it where there are none."""
    metric: str | None
    """Name as in docs/metrics.md, or `accuracy.TASK` and `quality.METRIC` of a score; absent where there is none."""
    unit: str | None
    """Unit of the metric; a score has none."""
    median: float | None
    """Median over the repetitions that are believed; of a score its value."""
    low: float | None
    """Lower end of the interval (docs/protocol.md); of a score 1.96 standard errors below it."""
    high: float | None
    """Upper end of the interval."""
    n: int
    """How many repetitions that is of."""
    asked: int | None
    """How many there should be; absent of a cell that was skipped."""
    reason: str | None
    """Why the figure does not exist, or the cell is not VALID."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A metric of a trial; a trial without any has one row, whose reason says why."""

    campaign: str
    """Id of the campaign."""
    cell: str
    """Id of the cell."""
    trial: str
    """Name of its folder."""
    kind: str
    """Warm-up, repetition or profile; summaries are of repetitions."""
    index: int
    """Which one of its kind, from 0."""
    started_ns: int
    """When it began, Unix time in nanoseconds by this machine's clock."""
    duration_s: float
    """How long it took, in seconds."""
    virtual: bool
    """Whether the device is made up."""
    validity: Verdict
    """Whether its figures may be believed."""
    metric: str | None
    """Name as in docs/metrics.md, or of a score."""
    unit: str | None
    """Unit of the metric; a score has none."""
    value: float | None
    """What was measured."""
    bound: float | None
    """How far from it the truth may be, where clocks and rates of samples leave doubt."""
    reason: str | None
    """Why the figure does not exist, or the trial is not VALID."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token of a repetition that ended well."""

    campaign: str
    """Id of the campaign."""
    cell: str
    """Id of the cell."""
    repetition: int
    """From 0."""
    conversation: int
    """From 0."""
    turn: int
    """Within the conversation, from 0."""
    token: int
    """Within the answer, from 0."""
    t_ns: int
    """When it was sampled, in nanoseconds since the repetition's first turn began."""
    gap_ns: int | None
    """Nanoseconds since the token before; absent of an answer's first."""
    validity: Verdict
    """Whether the repetition's figures may be believed."""


Row = MetricRow | TrialRow | TokenRow


def metric_rows(campaign: CampaignRecord) -> Iterator[MetricRow]:
    """Every metric and score of every cell; raises `RecordError`."""
    for cell in read_results([campaign]).cells:
        known = cell.metrics.keys() | cell.unavailable.keys()
        found = [_metric(cell, name, one.unit) for name, one in METRICS.items() if name in known]
        found += _scores(cell)
        yield from found or [_metric_row(cell, reason=cell.reason)]


def _metric(cell: CellResult, name: str, unit: str) -> MetricRow:
    found = cell.metrics.get(name)
    if found is None:
        return _metric_row(cell, metric=name, unit=unit, reason=cell.unavailable[name])
    middle, low, high = found.median, found.low, found.high
    return _metric_row(cell, metric=name, unit=unit, median=middle, low=low, high=high, n=found.n, reason=cell.reason)


def _scores(cell: CellResult) -> Iterator[MetricRow]:
    for score in cell.scores:
        name, off = metric_name(score), None if score.stderr is None else _TWO_SIDED * score.stderr
        low, high = (None, None) if off is None else (score.value - off, score.value + off)
        yield _metric_row(cell, metric=name, median=score.value, low=low, high=high, n=1, reason=cell.reason)


def _metric_row(
    cell: CellResult,
    *,
    metric: str | None = None,
    unit: str | None = None,
    median: float | None = None,
    low: float | None = None,
    high: float | None = None,
    n: int = 0,
    reason: str | None,
) -> MetricRow:
    return MetricRow(
        campaign=cell.campaign,
        cell=cell.cell,
        target=cell.device.name,
        device=cell.device.model,
        power_mode=cell.device.power_mode,
        framework=cell.framework,
        release=cell.release,
        model=cell.model,
        quantization=cell.quantization,
        workload=cell.workload,
        virtual=cell.device.virtual,
        synthetic=cell.synthetic,
        validity=VERDICTS[cell.state],
        metric=metric,
        unit=unit,
        median=median,
        low=low,
        high=high,
        n=n,
        asked=cell.asked,
        reason=reason,
    )


def trial_rows(campaign: CampaignRecord) -> Iterator[TrialRow]:
    """Every metric and score of every trial that ended, warm-ups too; raises `RecordError`."""
    for cell in campaign.cells:
        for trial in cell.trials:
            yield from _trial(campaign.id, cell, trial)


def _trial(campaign: str, cell: CellRecord, trial: TrialRecord) -> Iterator[TrialRow]:
    verdict, reason = _verdict(cell, trial)

    def row(
        metric: str | None = None,
        unit: str | None = None,
        value: float | None = None,
        bound: float | None = None,
        reason: str | None = reason,
    ) -> TrialRow:
        return TrialRow(
            campaign=campaign,
            cell=cell.id,
            trial=trial.name,
            kind=str(trial.kind),
            index=trial.index,
            started_ns=trial.outcome.started_wall_ns,
            duration_s=trial.outcome.duration_s,
            virtual=trial.outcome.virtual,
            validity=verdict,
            metric=metric,
            unit=unit,
            value=value,
            bound=bound,
            reason=reason,
        )

    if not trial.ok:
        yield row()
        return
    for score in trial.scores:
        yield row(metric_name(score), None, score.value)
    measured = trial.metrics
    for name, one in METRICS.items():
        if name in measured.values:
            yield row(name, one.unit, measured.values[name], measured.bounds.get(name))
        elif name in measured.unavailable:
            yield row(name, one.unit, reason=measured.unavailable[name])


def _verdict(cell: CellRecord, trial: TrialRecord) -> tuple[Verdict, str | None]:
    validity = trial.validity(cell.limits, cell.backend)
    if validity.valid:
        return "VALID", None
    return "INVALID" if trial.ok else "FAILED", "; ".join(map(str, validity.findings))


def token_rows(campaign: CampaignRecord) -> Iterator[TokenRow]:
    """Every token of every repetition with a runner; raises `RecordError`."""
    for cell in campaign.cells:
        for trial in cell.repetitions:
            if trial.scoring is not None:
                continue
            verdict, _ = _verdict(cell, trial)
            trace = trial.trace()
            begin_ns = trace.turns[0].begin_ns if trace.turns else 0
            for conversation in trace.conversations:
                for turn in conversation.turns:
                    gaps = (None, *token_gaps_ns(turn))
                    place = (campaign.id, cell.id, trial.index, conversation.index, turn.index)
                    for token, (t_ns, gap_ns) in enumerate(zip(turn.token_ns, gaps, strict=False)):
                        yield TokenRow(*place, token, t_ns - begin_ns, gap_ns, verdict)


@dataclass(frozen=True)
class Tidy:
    """A kind of table: what its rows are, and how they are made."""

    row: type[Row]
    rows: Callable[[CampaignRecord], Iterator[Row]]


TABLES: Mapping[TableName, Tidy] = {
    "metrics": Tidy(MetricRow, metric_rows),
    "trials": Tidy(TrialRow, trial_rows),
    "tokens": Tidy(TokenRow, token_rows),
}
