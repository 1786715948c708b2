"""Comparisons as one page, of the same parts as a report: what differs, how far, and whether that matters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from meltrepro.replay.compare import CellComparison, Comparison, MetricComparison, ScoreComparison
from meltrepro.replay.show import doubts, sameness, score_in_words, session_in_words, tokens_in_words, why
from meltrepro.report.figures import forest
from meltrepro.report.figures.forest import Forest, Mark, Panel, Row
from meltrepro.report.figures.svg import drawn
from meltrepro.report.page import Page, render_page
from meltrepro.report.values import Column, Figure, Median, Section, Table, Value, Word, named, number
from meltrepro.stats.equivalence import ReplayVerdict

_TONES: dict[ReplayVerdict, Literal["good", "bad", "none"]] = {
    ReplayVerdict.reproduced: "good",
    ReplayVerdict.differs: "bad",
    ReplayVerdict.inconclusive: "none",
}
_CLASSES = {ReplayVerdict.reproduced: "measured", ReplayVerdict.differs: "failed", ReplayVerdict.inconclusive: "open"}
_LEAD = (
    "Ratios are second over first, of the 20 % trimmed means of the logarithms of the repetitions, with the interval that the"
    " verdict rests on. Metrics without a verdict follow from the others, or are counts."
)


def html(comparisons: Sequence[Comparison]) -> str:
    """One page without anything from outside; every value is escaped."""
    numbered = list(enumerate(comparisons, 1))
    verdicts = [verdict for each in comparisons for cell in each.cells for verdict in _verdicts(cell)]
    return render_page(
        Page(
            over="meltrepro comparison",
            title=" / ".join(dict.fromkeys(id for each in comparisons for id in (each.first, each.second))),
            facts=tuple(
                (_CLASSES[verdict], n, verdict.value) for verdict in ReplayVerdict if (n := verdicts.count(verdict))
            ),
            lead=_LEAD,
            sections=tuple(
                part for number, each in numbered for part in _sections(each, f"{number}-" if len(numbered) > 1 else "")
            ),
        )
    )


def _verdicts(cell: CellComparison) -> Iterator[ReplayVerdict]:
    yield from (metric.decision.verdict for metric in cell.metrics if metric.decision is not None)
    yield from (score.verdict for score in cell.scores)


def _sections(comparison: Comparison, prefix: str) -> Iterator[Section]:
    lonely = [
        (name, side)
        for side, names in (("first", comparison.only_first), ("second", comparison.only_second))
        for name in names
    ]
    alone = Table(f"{prefix}alone", "Cells of one side alone", named("cell", "side"), tuple(lonely)) if lonely else None
    yield Section(
        f"{prefix}ratios",
        f"{comparison.first} and {comparison.second}" if prefix else "Ratios",
        f"{sameness(comparison)}.",
        (_ratios(comparison, prefix),),
        (alone,) if alone else (),
    )
    for position, cell in enumerate(comparison.cells, 1):
        yield _section(cell, f"{prefix}{position}")


def _ratios(comparison: Comparison, prefix: str) -> Figure:
    """Every ratio with its interval, cell by cell."""
    name, title = f"{prefix}ratio", "Second over first"
    margin = comparison.margin
    caption = f"Dashed: 1, and the ratios from {1 / (1 + margin):.3f} to {1 + margin:.3f} that count as the same. A line is an interval; without one there is none yet."
    decided = {metric.decision.verdict for cell in comparison.cells for metric in cell.metrics if metric.decision}
    series = tuple(verdict.value for verdict in ReplayVerdict if verdict in decided)
    panels = []
    for cell in comparison.cells:
        rows = tuple(
            Row(metric.metric, (mark,)) for metric in cell.metrics if (mark := _mark(metric, series)) is not None
        )
        if rows:
            panels.append(Panel(cell.cell, rows))
    if not panels:
        return Figure(name, title, caption, reason="no metric of these cells gets a verdict")
    lines = (1 / (1 + margin), 1.0, 1 + margin)
    plot = Forest(tuple(panels), series, "second / first", log=None, zero=False, lines=lines, spread=False)
    alt = f"Ratios of {sum(len(panel.rows) for panel in panels)} metrics with their intervals; the figures are in the tables of the cells."
    return drawn(name, title, caption, alt, plot, forest.draw)


def _mark(metric: MetricComparison, series: Sequence[str]) -> Mark | None:
    decision = metric.decision
    if decision is None:
        return None
    known = decision.low > 0 and math.isfinite(decision.high)
    low, high = (decision.low, decision.high) if known else (decision.ratio, decision.ratio)
    around = f" ({number(low)} to {number(high)})" if known else ""
    tip = f"{metric.metric}: {number(decision.ratio)}{around}, {decision.verdict}"
    return Mark(series.index(decision.verdict.value), decision.ratio, low, high, tip)


def _section(cell: CellComparison, id: str) -> Section:
    notes = (*doubts(cell), *cell.remarks)
    said = [f"Output: {tokens_in_words(cell)}.", *(f"{remark[0].upper()}{remark[1:]}." for remark in notes)]
    tables = [
        *([_table(f"scores-{id}", "Scores", _SCORES, map(_score, cell.scores))] if cell.scores else ()),
        *([_table(f"metrics-{id}", "Metrics", _METRICS, map(_metric, cell.metrics))] if cell.metrics else ()),
        _differences(cell, id),
    ]
    return Section(f"cell-{id}", cell.cell, " ".join(said), (), tuple(tables))


def _table(name: str, title: str, columns: tuple[Column, ...], rows: Iterator[tuple[Value, ...]]) -> Table:
    return Table(name, title, columns, tuple(rows))


_METRICS = (
    *(Column("metric", "metric"), Column("unit", "unit"), Column("first", "first", "number")),
    *(
        Column("second", "second", "number"),
        Column("ratio", "second / first", "estimate"),
        Column("verdict", "verdict"),
    ),
    Column("why", "why", "prose"),
)
_SCORES = (
    *(Column("score", "score"), Column("first", "first", "number"), Column("second", "second", "number")),
    *(Column("verdict", "verdict"), Column("apart", "right answers and distance", "prose")),
)


def _metric(metric: MetricComparison) -> tuple[Value, ...]:
    decision = metric.decision
    values = (metric.metric, "" if metric.unit == "1" else metric.unit, metric.first, metric.second)
    if decision is None:
        return (*values, None, None, None)
    ratio: Value = decision.ratio
    if decision.look and math.isfinite(decision.high):
        ratio = Median(decision.ratio, decision.low, decision.high, decision.n_replayed)
    against = [] if metric.control is None else [f"against the control's {number(metric.control)} {metric.unit}"]
    said = [*against, why(metric), session_in_words(metric)]
    return (*values, ratio, _word(decision.verdict), "; ".join(filter(None, said)))


def _score(score: ScoreComparison) -> tuple[Value, ...]:
    return (
        score.name,
        score.first.value,
        score.second.value,
        _word(score.verdict),
        score_in_words(score, verdict=False),
    )


def _word(verdict: ReplayVerdict) -> Word:
    return Word(verdict.value, _TONES[verdict])


def _differences(cell: CellComparison, id: str) -> Table:
    columns = (*named("kind", "name"), Column("first", "first", "prose"), Column("second", "second", "prose"))
    rows = tuple(
        (kind, each.name, each.first, each.second)
        for kind, found in (("parameter", cell.params), ("identity", cell.identities), ("context", cell.context))
        for each in found
    )
    none = None if rows else "parameters, identities and surroundings are the same"
    return Table(f"differences-{id}", "What differs", columns, rows, reason=none, gap="NOTHING")
