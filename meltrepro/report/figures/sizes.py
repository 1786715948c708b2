"""Speed and energy over the number of weights, a colour a release."""

from __future__ import annotations

from collections.abc import Sequence

from meltrepro.report.cells import by_device, software
from meltrepro.report.figures import scatter
from meltrepro.report.figures.rows import badge_of
from meltrepro.report.figures.scatter import Dot, Dots, Plot, Scatter
from meltrepro.report.figures.svg import drawn
from meltrepro.report.results import CellResult, Results
from meltrepro.report.tables import sizes as tables
from meltrepro.report.values import Figure, number

MOST = 12
"""Panels that are drawn; the table has all cells."""
_COSTS = (("generation_tps", "tokens per second"), ("energy_per_token_j", "joules per token"))


def sizes(results: Results) -> Figure:
    """Both axes are logarithmic: where time is that of reading the weights, points of one quantization lie on a line."""
    name, title = "sizes", "Speed and energy by size"
    caption = (
        "One panel a device, workload and quantization, both axes logarithmic. Weights are counted as they are in the file,"
        " also of a mixture of experts. Medians over repetitions with their intervals."
    )
    cells = tables.compared(results)
    series = sorted({software(cell) for cell in cells})
    panels = [
        panel
        for device, found in by_device(cells)
        for key in dict.fromkeys((cell.workload, cell.quantization) for cell in found)
        for metric, axis in _COSTS
        if (
            panel := _panel(
                results, [each for each in found if (each.workload, each.quantization) == key], metric, axis, series
            )
        )
    ]
    if not panels:
        return Figure(
            name, title, caption, reason=tables.sizes(results).reason or "no quantization was measured in two sizes"
        )
    alt = f"Speed and energy of {len(cells)} cells over the number of weights; the figures are in the table of the same name."
    return drawn(name, title, caption, alt, Scatter(tuple(panels[:MOST]), tuple(series)), scatter.draw)


def _panel(results: Results, cells: Sequence[CellResult], metric: str, axis: str, series: Sequence[str]) -> Plot | None:
    cells = [cell for cell in cells if metric in cell.metrics and cell.metrics[metric].median > 0]
    if len({cell.parameters for cell in cells}) < 2:
        return None
    dots = tuple(
        Dots(index, tuple(_dot(cell, metric) for cell in cells if software(cell) == one))
        for index, one in enumerate(series)
    )
    first = cells[0]
    badge = ", ".join(filter(None, [badge_of(first.device), "synthetic" if first.synthetic else ""]))
    title = f"{results.title(first.device)}, {first.quantization}, {first.workload}: generation"
    return Plot(
        *(title, "weights, 1e9", axis, dots, badge),
        x_log=True,
        y_log=True,
        height=240,
        numbered=True,
    )


def _dot(cell: CellResult, metric: str) -> Dot:
    value, size = cell.metrics[metric], (cell.parameters or 0) / 1e9
    label = cell.model + (" (invalid)" if cell.state == "invalid" else "")
    tip = f"{software(cell)}, {label}: {number(value.median)}, {number(size)} 1e9 weights"
    return Dot(size, value.median, tip, label, y_range=(value.low, value.high))
