"""A comparison as text and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from meltrepro.build.render import render_text
from meltrepro.replay.compare import CellComparison, Comparison, MetricComparison, ScoreComparison


def text(comparison: Comparison) -> str:
    """For a terminal or a log; at most 100 columns unless a value is longer."""
    lines = [f"first:  {comparison.first}", f"second: {comparison.second}"]
    for cell in comparison.cells:
        lines += ["", cell.cell, *_cell(cell)]
    for side, cells in (("first", comparison.only_first), ("second", comparison.only_second)):
        lines += [f"only in the {side}: {name}" for name in cells]
    return "\n".join(lines) + "\n"


def _cell(cell: CellComparison) -> Iterator[str]:
    for title, differences in (("parameter", cell.params), ("identity", cell.identities), ("context", cell.context)):
        for difference in differences:
            yield f"  {title} {difference.name}: {difference.first} -> {difference.second}"
    if cell.tokens is not None:
        yield f"  output: {tokens_in_words(cell)}"
    for score in cell.scores:
        yield f"  {score.name:22} {number(score.first.value):>10} {number(score.second.value):>10} {score_in_words(score)}"
    for metric in cell.metrics:
        yield f"  {metric.metric:18} {number(metric.first):>10} {number(metric.second):>10} {metric.unit:8} {verdict_in_words(metric)}".rstrip()


def tokens_in_words(cell: CellComparison) -> str:
    """Whether both sides generated the same tokens."""
    tokens = cell.tokens
    if tokens is None:
        return "not compared"
    first = tokens.first_divergence
    if first is None:
        return f"the same tokens in all {len(tokens.turns)} turns"
    return f"differs from turn {first.turn}, token {first.diverges_at} on; {tokens.share_equal:.1%} of the tokens are equal"


def verdict_in_words(metric: MetricComparison) -> str:
    """Verdict, ratio and interval; empty for a metric without a verdict."""
    decision = metric.decision
    if decision is None:
        return ""
    more = f"; {decision.more_needed} more trials needed" if decision.more_needed else ""
    more += "" if metric.control is None else f"; against the control's {number(metric.control)}"
    return f"{decision.verdict} ratio {decision.ratio:.3f} [{decision.low:.3f}, {decision.high:.3f}]{more}"


def score_in_words(score: ScoreComparison) -> str:
    """Verdict, right answers on both sides, and how far apart they are."""
    counts = [f"{each.k} of {each.n}" for each in (score.first, score.second) if each.k is not None]
    apart = [] if score.standard_errors is None else [f"{score.standard_errors:.2g} standard errors apart"]
    return ", ".join([str(score.verdict), *filter(None, [" and ".join(counts)]), *apart])


def number(value: float) -> str:
    """A figure with four significant digits, or thousands in full."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


_PAGE = Path(__file__).with_name("comparison.html.j2")


def html(comparison: Comparison) -> str:
    """One page without anything from outside; every value is escaped."""
    return render_text(
        _PAGE.read_text(encoding="utf-8"),
        {"c": comparison, "words": tokens_in_words, "number": number, "score_words": score_in_words},
        name="comparison page",
        escape=True,
    )
