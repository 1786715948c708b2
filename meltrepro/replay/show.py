"""A comparison as text."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from meltrepro.replay.compare import CellComparison, Comparison, MetricComparison, ScoreComparison
from meltrepro.stats.equivalence import ReplayVerdict
from meltrepro.words import counted

_WIDTH, _INDENT = 100, "      "


def text(comparison: Comparison) -> str:
    """For a terminal or a log; at most 100 columns unless a value is longer."""
    lines = [f"first:  {comparison.first}", f"second: {comparison.second}", sameness(comparison)]
    for cell in comparison.cells:
        lines += ["", cell.cell, *_cell(cell)]
    for side, cells in (("first", comparison.only_first), ("second", comparison.only_second)):
        lines += [f"only in the {side}: {name}" for name in cells]
    return "\n".join(lines) + "\n"


def _cell(cell: CellComparison) -> Iterator[str]:
    for title, differences in (("parameter", cell.params), ("identity", cell.identities), ("context", cell.context)):
        for difference in differences:
            yield f"  {title} {difference.name}: {difference.first} -> {difference.second}"
    for remark in (*doubts(cell), *cell.remarks):
        yield from wrap(remark, _WIDTH, initial_indent="  ", subsequent_indent=_INDENT)
    if cell.tokens is not None:
        yield f"  output: {tokens_in_words(cell)}{', of the same programs and weights' if cell.same_artifacts else ''}"
    for score in cell.scores:
        yield f"  {score.name:22} {number(score.first.value):>10} {number(score.second.value):>10} {score_in_words(score)}"
    width = max((len(metric.metric) for metric in cell.metrics), default=0)
    for metric in cell.metrics:
        unit = "" if metric.unit == "1" else metric.unit
        values = f"{number(metric.first):>13} {number(metric.second):>13}"
        yield f"  {metric.metric:{width}} {values} {unit:8} {verdict_in_words(metric)}".rstrip()
        for more in (why(metric), session_in_words(metric)):
            yield from wrap(more, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)


def doubts(cell: CellComparison) -> tuple[str, ...]:
    """That a side is INVALID as a whole, and why; empty where none is."""
    return (f"INCONCLUSIVE, for its figures are not believed: {'; '.join(cell.invalid)}",) if cell.invalid else ()


def tokens_in_words(cell: CellComparison) -> str:
    """Whether both sides generated the same tokens."""
    tokens = cell.tokens
    if tokens is None:
        return "not compared"
    first = tokens.first_divergence
    if first is None:
        return "the same tokens in " + ("the only turn" if len(tokens.turns) == 1 else f"all {len(tokens.turns)} turns")
    return f"differs from turn {first.turn}, token {first.diverges_at} on; {tokens.share_equal:.1%} of the tokens are equal"


def verdict_in_words(metric: MetricComparison) -> str:
    """Verdict, ratio and interval; empty for a metric without a verdict."""
    decision = metric.decision
    if decision is None:
        return ""
    interval = f" [{decision.low:.3f}, {decision.high:.3f}]" if decision.look else ""
    more = "" if metric.control is None else f"; against the control's {number(metric.control)} {metric.unit}"
    return f"{decision.verdict} ratio {decision.ratio:.3f}{interval}{more}"


def why(metric: MetricComparison) -> str:
    """Why a verdict is INCONCLUSIVE, and how many trials would lead to one; empty of other verdicts."""
    decision = metric.decision
    if decision is None or decision.verdict is not ReplayVerdict.inconclusive:
        return ""
    if metric.needed is None:
        return decision.reason
    return f"{decision.reason}; if they are the same, about {counted(metric.needed, 'repetition')} on each side would show it"


def session_in_words(metric: MetricComparison) -> str:
    """How this session stands to the recorded one; empty without a control."""
    found = metric.session
    if found is None:
        return ""
    said = f"this session is at {found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}] of the recorded one"
    if found.usual is None:
        return said
    usual = f"sessions of this device differ by up to {found.usual:.1%}"
    return f"{said}, which is unusual: {usual}" if found.unusual else f"{said}; {usual}"


def sameness(comparison: Comparison) -> str:
    """Which ratios count as the same, or that there is nothing to compare."""
    if comparison.same:
        return "first and second are the same campaign: every trial of one is the other's"
    margin = comparison.margin
    return f"the same: second / first from {1 / (1 + margin):.3f} to {1 + margin:.3f} (a margin of {margin:.0%})"


def score_in_words(score: ScoreComparison, *, verdict: bool = True) -> str:
    """Verdict, right answers on both sides, and how far apart they are."""
    counts = [f"{each.k} of {each.n}" for each in (score.first, score.second) if each.k is not None]
    apart = [] if score.standard_errors is None else [f"{score.standard_errors:.2g} standard errors apart"]
    return ", ".join([*([str(score.verdict)] if verdict else []), *filter(None, [" and ".join(counts)]), *apart])


def number(value: float) -> str:
    """A figure with four significant digits, or thousands in full."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
