"""A history as text."""

from __future__ import annotations

from collections.abc import Iterator

from meltrepro.history.trends import History, Trend, Turning
from meltrepro.report.values import number
from meltrepro.stats.summary import TO_JUDGE, TOO_FEW
from meltrepro.words import counted


def text(history: History) -> str:
    """For a terminal or a log."""
    lines = [heading(history) + ":", *(f"  {place}  {id}" for place, id in enumerate(history.campaigns, 1))]
    for course in history.courses:
        tags = [name for name, holds in (("virtual", course.virtual), ("synthetic", course.synthetic)) if holds]
        lines += ["", f"{course.name}{' [' + ', '.join(tags) + ']' if tags else ''}"]
        lines += [f"  {remark}" for remark in course.remarks]
        for trend in course.trends:
            lines += _trend(history, trend)
    lines += ["", f"{doubt(history)}"]
    if history.left_out:
        lines += ["", "left out:", *(f"  {cell}: {reason}" for cell, reason in history.left_out.items())]
    return "\n".join(lines) + "\n"


def heading(history: History) -> str:
    """What it is of."""
    campaigns = counted(len(history.campaigns), "campaign")
    return campaigns if history.by == "date" else f"{counted(len(history.axis), 'release')} in {campaigns}"


def doubt(history: History) -> str:
    """How much the changes may be believed."""
    looked = f"Changes were looked for in {counted(history.judged, 'trend')}; of those without any, at most 5 % show one by chance."
    trends = [trend for course in history.courses for trend in course.trends]
    if all(trend.calibrated for trend in trends):
        return f"{looked} How much medians of two campaigns differ where nothing changed was calibrated."
    return (
        f"{looked} Medians of two campaigns are taken to differ by {history.session_cv:.1%} where nothing changed (replay.session_cv), "
        "for a device that was not calibrated (meltrepro calibrate)."
    )


def percent(ratio: float) -> str:
    """`-5.1 %`; a factor where it is large."""
    return f"{100 * (ratio - 1):+.1f} %" if 0.1 < ratio < 3 else f"x {number(ratio)}"


def in_words(change: Turning) -> str:
    """Where and how far."""
    good = {True: ", better", False: ", worse", None: ""}[change.better]
    border = "; no campaign measured both sides, so that it may be another cause" if change.border else ""
    size = f"{percent(change.ratio)} ({percent(change.low)} to {percent(change.high)})"
    return f"from {change.before} to {change.after}: {size}{good}{border}"


def _trend(history: History, trend: Trend) -> Iterator[str]:
    sessions = f"; calibrated: sessions differ by {trend.session_cv:.1%}" if trend.calibrated else ""
    yield f"  {trend.metric}{'' if trend.unit == '1' else f' ({trend.unit})'}{sessions}"
    width = max(len(each.at) for each in trend.reached)
    behind = {change.after: change for change in trend.changes}
    for each in trend.reached:
        if each.at in behind:
            yield f"    -- change {in_words(behind.pop(each.at))}"
        summary = each.summary
        around = f"{number(summary.low)} to {number(summary.high)}" if summary.n > 1 else ""
        few = f" ({TOO_FEW})" if summary.n < TO_JUDGE else ""
        campaign = history.campaigns.index(each.campaign) + 1
        yield f"    {each.at:{width}} {number(summary.median):>12}  {around:24} n {summary.n}{few}  campaign {campaign}"
    if trend.unjudged:
        yield f"    changes were not looked for: {trend.unjudged}"
    elif not trend.changes:
        yield "    no change"
