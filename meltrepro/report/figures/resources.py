"""Figures of memory, energy and power modes."""

from __future__ import annotations

from collections.abc import Sequence

from meltrepro.report.cells import (
    by_device,
    labelled,
    line_names,
    ordered,
    software,
    unless_named,
    weights,
    why_none,
)
from meltrepro.report.derive import MEMORY_LIMIT, MemoryUse, memory_use
from meltrepro.report.figures import forest, scatter
from meltrepro.report.figures.speed import Interval, badge_of, rows_by_device, series_name
from meltrepro.report.figures.svg import drawn
from meltrepro.report.results import CellResult, Results, budget_w
from meltrepro.report.tables.measurements import J_PER_MWH, has_power_mode, power_modes
from meltrepro.report.values import Figure, number

_LIMIT = (
    f"{MEMORY_LIMIT} is a bound of this project: {MEMORY_LIMIT - 1:.0%} of room for the program, its tokenizer and the"
    " buffers of a computation. A mark beyond it is a run that holds something twice, or a model so small that these weigh more."
)
_PHASES = (("prefill", "energy_per_prompt_token_j"), ("generation", "energy_per_token_j"))


def memory(results: Results) -> Figure:
    """Peak memory over what must be held."""
    name, title = "memory", "Peak memory against size"
    caption = (
        f"Expected is the model file and the KV cache of the whole context. Dashed: exactly that (1 x), and {MEMORY_LIMIT} times as"
        f" much. {_LIMIT}"
    )
    found = [(cell, use) for cell in ordered(results.measured) if (use := memory_use(cell)) is not None]
    if not found:
        return Figure(name, title, caption, reason=why_none(results, "peak_memory_bytes"))
    series = tuple(dict.fromkeys(series_name(results, cell) for cell, _ in found))
    panels = []
    for virtual in (False, True):
        group = [(cell, use) for cell, use in found if cell.device.virtual is virtual]
        if group:
            panels.append(
                scatter.Panel(
                    "Virtual devices" if virtual else "Real devices",
                    "model file and KV cache, GB",
                    "peak memory, GB",
                    tuple(_peaks(results, group, index, one) for index, one in enumerate(series)),
                    "virtual" if virtual else "",
                    tuple(scatter.Rule(f"{slope} x", slope=slope, near=True) for slope in (1, MEMORY_LIMIT)),
                    x_log=True,
                    y_log=True,
                    once="panel",
                    height=260,
                )
            )
    alt = f"Peak memory over expected memory of {len(found)} cells; the figures are in the table Memory."
    return drawn(name, title, caption, alt, scatter.Scatter(tuple(panels), series), scatter.draw)


def _peaks(results: Results, group: Sequence[tuple[CellResult, MemoryUse]], index: int, name: str) -> scatter.Series:
    points = []
    for cell, use in group:
        if series_name(results, cell) == name:
            tip = f"{weights(cell)}, {name}: {number(use.peak / 1e9)} GB of {number(use.expected / 1e9)} GB expected"
            around = (use.low / 1e9, use.high / 1e9)
            points.append(scatter.Point(use.expected / 1e9, use.peak / 1e9, tip, cell.model, y_range=around))
    return scatter.Series(index, tuple(points))


def memory_ratio(results: Results) -> Figure:
    """How many times more than expected, cell by cell."""
    name, title = "memory-ratio", "Peak memory over model file and KV cache"
    caption = f"Dashed: 1, which is all that must be held, and a bound. {_LIMIT}" + unless_named(results)
    found = [cell for cell in ordered(results.measured) if memory_use(cell) is not None]
    if not found:
        return Figure(name, title, caption, reason=why_none(results, "peak_memory_bytes"))
    series = tuple(dict.fromkeys(software(cell) for cell in found))
    panels = rows_by_device(results, found, series, _ratio)
    plot = forest.Forest(
        panels,
        series,
        "peak memory / (model file + KV cache)",
        False,
        False,
        (1.0, MEMORY_LIMIT),
        shared=True,
    )
    alt = f"Ratio of peak to expected memory of {len(found)} cells; the figures are in the table Memory."
    return drawn(name, title, caption, alt, plot, forest.draw)


def _ratio(cell: CellResult) -> Interval | None:
    use = memory_use(cell)
    if use is None:
        return None
    return use.ratio, use.low / use.expected, use.high / use.expected, number(use.ratio)


def energy(results: Results) -> Figure:
    """Energy per token of both phases, one panel a device."""
    name, title = "energy", "Energy per token"
    caption = (
        "Median over repetitions with its interval. Prefill: energy of reading one token of a prompt; generation: of writing one"
        " token. Every device has its own axis; joules below, milliwatt-hours above."
    )
    cells = [cell for cell in results.measured if any(metric in cell.metrics for _, metric in _PHASES)]
    if not cells:
        return Figure(name, title, caption, reason=why_none(results, "energy_per_token_j"))
    caption += unless_named(results)
    programs = len({software(cell) for cell in cells}) > 1
    panels = []
    for device, group in by_device(cells):
        names = labelled(results, group)
        rows = []
        for position, cell in enumerate(group):
            label = names[position][0] + (f" · {software(cell)}" if programs else "")
            marks = tuple(
                forest.Mark(i, s.median, s.low, s.high, f"{label}, {phase}: {number(s.median)} J/token, n = {s.n}")
                for i, (phase, metric) in enumerate(_PHASES)
                if (s := cell.metrics.get(metric)) is not None
            )
            rows.append(forest.Row(label, marks, names[position][1], cell.model))
        panels.append(forest.Panel(results.title(device), tuple(rows), badge_of(device)))
    plot = forest.Forest(
        tuple(panels), tuple(phase for phase, _ in _PHASES), "joules per token", top=(1 / J_PER_MWH, "mWh")
    )
    alt = f"Energy per token of {len(cells)} cells on {len(panels)} devices; the figures are in the table of the same name."
    return drawn(name, title, caption, alt, plot, forest.draw)


def power(results: Results) -> Figure:
    """Speed and energy over the power modes of a board."""
    name, title = "power-modes", "Power modes"
    caption = "Modes from the smallest budget to the largest. Median over repetitions with its interval."
    cells = [cell for cell in results.measured if has_power_mode(cell)]
    if not cells:
        return Figure(name, title, caption, reason=power_modes(results).reason)
    caption += unless_named(results)
    cells = ordered(cells)
    names = line_names(results, cells)
    series = tuple(dict.fromkeys(names))
    boards: dict[tuple[bool, str, str], list[tuple[str, CellResult]]] = {}
    for name_of, cell in zip(names, cells, strict=True):
        device = cell.device
        boards.setdefault((device.virtual, device.name, device.id or device.model), []).append((name_of, cell))
    panels = []
    for (virtual, board, _), group in sorted(boards.items(), key=lambda item: item[0]):
        modes = sorted({cell.device.power_mode or "" for _, cell in group}, key=lambda mode: (budget_w(mode), mode))
        for metric, axis in (("generation_tps", "tokens per second"), ("energy_per_token_j", "joules per token")):
            having = [(one, cell) for one, cell in group if metric in cell.metrics]
            if having:
                heading = f"{board}: {'speed' if metric == 'generation_tps' else 'energy'} of generation"
                panels.append(
                    scatter.Panel(
                        heading,
                        "power mode",
                        axis,
                        _by_mode(having, metric, modes, series),
                        "virtual device" if virtual else "",
                        y_zero=True,
                        height=180,
                        names=tuple((float(i), mode) for i, mode in enumerate(modes)),
                    )
                )
    alt = f"Speed and energy of {len(cells)} cells by power mode; the figures are in the table of the same name."
    plot = scatter.Scatter(tuple(panels), series, lines=True)
    return drawn(name, title, caption, alt, plot, scatter.draw)


def _by_mode(
    cells: Sequence[tuple[str, CellResult]], metric: str, modes: Sequence[str], series: Sequence[str]
) -> tuple[scatter.Series, ...]:
    found = []
    for index, one in enumerate(series):
        own = sorted((c for name, c in cells if name == one), key=lambda c: modes.index(c.device.power_mode or ""))
        points = tuple(
            scatter.Point(
                float(modes.index(cell.device.power_mode or "")),
                (s := cell.metrics[metric]).median,
                f"{one}, {cell.device.power_mode}: {number(s.median)}, n = {s.n}",
                y_range=(s.low, s.high),
            )
            for cell in own
        )
        found.append(scatter.Series(index, points, line=True))
    return tuple(found)
