"""Speed by engine and by the bits that a weight really takes."""

from __future__ import annotations

from collections.abc import Sequence

from meltrepro.report.cells import software
from meltrepro.report.engines import groups, names
from meltrepro.report.figures import scatter
from meltrepro.report.figures.rows import badge_of
from meltrepro.report.figures.scatter import Dot, Dots, Plot, Scatter
from meltrepro.report.figures.svg import drawn
from meltrepro.report.results import CellResult, Results
from meltrepro.report.tables import engines as tables
from meltrepro.report.values import Figure, number

MOST = 12
"""Panels that are drawn; the table has all cells."""


def speeds(results: Results) -> Figure:
    """Generation and prefill over bits a weight, a colour an engine."""
    name, title = "engines", "Speed by engine and bits a weight"
    caption = (
        "One panel a device, model, workload and phase. Of two points with one name, the one further to the left takes less memory for"
        " the same scheme. Medians over repetitions with their intervals."
    )
    found = groups(results)
    series = names([cell for group in found for cell in group])
    panels = [
        panel
        for group in found
        for phase in ("generation", "prefill")
        if (panel := _panel(results, group, phase, series)) is not None
    ]
    if not panels:
        reason = tables.engines(results).reason or "the records do not say how many weights there are"
        return Figure(name, title, caption, reason=reason)
    alt = f"Speeds of {len(series)} engines over the bits of a weight; the figures are in the table of the same name."
    return drawn(name, title, caption, alt, Scatter(tuple(panels[:MOST]), series), scatter.draw)


def _panel(results: Results, group: Sequence[CellResult], phase: str, series: Sequence[str]) -> Plot | None:
    metric = f"{phase}_tps"
    cells = [cell for cell in group if metric in cell.metrics and cell.bits_per_weight is not None]
    if not cells:
        return None
    dots = tuple(
        Dots(index, tuple(_dot(cell, metric) for cell in cells if software(cell) == engine))
        for index, engine in enumerate(series)
    )
    first = cells[0]
    synthetic = ["synthetic"] if first.synthetic else []
    return Plot(
        f"{results.title(first.device)}, {first.model}, {first.workload}: {phase}",
        *("bits a weight", "tokens per second"),
        dots,
        ", ".join(filter(None, [badge_of(first.device), *synthetic])),
        x_log=True,
        y_zero=True,
        height=220,
        numbered=True,
    )


def _dot(cell: CellResult, metric: str) -> Dot:
    speed, bits = cell.metrics[metric], cell.bits_per_weight or 0.0
    label = cell.quantization + (" (invalid)" if cell.state == "invalid" else "")
    tip = f"{software(cell)}, {label}: {number(speed.median)} tokens/s, {number(bits)} bits a weight"
    return Dot(bits, speed.median, tip, label, y_range=(speed.low, speed.high))
