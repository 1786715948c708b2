"""Figures of memory, energy and power modes."""

from __future__ import annotations

from collections.abc import Sequence

from meltrepro.report.cells import by_device, device_title, labelled, ordered, software, weights, why_none
from meltrepro.report.content import Content
from meltrepro.report.derive import MEMORY_LIMIT, budget_w, memory_use
from meltrepro.report.figures import forest, scatter
from meltrepro.report.figures.figure import Figure
from meltrepro.report.figures.speed import badge_of, series_name
from meltrepro.report.results import CellResult
from meltrepro.report.tables.resources import J_PER_MWH, is_board, power_modes
from meltrepro.report.values import number

_PHASES = (("prefill", "energy_per_prompt_token_j"), ("generation", "energy_per_token_j"))


def memory(content: Content) -> Figure:
    """Peak memory over what must be held, and their ratio."""
    name, title = "memory", "Peak memory against size"
    caption = (
        f"Expected is the model file and the KV cache of the whole context. Dashed: exactly that, and {MEMORY_LIMIT} times as"
        " much, which a run should not exceed."
    )
    found = [(cell, use) for cell in ordered(content.measured) if (use := memory_use(cell)) is not None]
    if not found:
        return Figure(name, title, caption, reason=why_none(content, "peak_memory_bytes"))
    series = tuple(dict.fromkeys(series_name(cell) for cell, _ in found))
    panels = []
    for virtual in (False, True):
        group = [(cell, use) for cell, use in found if cell.device.virtual is virtual]
        if not group:
            continue
        peaks: list[scatter.Series] = []
        ratios: list[scatter.Series] = []
        for index, one in enumerate(series):
            own = [(cell, use) for cell, use in group if series_name(cell) == one]
            tips = [
                f"{weights(cell)}: {number(use.peak / 1e9)} GB of {number(use.expected / 1e9)} GB, {number(use.ratio)}"
                for cell, use in own
            ]
            peaks.append(
                scatter.Series(
                    index,
                    tuple(
                        scatter.Point(use.expected / 1e9, use.peak / 1e9, tip, y_range=(use.low / 1e9, use.high / 1e9))
                        for (_, use), tip in zip(own, tips, strict=True)
                    ),
                )
            )
            ratios.append(
                scatter.Series(
                    index,
                    tuple(
                        scatter.Point(
                            use.expected / 1e9,
                            use.ratio,
                            tip,
                            weights(cell),
                            y_range=(use.low / use.expected, use.high / use.expected),
                        )
                        for (cell, use), tip in zip(own, tips, strict=True)
                    ),
                )
            )
        heading, badge = ("Virtual devices", "virtual") if virtual else ("Real devices", "")
        axis = "model file and KV cache, GB"
        slopes = tuple(scatter.Rule(f"{slope} x", slope=slope) for slope in (1, MEMORY_LIMIT))
        limits = tuple(scatter.Rule(f"{limit}", constant=limit) for limit in (1, MEMORY_LIMIT))
        panels += [
            scatter.Panel(
                heading, axis, "peak memory, GB", tuple(peaks), badge, slopes, x_log=None, y_log=None, height=230
            ),
            scatter.Panel(
                f"{heading}: ratio", axis, "peak / expected", tuple(ratios), badge, limits, x_log=None, height=190
            ),
        ]
    alt = f"Peak memory over expected memory of {len(found)} cells; the figures are in the table Memory."
    return Figure(name, title, caption, scatter.draw(name, title, alt, scatter.Scatter(tuple(panels), series)))


def energy(content: Content) -> Figure:
    """Energy per token of both phases, one panel a device."""
    name, title = "energy", "Energy per token"
    caption = (
        "Median over repetitions with its interval. Prefill: energy of reading one token of a prompt; generation: of writing one"
        " token. Every device has its own axis; joules below, milliwatt-hours above."
    )
    cells = [cell for cell in content.measured if any(metric in cell.metrics for _, metric in _PHASES)]
    if not cells:
        return Figure(name, title, caption, reason=why_none(content, "energy_per_token_j"))
    programs = len({software(cell) for cell in cells}) > 1
    panels = []
    for device, group in by_device(cells):
        names = labelled(content, group)
        rows = []
        for position, cell in enumerate(group):
            label = names[position][0] + (f" · {software(cell)}" if programs else "")
            marks = tuple(
                forest.Mark(i, s.median, s.low, s.high, f"{label}, {phase}: {number(s.median)} J/token, n = {s.n}")
                for i, (phase, metric) in enumerate(_PHASES)
                if (s := cell.metrics.get(metric)) is not None
            )
            rows.append(forest.Row(label, marks, names[position][1], cell.model))
        panels.append(forest.Panel(device_title(device), tuple(rows), badge_of(device)))
    plot = forest.Forest(
        tuple(panels), tuple(phase for phase, _ in _PHASES), "joules per token", top=(1 / J_PER_MWH, "mWh")
    )
    alt = f"Energy per token of {len(cells)} cells on {len(panels)} devices; the figures are in the table of the same name."
    return Figure(name, title, caption, forest.draw(name, title, alt, plot))


def power(content: Content) -> Figure:
    """Speed and energy over the power modes of a board."""
    name, title = "power-modes", "Power modes of Jetson boards"
    caption = "Modes from the smallest budget to the largest. Median over repetitions with its interval."
    cells = [c for c in content.measured if is_board(c) and c.device.power_mode and "generation_tps" in c.metrics]
    if not cells:
        return Figure(name, title, caption, reason=power_modes(content).reason)
    boards: dict[tuple[bool, str], list[CellResult]] = {}
    for cell in ordered(cells):
        boards.setdefault((cell.device.virtual, cell.device.name), []).append(cell)
    series = tuple(dict.fromkeys(_name(cell) for cell in ordered(cells)))
    panels = []
    for (virtual, board), group in sorted(boards.items()):
        modes = sorted({cell.device.power_mode or "" for cell in group}, key=lambda mode: (budget_w(mode), mode))
        for metric, axis in (("generation_tps", "tokens per second"), ("energy_per_token_j", "joules per token")):
            having = [cell for cell in group if metric in cell.metrics]
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
    return Figure(name, title, caption, scatter.draw(name, title, alt, plot))


def _name(cell: CellResult) -> str:
    return f"{weights(cell)}, {software(cell)}" + (", synthetic" if cell.synthetic else "")


def _by_mode(
    cells: Sequence[CellResult], metric: str, modes: Sequence[str], series: Sequence[str]
) -> tuple[scatter.Series, ...]:
    found = []
    for index, one in enumerate(series):
        own = sorted((c for c in cells if _name(c) == one), key=lambda c: modes.index(c.device.power_mode or ""))
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
