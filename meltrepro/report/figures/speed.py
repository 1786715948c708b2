"""Figures of speed: throughput, phases, sustained load, drift."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meltrepro.report.cells import (
    by_device,
    labelled,
    line_names,
    none_since,
    ordered,
    software,
    unless_named,
    weights,
    why_none,
)
from meltrepro.report.derive import Drift, Sustained, drifts, sustained
from meltrepro.report.figures import forest, scatter
from meltrepro.report.figures.svg import drawn
from meltrepro.report.results import CellResult, Device, Results
from meltrepro.report.values import Figure, number

Interval = tuple[float, float, float, str]
"""Middle, low, high, and the same in words."""
_RATIOS = (1, 3, 10, 30)
MOST_LINES = 6
"""Curves that one panel can hold without becoming a tangle."""


def throughput(results: Results, phase: str) -> Figure:
    """One row a cell, one panel a device."""
    metric, name = f"{phase}_tps", f"throughput-{phase}"
    title = "Speed of writing answers (generation)" if phase == "generation" else "Speed of reading prompts (prefill)"
    caption = (
        "Median over repetitions; the line is its 95 % interval, or the smallest and the largest of fewer than five"
        " repetitions. Every device has its own axis, logarithmic where its figures are far apart."
    )
    cells = [cell for cell in results.measured if metric in cell.metrics]
    if not cells:
        return Figure(name, title, caption, reason=why_none(results, metric))
    series = tuple(dict.fromkeys(software(cell) for cell in ordered(cells)))
    caption += unless_named(results)

    def interval(cell: CellResult) -> Interval:
        s = cell.metrics[metric]
        said = f"{number(s.median)} tokens/s ({number(s.low)} to {number(s.high)}, n = {s.n})"
        return s.median, s.low, s.high, said

    panels = rows_by_device(results, cells, series, interval)
    plot = forest.Forest(panels, series, "tokens per second")
    alt = f"{title}, tokens per second, for {len(cells)} cells on {len(panels)} devices; the figures are in the table Throughput."
    return drawn(name, title, caption, alt, plot, forest.draw)


def rows_by_device(
    results: Results,
    cells: Sequence[CellResult],
    series: Sequence[str],
    interval: Callable[[CellResult], Interval | None],
) -> tuple[forest.Panel, ...]:
    """A panel per device, a row per model and quantization, a marker per release, for cells whose interval is known."""
    panels = []
    for device, group in by_device(cells):
        names = labelled(results, group)
        rows: dict[tuple[str, str], tuple[str, list[forest.Mark]]] = {}
        for position, cell in enumerate(group):
            known = interval(cell)
            if known is None:
                continue
            middle, low, high, said = known
            tip = f"{names[position][0]}, {software(cell)}: {said}"
            mark = forest.Mark(series.index(software(cell)), middle, low, high, tip)
            rows.setdefault(names[position], (cell.model, []))[1].append(mark)
        lines = (forest.Row(label, tuple(marks), remark, model) for (label, remark), (model, marks) in rows.items())
        panels.append(forest.Panel(results.title(device), tuple(lines), badge_of(device)))
    return tuple(panels)


def badge_of(device: Device) -> str:
    """What a panel must say of its device."""
    return "virtual device" if device.virtual else ""


def phases(results: Results) -> Figure:
    """Prefill over generation, both logarithmic, with lines of equal ratio."""
    name, title = "phases", "Prefill against generation"
    caption = (
        "On a dashed line, reading is so many times faster than writing. Real and virtual devices"
        " have panels of their own."
    )
    cells = [cell for cell in results.measured if {"prefill_tps", "generation_tps"} <= set(cell.metrics)]
    cells = [
        cell for cell in cells if cell.metrics["generation_tps"].median > 0 and cell.metrics["prefill_tps"].median > 0
    ]
    if not cells:
        return Figure(name, title, caption, reason=why_none(results, "prefill_tps"))
    series = tuple(dict.fromkeys(series_name(results, cell) for cell in ordered(cells)))
    panels = []
    for virtual in (False, True):
        group = [cell for cell in ordered(cells) if cell.device.virtual is virtual]
        if group:
            panels.append(
                scatter.Panel(
                    "Virtual devices" if virtual else "Real devices",
                    "generation, tokens per second",
                    "prefill, tokens per second",
                    tuple(
                        scatter.Series(
                            i, _phase_points(results, [cell for cell in group if series_name(results, cell) == one])
                        )
                        for i, one in enumerate(series)
                    ),
                    badge="virtual" if virtual else "",
                    rules=_ratio_rules(group),
                    x_log=True,
                    y_log=True,
                    once="series",
                    height=300,
                )
            )
    alt = f"Prefill speed over generation speed of {len(cells)} cells; the figures are in the table of the same name."
    return drawn(name, title, caption, alt, scatter.Scatter(tuple(panels), series), scatter.draw)


def _ratio_rules(cells: Sequence[CellResult]) -> tuple[scatter.Rule, ...]:
    """Lines of equal ratio; those around the cells are to be seen in any case."""
    ratios = [cell.metrics["prefill_tps"].median / cell.metrics["generation_tps"].median for cell in cells]
    low = max((times for times in _RATIOS if times <= min(ratios)), default=_RATIOS[0])
    high = min((times for times in _RATIOS if times >= max(ratios)), default=_RATIOS[-1])
    return tuple(scatter.Rule(f"{times} x", slope=times, near=low <= times <= high) for times in _RATIOS)


def series_name(results: Results, cell: CellResult) -> str:
    """Device and software, and whether the device is virtual: what one colour stands for."""
    virtual = " (virtual)" if cell.device.virtual else ""
    return f"{results.title(cell.device)}{virtual}, {software(cell)}"


def _phase_points(results: Results, cells: Sequence[CellResult]) -> tuple[scatter.Point, ...]:
    """Points of one series, the fastest first, so that a model's name stands at its fastest."""
    return tuple(
        _phase_point(results, cell) for cell in sorted(cells, key=lambda cell: -cell.metrics["generation_tps"].median)
    )


def _phase_point(results: Results, cell: CellResult) -> scatter.Point:
    x, y = cell.metrics["generation_tps"], cell.metrics["prefill_tps"]
    tip = f"{weights(cell)}, {series_name(results, cell)}: prefill {number(y.median)}, generation {number(x.median)} tokens/s"
    return scatter.Point(x.median, y.median, tip, cell.model, (x.low, x.high), (y.low, y.high))


def sustained_curves(results: Results) -> Figure:
    """Speed over prompts, and the temperature below it."""
    name, title = "sustained", "Sustained load"
    caption = (
        "Above: generation after each prompt, median over repetitions, the band from the smallest to the largest. Below: the"
        " hottest sensor of the device in the first repetition, at the prompt that was being answered then."
    )
    curves = [curve for curve in map(sustained, ordered(results.measured)) if curve is not None]
    if not curves:
        reason = none_since("no cell held one conversation of many prompts without pause", results)
        return Figure(name, title, caption, reason=reason)
    names = dict(zip(map(id, curves), line_names(results, [curve.cell for curve in curves]), strict=True))
    series = tuple(dict.fromkeys(names.values()))
    panels: list[scatter.Panel] = []
    for device, group in by_device([curve.cell for curve in curves]):
        own = [next(curve for curve in curves if curve.cell is cell) for cell in group]
        for start in range(0, len(own), MOST_LINES):
            some = [(names[id(curve)], curve) for curve in own[start : start + MOST_LINES]]
            panels += _sustained_panels(results.title(device), badge_of(device), some, series)
    alt = (
        f"Speed and temperature over the prompts of {len(curves)} cells; the figures are in the table of the same name."
    )
    plot = scatter.Scatter(tuple(panels), series, lines=True)
    return drawn(name, title, caption, alt, plot, scatter.draw)


def _sustained_panels(
    title: str, badge: str, curves: Sequence[tuple[str, Sustained]], series: Sequence[str]
) -> list[scatter.Panel]:
    """A panel of speeds and, where the device has a thermometer, one of temperatures."""
    speeds, heats = [], []
    for name, curve in curves:
        index = series.index(name)
        points = tuple(
            scatter.Point(s.prompt, s.median, f"{name}: prompt {s.prompt}, {number(s.median)} tokens/s")
            for s in curve.speeds
        )
        band = tuple((float(s.prompt), s.low, s.high) for s in curve.speeds)
        speeds.append(scatter.Series(index, points, line=True, markers=False, band=band))
        heat = tuple(
            scatter.Point(at, c, f"{name}: {number(c)} °C at prompt {int(at)}") for at, c in curve.temperatures
        )
        if heat:
            heats.append(scatter.Series(index, heat, line=True, markers=False))
    axis = "prompt"
    panels = [scatter.Panel(title, axis, "tokens per second", tuple(speeds), badge, y_zero=True, height=210)]
    if heats:
        panels.append(scatter.Panel(f"{title}: temperature", axis, "°C", tuple(heats), badge, height=130))
    return panels


def drift(results: Results) -> Figure:
    """Ratio of a newer release to the oldest, phase by phase."""
    name, title = "drift", "Drift: newer releases over the oldest, all else equal"
    caption = (
        "Above one, the newer release is faster. The line is the 95 % interval of the ratio; without one, a side has a"
        " single repetition."
    )
    pairs = drifts(results)
    if not pairs:
        reason = none_since("no model was measured with two releases of one framework on one device", results)
        return Figure(name, title, caption, reason=reason)
    series = tuple(phase for phase in ("prefill", "generation") if any(pair.phase == phase for pair in pairs))
    caption += unless_named(results)
    panels = []
    for device, group in by_device({id(pair.newer): pair.newer for pair in pairs}.values()):
        names = labelled(results, group)
        versus: dict[str, list[forest.Row]] = {}
        for position, cell in enumerate(group):
            own = [pair for pair in pairs if pair.newer is cell]
            marks = tuple(_drift_mark(pair, series.index(pair.phase)) for pair in own)
            row = forest.Row(names[position][0], marks, names[position][1], cell.model)
            versus.setdefault(f"{software(cell)} over {own[0].older.release}", []).append(row)
        for which, rows in versus.items():
            panels.append(forest.Panel(f"{results.title(device)}: {which}", tuple(rows), badge_of(device)))
    plot = forest.Forest(tuple(panels), series, "newer / older", log=True, zero=False, lines=(1.0,), shared=True)
    alt = f"Ratios of {len(pairs)} speeds between releases; the figures are in the table Drift between releases."
    return drawn(name, title, caption, alt, plot, forest.draw)


def _drift_mark(pair: Drift, series: int) -> forest.Mark:
    low, high = pair.low or pair.ratio, pair.high or pair.ratio
    interval = f"{number(low)} to {number(high)}" if pair.low is not None else "no interval"
    tip = f"{weights(pair.newer)}, {pair.phase}: {number(pair.ratio)} ({interval})"
    return forest.Mark(series, pair.ratio, low, high, tip)
