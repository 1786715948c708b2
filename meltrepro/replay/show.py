"""A comparison as text and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap

from meltrepro.build.render import render_text
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
    if cell.tokens is not None:
        yield f"  output: {tokens_in_words(cell)}"
    for score in cell.scores:
        yield f"  {score.name:22} {number(score.first.value):>10} {number(score.second.value):>10} {score_in_words(score)}"
    width = max((len(metric.metric) for metric in cell.metrics), default=0)
    for metric in cell.metrics:
        unit, first, second = scaled(metric)
        yield f"  {metric.metric:{width}} {first:>10} {second:>10} {unit:8} {verdict_in_words(metric)}".rstrip()
        yield from wrap(why(metric), _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)


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


def sameness(comparison: Comparison) -> str:
    """Which ratios count as the same."""
    margin = comparison.margin
    return f"the same: second / first from {1 / (1 + margin):.3f} to {1 + margin:.3f} (a margin of {margin:.0%})"


_BYTES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
_SCALES: Mapping[str, Sequence[tuple[str, float]]] = {
    "bytes": _BYTES,
    "bytes/s": tuple((f"{name}/s", scale) for name, scale in _BYTES),
    "ms": (("s", 1e3), ("ms", 1.0), ("us", 1e-3)),
    "s": (("s", 1.0), ("ms", 1e-3)),
    "J": (("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6)),
    "W": (("W", 1.0), ("mW", 1e-3)),
    "mAh": (("mAh", 1.0), ("uAh", 1e-3)),
    "1": (("", 1.0),),
}
"""Units that figures are shown in, the largest first."""


def scaled(metric: MetricComparison) -> tuple[str, str, str]:
    """Unit and both figures, in the largest unit that leaves the larger of them at 1 or more."""
    scales = _SCALES.get(metric.unit, ((metric.unit, 1.0),))
    largest = max(abs(metric.first), abs(metric.second))
    name, scale = next(((name, scale) for name, scale in scales if largest >= scale), scales[-1])
    if not largest:
        name, scale = next((name, scale) for name, scale in scales if scale == 1.0)
    return name, number(metric.first / scale), number(metric.second / scale)


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
        {
            "c": comparison,
            "words": tokens_in_words,
            "number": number,
            "score_words": score_in_words,
            "sameness": sameness(comparison),
            "scaled": scaled,
            "why": why,
        },
        name="comparison page",
        escape=True,
    )
