"""A comparison as text and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator

from meltrepro.build.render import render_text
from meltrepro.replay.compare import CellComparison, Comparison, MetricComparison


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
    return f"{decision.verdict} ratio {decision.ratio:.3f} [{decision.low:.3f}, {decision.high:.3f}]{more}"


def number(value: float) -> str:
    """A figure with four significant digits, or thousands in full."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ c.first }} / {{ c.second }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color-scheme: light dark }
table { border-collapse: collapse; margin: .5rem 0 1rem; width: 100% }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #8886; overflow-wrap: anywhere }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.REPRODUCED { color: #1b7f4d } .DIFFERS { color: #c0392b } .INCONCLUSIVE { color: #8a6d00 }
</style></head><body>
<h1>Comparison</h1>
<p>first: <code>{{ c.first }}</code><br>second: <code>{{ c.second }}</code></p>
{% for cell in c.cells %}
<h2>{{ cell.cell }}</h2>
<p>Output: {{ words(cell) }}.</p>
<table><thead><tr><th>metric</th><th>first</th><th>second</th><th>unit</th><th>verdict</th><th>ratio</th><th>interval</th></tr></thead><tbody>
{% for m in cell.metrics %}
<tr><td>{{ m.metric }}</td><td class="n">{{ number(m.first) }}</td><td class="n">{{ number(m.second) }}</td><td>{{ m.unit }}</td>
{% if m.decision %}<td class="{{ m.decision.verdict }}" title="{{ m.decision.reason }}">{{ m.decision.verdict }}</td><td class="n">{{ "%.3f"|format(m.decision.ratio) }}</td>
<td>{{ "%.3f"|format(m.decision.low) }} to {{ "%.3f"|format(m.decision.high) }}</td>{% else %}<td></td><td></td><td></td>{% endif %}</tr>
{% endfor %}</tbody></table>
{% set rows = cell.params + cell.identities + cell.context %}
{% if rows %}<table><thead><tr><th>what differs</th><th>first</th><th>second</th></tr></thead><tbody>
{% for d in rows %}<tr><td>{{ d.name }}</td><td>{{ d.first }}</td><td>{{ d.second }}</td></tr>{% endfor %}</tbody></table>{% endif %}
{% endfor %}
{% for name in c.only_first %}<p>Only in the first: {{ name }}</p>{% endfor %}
{% for name in c.only_second %}<p>Only in the second: {{ name }}</p>{% endfor %}
</body></html>
"""


def html(comparison: Comparison) -> str:
    """One page without anything from outside; every value is escaped."""
    return render_text(
        _PAGE, {"c": comparison, "words": tokens_in_words, "number": number}, name="comparison page", escape=True
    )
