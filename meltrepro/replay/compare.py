"""Two campaigns side by side: what differs in what was run, in where it ran, and in what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from meltrepro.accuracy.scores import Score, metric_name
from meltrepro.errors import NothingToCompare
from meltrepro.manifest.protocol import Order
from meltrepro.measure.metrics import METRICS
from meltrepro.measure.records import CampaignRecord, CellRecord
from meltrepro.measure.spreads import spread_of, with_sessions
from meltrepro.measure.validity import Reason
from meltrepro.replay.context import DEVICE, Difference, context_differences, differences, ran_differences
from meltrepro.stats.equivalence import (
    FEWEST,
    Baseline,
    Design,
    ReplayDecision,
    ReplayVerdict,
    decide,
    identical,
    trials_to_show_sameness,
)
from meltrepro.stats.ratio import comparable, ratio_interval
from meltrepro.stats.sessions import Spread
from meltrepro.stats.tokens import TokenComparison, compare_tokens

_PLACE = frozenset({"device.id", "device.kernel", "device.build", "engine", "governor"})
"""What is another device, or another state of one, that somebody may have wanted to compare."""
_FAR = 2.576
"""Standard errors beyond which two samples of the same differ in one of a hundred cases."""
JUDGED = ("prefill_tps", "generation_tps", "ttft_ms", "tpot_ms", "itl_p1_ms", "load_s", "peak_memory_bytes")
"""The metrics that get a verdict; the others follow from them or are counts."""


@dataclass(frozen=True)
class SessionRatio:
    """How fast a device is in one session beside another, by the same artifact."""

    ratio: float
    low: float
    high: float
    """At 95 %, for these two sessions as they were."""
    usual: float | None
    """Ratio, less one, beyond which two sessions of the device lie in one of twenty cases; `None` where it was not calibrated."""

    @property
    def unusual(self) -> bool:
        """Whether sessions of the device do not differ that much without a cause."""
        return self.usual is not None and (self.low > 1 + self.usual or self.high < 1 / (1 + self.usual))


@dataclass(frozen=True)
class MetricComparison:
    """One metric of one cell on both sides."""

    metric: str
    unit: str
    first: float
    second: float
    """Medians."""
    decision: ReplayDecision | None
    """`None` for a metric that gets no verdict."""
    control: float | None = None
    """Median of the control, which the decision then compares `second` with."""
    needed: int | None = None
    """Of what is INCONCLUSIVE between two campaigns: repetitions on each side that would show sameness."""
    session: SessionRatio | None = None
    """With a control: the control of today over the recorded values; no verdict follows from it."""


@dataclass(frozen=True)
class ScoreComparison:
    """One score of one cell on both sides."""

    name: str
    first: Score
    second: Score
    verdict: ReplayVerdict
    """REPRODUCED only where they are equal; without being equal, DIFFERS where they are too far apart for chance."""
    standard_errors: float | None
    """How far they are apart, in standard errors of the difference of two samples; `None` where that is not known."""


@dataclass(frozen=True)
class CellComparison:
    """One cell that both campaigns have."""

    cell: str
    params: tuple[Difference, ...]
    identities: tuple[Difference, ...]
    context: tuple[Difference, ...]
    metrics: tuple[MetricComparison, ...]
    tokens: TokenComparison | None
    """Of the first repetitions; `None` where one side has none."""
    scores: tuple[ScoreComparison, ...] = ()
    remarks: tuple[str, ...] = ()
    """What a reader of its figures must know, side by side."""
    same: bool = False
    """Whether both sides are the same trials."""
    invalid: tuple[str, ...] = ()
    """The sides that are INVALID as a whole, and why; where there is one, no verdict is REPRODUCED or DIFFERS."""
    controlled: bool = False
    """Whether the recorded artifacts ran beside the others, and their verdicts are about artifacts alone."""

    @property
    def same_artifacts(self) -> bool:
        """Whether both sides ran the same bytes on the same weights."""
        return not {"runner_digest", "model_digest"} & {difference.name for difference in self.identities}

    @property
    def proven(self) -> bool:
        """Whether the artifacts were reproduced whatever the noise: the same bytes gave the same tokens, side by side."""
        alike = self.tokens is not None and self.tokens.exact
        return self.controlled and self.same_artifacts and alike and not self.invalid

    @property
    def unchanged(self) -> bool:
        """Whether the same bytes did the same work on the same device with the same system: only the session is another."""
        return not (self.params or self.identities or any(each.name in _PLACE for each in self.context))


@dataclass(frozen=True)
class Comparison:
    first: str
    second: str
    cells: tuple[CellComparison, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    margin: float
    """Ratios from 1 / (1 + margin) to 1 + margin count as the same."""

    @property
    def same(self) -> bool:
        """Whether a campaign is compared with itself."""
        return bool(self.cells) and all(cell.same for cell in self.cells) and not (self.only_first or self.only_second)

    def narrowed(self, metrics: Sequence[str]) -> Comparison:
        """The same with those metrics alone."""
        cells = (
            replace(cell, metrics=tuple(each for each in cell.metrics if each.metric in metrics)) for cell in self.cells
        )
        return replace(self, cells=tuple(cells))

    def as_json(self) -> dict[str, Any]:
        """Plain data; infinities become null."""
        return _plain(asdict(self))  # type: ignore[no-any-return]


def compare(
    first: CampaignRecord,
    second: CampaignRecord,
    design: Design,
    controls: Mapping[str, CellRecord] | None = None,
    *,
    once: bool = False,
    renamed: Mapping[str, str] | None = None,
    judged: Collection[str] = JUDGED,
) -> Comparison:
    """Compare every cell that both have; raises `RecordError` for a damaged record.

    `renamed` has, by cell of the first, that of the second which is to be compared with it, and no other cell is; both may then
    be the same campaign, whose rounds are pairs of trials. `judged` are the metrics that get a verdict.

    With `once` no trial will be added, whatever comes out: all of the design's error rate goes to this one look. A cell of `second` that is among `controls` is judged against that one instead, trial by trial.
    """
    controls = controls or {}
    ours, theirs = ({cell.id: cell for cell in campaign.cells} for campaign in (first, second))
    shared = renamed if renamed is not None else {cell_id: cell_id for cell_id in ours if cell_id in theirs}
    return Comparison(
        first=first.id,
        second=second.id,
        cells=tuple(
            _compare_cells(
                (first, ours[id]), (second, theirs[other]), design, controls.get(id), once=once, judged=judged
            )
            for id, other in shared.items()
        ),
        only_first=tuple(cell_id for cell_id in ours if cell_id not in theirs) if renamed is None else (),
        only_second=tuple(cell_id for cell_id in theirs if cell_id not in ours) if renamed is None else (),
        margin=design.margin,
    )


def _compare_cells(
    one: tuple[CampaignRecord, CellRecord],
    other: tuple[CampaignRecord, CellRecord],
    design: Design,
    control: CellRecord | None,
    *,
    once: bool,
    judged: Collection[str],
) -> CellComparison:
    """One cell; `other` is judged against `one`, or against the control."""
    (_, first), (_, second) = one, other
    same = bool(first.believed) and [t.outcome for t in first.believed] == [t.outcome for t in second.believed]
    known = sessions_of(one, other)
    if first.folder != second.folder and one[0].folder == other[0].folder and _one_device(first, second):
        # Cells of one campaign: its rounds are pairs, and no session is between them.
        design = replace(design, session_cv=0.0)
        known = cache(lambda _: None)
        if one[0].document.order is Order.interleaved:
            control = first
    sides = {"first": first, "second": second, **({"control": control} if control is not None else {})}
    whole = {side: cell.whole for side, cell in sides.items()}
    if control is not None:
        # What disturbs both sides of a pair cancels, and the interval of the pairs holds the rest.
        whole = {side: verdict.without(Reason.noisy) for side, verdict in whole.items()}
    invalid = {side: verdict for side, verdict in whole.items() if not verdict.valid}
    metrics = _metrics(first, second, design, control, known, once=once, same=same, judged=judged)
    scores = _scores(first, second)
    found = CellComparison(
        cell=first.id if first.id == second.id else f"{first.id} -> {second.id}",
        params=(*differences(_params(first), _params(second)), *ran_differences("effective.", first, second)),
        identities=differences(_identities(first), _identities(second)),
        context=context_differences(one, other),
        metrics=tuple(_undecided(metric, list(invalid)) if invalid else metric for metric in metrics),
        tokens=_tokens(first, second),
        scores=tuple(replace(score, verdict=ReplayVerdict.inconclusive) if invalid else score for score in scores),
        remarks=tuple(
            f"{side}: {remark}" for side, cell in (("first", first), ("second", second)) for remark in cell.remarks
        ),
        same=same,
        invalid=tuple(f"{side}: {verdict}" for side, verdict in invalid.items()),
        controlled=control is not None and control is not first,
    )
    if control is not None or not found.unchanged:
        return found
    return replace(found, metrics=tuple(_of_session(metric, known(metric.metric)) for metric in found.metrics))


def sessions_of(
    one: tuple[CampaignRecord, CellRecord], other: tuple[CampaignRecord, CellRecord]
) -> Callable[[str], Spread | None]:
    """What is known of the sessions of two cells' device, by metric: nothing where they ran on two. Raises `RecordError`."""
    calibration = None
    if _one_device(one[1], other[1]):
        found = (campaign.calibration(cell.entry.target) for campaign, cell in (other, one))
        calibration = next((each for each in found if each is not None), None)
    return cache(lambda metric: spread_of(calibration, metric))


def _one_device(first: CellRecord, second: CellRecord) -> bool:
    return first.entry.params.get("device.id") == second.entry.params.get("device.id")


def _of_session(metric: MetricComparison, known: Spread | None) -> MetricComparison:
    """The same figures of the same artifacts, which no longer say that these differ: what differs can be the session alone."""
    decision = metric.decision
    if decision is None or decision.verdict is not ReplayVerdict.differs:
        return metric
    how = f"by {known.usual:.1%} and more in one of twenty cases" if known is not None else "by an unknown amount"
    todo = "" if known is not None else ", or calibrate the device (meltrepro calibrate)"
    reason = (
        f"{decision.reason}, but the same bytes did the same work on the same device: what differs is the session, and sessions "
        f"differ {how}; to judge the artifacts run both in one session (meltrepro replay --reference control){todo}"
    )
    changed = replace(decision, verdict=ReplayVerdict.inconclusive, more_needed=None, reason=reason)
    return replace(metric, decision=changed, needed=None)


def _undecided(metric: MetricComparison, invalid: Sequence[str]) -> MetricComparison:
    """The same figures without an answer: they are not believed."""
    if metric.decision is None:
        return metric
    reason = f"INVALID as a whole: {' and '.join(invalid)}; mend what is said of it and measure again"
    decision = replace(metric.decision, verdict=ReplayVerdict.inconclusive, more_needed=None, reason=reason)
    return replace(metric, decision=decision, needed=None)


def _scores(first: CellRecord, second: CellRecord) -> Iterator[ScoreComparison]:
    others = {metric_name(score): score for score in second.scores}
    for score in first.scores:
        name = metric_name(score)
        if name not in others:
            continue
        other = others[name]
        errors = math.hypot(score.stderr or 0.0, other.stderr or 0.0)
        apart = abs(score.value - other.value) / errors if errors else None
        same = (score.value, score.n, score.k) == (other.value, other.n, other.k)
        far = apart is not None and apart > _FAR
        verdict = ReplayVerdict.reproduced if same else ReplayVerdict.differs if far else ReplayVerdict.inconclusive
        yield ScoreComparison(name, score, other, verdict, apart)


def _params(cell: CellRecord) -> dict[str, object]:
    """What ran, without where."""
    said = {name: value for name, value in cell.entry.params.items() if not name.startswith(DEVICE)}
    return {**said, **cell.limits_changed}


def _identities(cell: CellRecord) -> dict[str, object]:
    names = ("model_digest", "bundle_digest", "runner_digest", "source_digest", "commit", "isa")
    return {name: getattr(cell.entry, name) for name in names}


def values_of(cell: CellRecord, metric: str) -> list[float]:
    """A metric's value of every repetition that has one and is believed, in order."""
    return [trial.metrics.values[metric] for trial in cell.believed if metric in trial.metrics.values]


def judge_metric(
    metric: str,
    first: CellRecord,
    second: CellRecord,
    design: Design,
    control: CellRecord | None = None,
    known: Spread | None = None,
    *,
    once: bool = False,
    judged: Collection[str] = JUDGED,
) -> ReplayDecision | None:
    """The verdict on one metric; `None` where it gets none, the reference has no value that could be compared, or answers are
    checked, of which a trial or two say all. `known` is what is known of the device's sessions."""
    if control is None:
        design = with_sessions(design, known)
        old, new = values_of(first, metric), values_of(second, metric)
    else:
        design = replace(design, reference=Baseline.control)
        pairs = list(_pairs(control, second, metric))
        old, new = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if metric not in judged or first.scores or not old or not comparable(old):
        return None
    trials = min(len(old), len(new))
    if once:
        looked = max(trials, FEWEST)
        design = replace(design, minimum=looked, maximum=looked)
    return decide(old, new, design) if comparable(new) else None


def _pairs(control: CellRecord, replayed: CellRecord, metric: str) -> Iterator[tuple[float, float]]:
    """Values of both arms from the rounds in which both trials ended well."""
    values = [
        {trial.index: trial.metrics.values[metric] for trial in cell.believed if metric in trial.metrics.values}
        for cell in (control, replayed)
    ]
    for index in sorted(values[0].keys() & values[1].keys()):
        yield values[0][index], values[1][index]


def _session(metric: str, first: CellRecord, control: CellRecord, known: Spread | None) -> SessionRatio | None:
    """How this session stands to the recorded one, by the control; `None` where there is nothing to be compared."""
    old, new = values_of(first, metric), values_of(control, metric)
    if metric not in JUDGED or not (comparable(old) and comparable(new)):
        return None
    found = ratio_interval(old, new)
    return SessionRatio(found.ratio, found.low, found.high, known.usual if known is not None else None)


def _metrics(
    first: CellRecord,
    second: CellRecord,
    design: Design,
    control: CellRecord | None,
    known: Callable[[str], Spread | None],
    *,
    once: bool,
    same: bool,
    judged: Collection[str],
) -> Iterator[MetricComparison]:
    for name, metric in METRICS.items():
        if name not in first.summaries or name not in second.summaries:
            continue
        sessions = known(name)
        decision = judge_metric(name, first, second, design, control, sessions, once=once, judged=judged)
        if same and decision is not None:
            decision = identical(decision)
        open_ = once and control is None and decision is not None and decision.verdict is ReplayVerdict.inconclusive
        yield MetricComparison(
            metric=name,
            unit=metric.unit,
            first=first.summaries[name].median,
            second=second.summaries[name].median,
            decision=decision,
            needed=trials_to_show_sameness(
                values_of(first, name), values_of(second, name), with_sessions(design, sessions)
            )
            if open_
            else None,
            session=_session(name, first, control, sessions) if control is not None and control is not first else None,
            control=control.summaries[name].median
            if control is not None and control is not first and name in control.summaries
            else None,
        )


def _tokens(first: CellRecord, second: CellRecord) -> TokenComparison | None:
    if any(not cell.repetitions or cell.repetitions[0].scoring for cell in (first, second)):
        return None
    return compare_tokens(_token_ids(first), _token_ids(second))


def _token_ids(cell: CellRecord) -> Sequence[Sequence[int]]:
    trace = cell.repetitions[0].trace()
    return [turn.token_ids for conversation in trace.conversations for turn in conversation.turns]


def require_common(comparison: Comparison) -> None:
    """Raise `NothingToCompare` where no cell is in both campaigns."""
    if comparison.cells:
        return
    sides = ((comparison.first, comparison.only_first), (comparison.second, comparison.only_second))
    raise NothingToCompare(
        "; ".join(f"{id} has {_some(names)}" for id, names in sides) + ": no cell is in both",
        hint="cells are the same by name, model/quantization/framework/target/workload: run both campaigns of one manifest, or set "
        f"releases side by side with: meltrepro report {comparison.first} {comparison.second}",
    )


def _some(cells: Sequence[str], most: int = 3) -> str:
    shown = [*cells[:most], *([f"{len(cells) - most} more"] if len(cells) > most else [])]
    return ", ".join(shown) or "no cell"


def overall(comparison: Comparison) -> ReplayVerdict:
    """DIFFERS where any metric does, INCONCLUSIVE where any is undecided or a cell is INVALID, REPRODUCED where all are.

    Where a cell's artifacts are proven to be reproduced, a metric that is too noisy to show it takes nothing from that.
    """
    verdicts = {
        ReplayVerdict.reproduced if cell.proven and not m.decision.verdict.certain else m.decision.verdict
        for cell in comparison.cells
        for m in cell.metrics
        if m.decision is not None
    }
    verdicts |= {score.verdict for cell in comparison.cells for score in cell.scores}
    verdicts |= {ReplayVerdict.inconclusive for cell in comparison.cells if cell.invalid}
    if ReplayVerdict.differs in verdicts:
        return ReplayVerdict.differs
    return ReplayVerdict.reproduced if verdicts == {ReplayVerdict.reproduced} else ReplayVerdict.inconclusive


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None
    return value
