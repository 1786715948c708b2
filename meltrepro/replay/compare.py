"""Two campaigns side by side: what differs in what was run, in where it ran, and in what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from meltrepro.measure.metrics import METRICS
from meltrepro.measure.records import CampaignRecord, CellRecord
from meltrepro.stats.equivalence import Decision, Design, Verdict, decide
from meltrepro.stats.ratio import comparable
from meltrepro.stats.tokens import TokenComparison, compare_tokens

CONTEXT = "device."
"""Prefix of the parameters that say where a cell ran, not what ran."""
JUDGED = ("prefill_tps", "generation_tps", "ttft_ms", "tpot_ms", "load_s", "peak_memory_bytes")
"""The metrics that get a verdict; the others follow from them or are counts."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same on both sides."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class MetricComparison:
    """One metric of one cell on both sides."""

    metric: str
    unit: str
    first: float
    second: float
    """Medians."""
    decision: Decision | None
    """`None` for a metric that gets no verdict."""


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


@dataclass(frozen=True)
class Comparison:
    """The whole."""

    first: str
    second: str
    cells: tuple[CellComparison, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data; infinities become null."""
        return _plain(asdict(self))  # type: ignore[no-any-return]


def compare(first: CampaignRecord, second: CampaignRecord, design: Design) -> Comparison:
    """Compare every cell that both have; raises `RecordError` for a damaged record."""
    ours, theirs = ({cell.id: cell for cell in campaign.cells} for campaign in (first, second))
    shared = [cell_id for cell_id in ours if cell_id in theirs]
    return Comparison(
        first=first.id,
        second=second.id,
        cells=tuple(compare_cells(ours[cell_id], theirs[cell_id], design) for cell_id in shared),
        only_first=tuple(cell_id for cell_id in ours if cell_id not in theirs),
        only_second=tuple(cell_id for cell_id in theirs if cell_id not in ours),
    )


def compare_cells(first: CellRecord, second: CellRecord, design: Design) -> CellComparison:
    """One cell; `second` is judged against `first`."""
    ours, theirs = first.entry.params, second.entry.params
    names = ("model_digest", "bundle_digest", "runner_digest", "source_digest", "commit", "isa")
    return CellComparison(
        cell=first.id,
        params=_differences(
            {k: v for k, v in ours.items() if not k.startswith(CONTEXT)},
            {k: v for k, v in theirs.items() if not k.startswith(CONTEXT)},
        ),
        identities=_differences(
            {n: getattr(first.entry, n) for n in names}, {n: getattr(second.entry, n) for n in names}
        ),
        context=_differences(
            {k: v for k, v in ours.items() if k.startswith(CONTEXT)},
            {k: v for k, v in theirs.items() if k.startswith(CONTEXT)},
        ),
        metrics=tuple(_metrics(first, second, design)),
        tokens=_tokens(first, second),
    )


def values_of(cell: CellRecord, metric: str) -> list[float]:
    """A metric's value of every repetition that has one, in order."""
    return [trial.metrics.values[metric] for trial in cell.repetitions if metric in trial.metrics.values]


def _metrics(first: CellRecord, second: CellRecord, design: Design) -> list[MetricComparison]:
    rows = []
    for name, metric in METRICS.items():
        if name not in first.summaries or name not in second.summaries:
            continue
        old, new = values_of(first, name), values_of(second, name)
        judged = name in JUDGED and comparable(old) and comparable(new)
        rows.append(
            MetricComparison(
                metric=name,
                unit=metric.unit,
                first=first.summaries[name].median,
                second=second.summaries[name].median,
                decision=decide(old, new, design) if judged else None,
            )
        )
    return rows


def _tokens(first: CellRecord, second: CellRecord) -> TokenComparison | None:
    if not first.repetitions or not second.repetitions:
        return None
    return compare_tokens(_token_ids(first), _token_ids(second))


def _token_ids(cell: CellRecord) -> Sequence[Sequence[int]]:
    trace = cell.repetitions[0].trace()
    return [turn.token_ids for conversation in trace.conversations for turn in conversation.turns]


def _differences(first: Mapping[str, object], second: Mapping[str, object]) -> tuple[Difference, ...]:
    names = sorted(first.keys() | second.keys())
    pairs = ((name, str(first.get(name, "-")), str(second.get(name, "-"))) for name in names)
    return tuple(Difference(name, a, b) for name, a, b in pairs if a != b)


def overall(comparison: Comparison) -> Verdict:
    """DIFFERS where any metric does, INCONCLUSIVE where any is undecided, REPRODUCED where all are."""
    verdicts = {m.decision.verdict for cell in comparison.cells for m in cell.metrics if m.decision is not None}
    if Verdict.differs in verdicts:
        return Verdict.differs
    return Verdict.reproduced if verdicts == {Verdict.reproduced} else Verdict.inconclusive


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None
    return value
