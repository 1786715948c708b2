"""A history as figures and as one page, of the same parts as a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import Literal

from meltrepro.errors import UsageError
from meltrepro.history.text import doubt, heading, percent
from meltrepro.history.trends import Course, History, Trend, Turning
from meltrepro.report.figures import scatter
from meltrepro.report.figures.alone import alone
from meltrepro.report.figures.scatter import Dot, Dots, Plot, Scatter
from meltrepro.report.figures.svg import MARKERS, drawn
from meltrepro.report.page import Page, render_page
from meltrepro.report.values import Column, Figure, Median, Section, Table, Value, Word, named, number
from meltrepro.stats.summary import INTERVAL

MOST_PANELS = 12
"""Courses that one figure shows; the tables have all."""
_APART = 0.12
"""Between the figures of two campaigns at one place."""
_MOST_NAMES = 9
"""Names of places that an axis has room for."""
_BESIDE = 0.35
"""How far a level is drawn beyond its first and last place."""
_VIRTUAL = "Some devices are virtual. Their figures say nothing of real devices."
_SYNTHETIC = "Some weights are made up. They are fit for speed, memory and size, and never for accuracy."


def figures(history: History) -> list[Figure]:
    """One figure a metric, with a panel a course."""
    metrics = dict.fromkeys(trend.metric for course in history.courses for trend in course.trends)
    return [_figure(history, metric) for metric in metrics]


def history_files(history: History) -> dict[str, bytes]:
    """The page and each of its drawings, by name; the same history gives the same bytes."""
    files = {"history.html": html(history).encode()}
    for figure in figures(history):
        if (drawing := alone(figure)) is not None:
            files[f"{figure.name}.svg"] = drawing
    return files


def drawing(history: History) -> bytes:
    """The figure of the first metric alone, as an SVG file; raises `UsageError` where there are several."""
    found = figures(history)
    if len(found) > 1:
        raise UsageError(
            f"a drawing is of one metric, and there are {len(found)}",
            hint=f"name one: --metric {found[0].name[8:].replace('-', '_')}",
        )
    return alone(found[0]) or b""


def html(history: History) -> str:
    """One page without anything from outside; every value is escaped."""
    trends = [trend for course in history.courses for trend in course.trends]
    changes = [change for trend in trends for change in trend.changes]
    counts = [
        (name, sum(change.better is good for change in changes))
        for name, good in (("better", True), ("worse", False), ("neither", None))
    ]
    classes = {"better": "measured", "worse": "failed", "neither": "open"}
    marked = (
        ("virtual", any(course.virtual for course in history.courses), _VIRTUAL),
        ("synthetic", any(course.synthetic for course in history.courses), _SYNTHETIC),
    )
    return render_page(
        Page(
            over="meltrepro history",
            title=f"History by {history.by}: {heading(history)}",
            facts=tuple((classes[name], count, name) for name, count in counts if count),
            lead=f"{doubt(history)} Beside a median stands the {INTERVAL}.",
            sections=tuple(_sections(history)),
            warnings=tuple((tag, said) for tag, holds, said in marked if holds),
        )
    )


def _sections(history: History) -> Iterator[Section]:
    rows = tuple(
        (course.name, trend.metric, *_change(change))
        for course in history.courses
        for trend in course.trends
        for change in trend.changes
    )
    columns = (
        *(Column("cell", "cell", "prose"), *named("metric", "before", "after", "change", "low", "high")),
        Column("remark", "remark", "prose"),
    )
    none = None if rows else "no level changes by more than repetitions and campaigns vary"
    changes = Table("changes", "Changes", columns, rows, reason=none, gap="NONE")
    yield Section(
        "trends", "Trends", "Every metric along the axis, with what changed.", tuple(figures(history)), (changes,)
    )
    for number_, course in enumerate(history.courses, 1):
        lead = " ".join(f"{remark[0].upper()}{remark[1:]}." for remark in course.remarks)
        tables = tuple(_values(history, trend, f"course-{number_}-{trend.metric}") for trend in course.trends)
        yield Section(f"course-{number_}", course.name, lead or "Medians of every campaign.", (), tables)
    origin = [
        Table("campaigns", "Campaigns", named("number", "campaign"), tuple(enumerate(history.campaigns, 1))),
    ]
    if history.left_out:
        left = (Column("cell", "cell", "prose"), Column("why", "why", "prose"))
        origin.append(Table("left-out", "What has no place here", left, tuple(history.left_out.items())))
    yield Section("campaigns", "Campaigns", "Where the figures come from.", (), tuple(origin))


def _change(change: Turning) -> tuple[Value, ...]:
    tones: dict[bool | None, Literal["good", "bad", "none"]] = {True: "good", False: "bad", None: "none"}
    remark = "no campaign measured both sides" if change.border else None
    size = Word(percent(change.ratio), tones[change.better])
    return change.before, change.after, size, percent(change.low), percent(change.high), remark


def _values(history: History, trend: Trend, name: str) -> Table:
    unit = "" if trend.unit == "1" else f" ({trend.unit})"
    columns = (
        Column("at", history.by),
        Column("median", f"{trend.metric}{unit}", "estimate"),
        *named("campaign", "commit"),
    )
    rows = tuple(
        (
            each.at,
            Median(each.summary.median, each.summary.low, each.summary.high, each.summary.n),
            str(history.campaigns.index(each.campaign) + 1),
            each.commit[:12],
        )
        for each in trend.reached
    )
    notes = (f"Changes were not looked for: {trend.unjudged}.",) if trend.unjudged else ()
    return Table(name, trend.metric, columns, rows, notes, folded=True)


def _figure(history: History, metric: str) -> Figure:
    """One metric along the axis: a marker for each campaign, so that one sees where another begins."""
    found = [(course, trend) for course in history.courses for trend in course.trends if trend.metric == metric]
    shown = found[:MOST_PANELS]
    name, title = f"history-{metric}".replace("_", "-"), f"{metric} by {history.by}"
    campaigns = [id for id in history.campaigns if any(e.campaign == id for _, t in shown for e in t.reached)]
    apart = len(campaigns) <= len(MARKERS)
    series = tuple(f"campaign {history.campaigns.index(id) + 1}" for id in campaigns) if apart else ("medians",)
    caption = (
        f"A marker is a median with its interval{', of another form for each campaign' if apart else ''}. A line is the level between "
        "changes. Upright lines stand where another campaign begins: what differs there may be the day's."
    )
    if len(found) > len(shown):
        caption += f" The first {MOST_PANELS} of {len(found)} cells; the tables have all."
    plots = tuple(_plot(history, course, trend, campaigns if apart else None) for course, trend in shown)
    alt = f"{metric} of {len(shown)} cells at {len(history.axis)} places; the figures are in the tables of the cells."
    return drawn(name, title, caption, alt, Scatter(plots, series, lines=False), scatter.draw)


def _plot(history: History, course: Course, trend: Trend, campaigns: Sequence[str] | None) -> Plot:
    dots: dict[int, list[Dot]] = {}
    beside = Counter(each.place for each in trend.reached)
    drawn_at: Counter[int] = Counter()
    for each in trend.reached:
        summary = each.summary
        at = each.place + _APART * (drawn_at[each.place] - (beside[each.place] - 1) / 2)
        drawn_at[each.place] += 1
        series = campaigns.index(each.campaign) if campaigns is not None else 0
        tip = f"{each.at}: {number(summary.median)} {trend.unit}, n = {summary.n}, {each.campaign}"
        dots.setdefault(series, []).append(Dot(at, summary.median, tip, y_range=(summary.low, summary.high)))
    places = sorted({each.place for each in trend.reached})
    step = max(1, math.ceil(len(places) / _MOST_NAMES))
    names = tuple((place, history.axis[place]) for place in places[::step])
    return Plot(
        title=course.name,
        x_axis=history.by,
        y_axis=trend.metric if trend.unit == "1" else f"{trend.metric}, {trend.unit}",
        series=tuple(Dots(key, tuple(found)) for key, found in sorted(dots.items())),
        badge="virtual device" if course.virtual else "",
        names=names,
        uprights=tuple(_borders(trend)),
        levels=tuple(_levels(history, trend)),
    )


def _levels(history: History, trend: Trend) -> Iterator[tuple[float, float, float]]:
    """The level of each stretch between two changes, the median of its medians: from where, to where, how high."""
    if trend.unjudged is not None:
        return
    for begin, end in pairwise((0, *(history.axis.index(change.after) for change in trend.changes), len(history.axis))):
        inside = [each for each in trend.reached if begin <= each.place < end]
        level = median(each.summary.median for each in inside)
        yield inside[0].place - _BESIDE, inside[-1].place + _BESIDE, level


def _borders(trend: Trend) -> Iterator[float]:
    """Between which places another campaign begins."""
    by_place: dict[int, set[str]] = {}
    for each in trend.reached:
        by_place.setdefault(each.place, set()).add(each.campaign)
    for before, after in pairwise(sorted(by_place)):
        if not by_place[before] & by_place[after]:
            yield (before + after) / 2
