"""Figures with two axes: both speeds, memory, sustained load, power modes, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from meltrepro.report import tradeoffs as cost
from meltrepro.report.cells import (
    ScoreKind,
    by_device,
    labelled,
    line_names,
    none_since,
    ordered,
    score_kind,
    score_title,
    software,
    unless_named,
    weights,
    why_none,
)
from meltrepro.report.derive import MEMORY_LIMIT, Sustained, memory_use, sustained
from meltrepro.report.figures import scatter
from meltrepro.report.figures.rows import BOUND, badge_of
from meltrepro.report.figures.scatter import Dot, Dots, Plot, Rule, Scatter
from meltrepro.report.figures.svg import drawn
from meltrepro.report.results import CellResult, Results, Score, budget_w
from meltrepro.report.tables import measurements
from meltrepro.report.values import Figure, number

_RATIOS = (1, 3, 10, 30)
MOST_LINES = 6
"""Curves that one panel can hold without becoming a tangle."""
MOST_TRADEOFFS = 12
"""Panels of trade-offs that are drawn; the table has all cells."""
_LOWER = ("perplexity", "kl_divergence")


def phases(results: Results) -> Figure:
    """Prefill over generation, both logarithmic, with lines of equal ratio."""
    name, title = "phases", "Prefill against generation"
    caption = (
        "On a dashed line, reading is so many times faster than writing. Real and virtual devices"
        " have panels of their own."
    )
    both = ("prefill_tps", "generation_tps")
    cells = [cell for cell in results.measured if all(m in cell.metrics and cell.metrics[m].median > 0 for m in both)]
    if not cells:
        return Figure(name, title, caption, reason=why_none(results, "prefill_tps"))
    # The fastest first, so that a model's name stands at its fastest.
    cells = sorted(ordered(cells), key=lambda cell: -cell.metrics["generation_tps"].median)

    def point(cell: CellResult, said: str) -> Dot:
        x, y = cell.metrics["generation_tps"], cell.metrics["prefill_tps"]
        tip = f"{said}: prefill {number(y.median)}, generation {number(x.median)} tokens/s"
        return Dot(x.median, y.median, tip, cell.model, (x.low, x.high), (y.low, y.high))

    axes = ("generation, tokens per second", "prefill, tokens per second")
    plot = _real_and_virtual(results, cells, axes, point, _ratio_rules, once="series", height=300)
    alt = f"Prefill speed over generation speed of {len(cells)} cells; the figures are in the table of the same name."
    return drawn(name, title, caption, alt, plot, scatter.draw)


def _ratio_rules(cells: Sequence[CellResult]) -> tuple[Rule, ...]:
    """Lines of equal ratio; those around the cells are to be seen in any case."""
    ratios = [cell.metrics["prefill_tps"].median / cell.metrics["generation_tps"].median for cell in cells]
    low = max((times for times in _RATIOS if times <= min(ratios)), default=_RATIOS[0])
    high = min((times for times in _RATIOS if times >= max(ratios)), default=_RATIOS[-1])
    return tuple(Rule(f"{times} x", times, near=low <= times <= high) for times in _RATIOS)


def memory(results: Results) -> Figure:
    """Peak memory over what must be held."""
    name, title = "memory", "Peak memory against size"
    caption = (
        f"Expected is the model file and the KV cache of the whole context. Dashed: exactly that (1 x), and {MEMORY_LIMIT} times as"
        f" much. {BOUND}"
    )
    uses = {id(cell): use for cell in results.measured if (use := memory_use(cell)) is not None}
    cells = [cell for cell in ordered(results.measured) if id(cell) in uses]
    if not cells:
        return Figure(name, title, caption, reason=why_none(results, "peak_memory_bytes"))

    def point(cell: CellResult, said: str) -> Dot:
        use = uses[id(cell)]
        tip = f"{said}: {number(use.peak / 1e9)} GB of {number(use.expected / 1e9)} GB expected"
        return Dot(use.expected / 1e9, use.peak / 1e9, tip, cell.model, y_range=(use.low / 1e9, use.high / 1e9))

    def rules(_: Sequence[CellResult]) -> tuple[Rule, ...]:
        return tuple(Rule(f"{slope} x", slope, near=True) for slope in (1, MEMORY_LIMIT))

    axes = ("model file and KV cache, GB", "peak memory, GB")
    plot = _real_and_virtual(results, cells, axes, point, rules, once="panel", height=260)
    alt = f"Peak memory over expected memory of {len(cells)} cells; the figures are in the table Memory."
    return drawn(name, title, caption, alt, plot, scatter.draw)


def tradeoffs(results: Results) -> Figure:
    """Speed over memory, energy and quality, with the cells that nothing beats joined."""
    name, title = "tradeoffs", "Speed against its cost"
    caption = (
        "One panel a device and a cost. Joined are the cells that no other beats in both; all others can be replaced by one that is"
        " faster at the same cost, or cheaper at the same speed. Numbers stand where names have no room; the names are below."
    )
    known = cost.axes(results)
    found = [(group, axis) for group in cost.places(results).values() for axis in known]
    panels = [panel for group, axis in found if (panel := _tradeoff(results, group, axis))]
    if not panels:
        reason = none_since("no two cells of a device have a speed and a cost to compare", results)
        return Figure(name, title, caption, reason=reason)
    alt = (
        f"Generation speed over {', '.join(axis.key for axis in known)}; the figures are in the table What each costs."
    )
    plot = Scatter(tuple(panels[:MOST_TRADEOFFS]), ("beaten by none", "beaten in both by another"), lines=True)
    return drawn(name, title, caption + unless_named(results), alt, plot, scatter.draw)


def _tradeoff(results: Results, group: Sequence[CellResult], axis: cost.Axis) -> Plot | None:
    """A device's panel of one cost; `None` where there is nothing to compare."""
    cells = [cell for cell in group if axis.of(cell) is not None]
    if len(cells) < 2:
        return None
    best = cost.front(cells, [axis])
    programs = len({software(cell) for cell in cells}) > 1
    labels = [label for label, _ in labelled(results, cells)]
    alike = {cell.model for cell in cells}
    dots: dict[bool, list[Dot]] = {True: [], False: []}
    for position, (cell, label) in enumerate(zip(cells, labels, strict=True)):
        x, speed = axis.of(cell), cell.metrics[cost.SPEED]
        if x is None:
            continue
        label = label.removeprefix(f"{cell.model} ") if len(alike) == 1 else label
        label += f" · {cell.release}" if programs else ""
        tip = f"{label}, {software(cell)}: {number(speed.median)} tokens/s, {axis.title}: {number(x[0])}"
        dots[position in best].append(Dot(x[0], speed.median, tip, label, (x[1], x[2]), (speed.low, speed.high)))
    line = tuple(sorted(dots[True], key=lambda dot: dot.x))
    series = (Dots(0, line, line=True), Dots(1, tuple(dots[False])))
    cell = cells[0]
    head = f"{results.title(cell.device)}, {cell.workload}" + (f", {cell.model}" if len(alike) == 1 else "")
    names = (f"{axis.title} (better: {'left' if axis.lower else 'right'})", "generation, tokens per second")
    return Plot(
        head,
        *names,
        series,
        badge_of(cell.device),
        x_log=None,
        y_log=None,
        height=170 if len(cells) < 5 else 300,
        numbered=True,
    )


def _real_and_virtual(
    results: Results,
    cells: Sequence[CellResult],
    axes: tuple[str, str],
    point: Callable[[CellResult, str], Dot],
    rules: Callable[[Sequence[CellResult]], tuple[Rule, ...]],
    **more: Any,
) -> Scatter:
    """A panel of real devices and one of virtual ones, in which a colour stands for a device with its software."""

    def whose(cell: CellResult) -> str:
        virtual = " (virtual)" if cell.device.virtual else ""
        return f"{results.title(cell.device)}{virtual}, {software(cell)}"

    names = tuple(dict.fromkeys(map(whose, ordered(cells))))
    panels = []
    for virtual in (False, True):
        group = [cell for cell in cells if cell.device.virtual is virtual]
        if group:
            points = {
                one: [point(cell, f"{weights(cell)}, {one}") for cell in group if whose(cell) == one] for one in names
            }
            series = tuple(Dots(i, tuple(points[one])) for i, one in enumerate(names))
            title, badge = ("Virtual devices", "virtual") if virtual else ("Real devices", "")
            panels.append(Plot(title, *axes, series, badge, rules(group), x_log=True, y_log=True, **more))
    return Scatter(tuple(panels), names)


def sustained_curves(results: Results) -> Figure:
    """Speed over prompts, and the temperature below it."""
    name, title = "sustained", "Sustained load"
    caption = (
        "Above: generation after each prompt, median over repetitions, the band from the smallest to the largest. Below: the"
        " hottest sensor of the device in the first repetition, at the prompt that was being answered then."
    )
    curves = {id(curve.cell): curve for curve in map(sustained, ordered(results.measured)) if curve is not None}
    if not curves:
        reason = none_since("no cell held one conversation of many prompts without pause", results)
        return Figure(name, title, caption, reason=reason)
    cells = [curve.cell for curve in curves.values()]
    names = dict(zip(curves, line_names(results, cells), strict=True))
    series = tuple(dict.fromkeys(names.values()))
    panels: list[Plot] = []
    for device, group in by_device(cells):
        for start in range(0, len(group), MOST_LINES):
            some = [(names[id(cell)], curves[id(cell)]) for cell in group[start : start + MOST_LINES]]
            panels += _sustained_panels(results.title(device), badge_of(device), some, series)
    alt = (
        f"Speed and temperature over the prompts of {len(curves)} cells; the figures are in the table of the same name."
    )
    return drawn(name, title, caption, alt, Scatter(tuple(panels), series, lines=True), scatter.draw)


def _sustained_panels(
    title: str, badge: str, curves: Sequence[tuple[str, Sustained]], series: Sequence[str]
) -> list[Plot]:
    """A panel of speeds and, where the device has a thermometer, one of temperatures."""
    speeds, heats = [], []
    for name, curve in curves:
        index = series.index(name)
        points = (
            Dot(s.prompt, s.median, f"{name}: prompt {s.prompt}, {number(s.median)} tokens/s") for s in curve.speeds
        )
        band = tuple((float(s.prompt), s.low, s.high) for s in curve.speeds)
        speeds.append(Dots(index, tuple(points), line=True, markers=False, band=band))
        heat = tuple(Dot(at, c, f"{name}: {number(c)} °C at prompt {int(at)}") for at, c in curve.temperatures)
        if heat:
            heats.append(Dots(index, heat, line=True, markers=False))
    panels = [Plot(title, "prompt", "tokens per second", tuple(speeds), badge, y_zero=True, height=210)]
    if heats:
        panels.append(Plot(f"{title}: temperature", "prompt", "°C", tuple(heats), badge, height=130))
    return panels


def power(results: Results) -> Figure:
    """Speed and energy over the power modes of a board."""
    name, title = "power-modes", "Power modes"
    caption = "Modes from the smallest budget to the largest. Median over repetitions with its interval."
    cells = ordered(cell for cell in results.measured if measurements.has_power_mode(cell))
    if not cells:
        return Figure(name, title, caption, reason=measurements.power_modes(results).reason)
    names = line_names(results, cells)
    series = tuple(dict.fromkeys(names))
    boards: dict[tuple[bool, str, str], list[tuple[str, CellResult]]] = {}
    for line, cell in zip(names, cells, strict=True):
        device = cell.device
        boards.setdefault((device.virtual, device.name, device.id or device.model), []).append((line, cell))
    panels = []
    for (_, board, _), group in sorted(boards.items(), key=lambda item: item[0]):
        modes = sorted({_mode(cell) for _, cell in group}, key=lambda mode: (budget_w(mode), mode))
        ticks = tuple((float(i), mode) for i, mode in enumerate(modes))
        badge = badge_of(group[0][1].device)
        for what, metric, axis in (
            ("speed", "generation_tps", "tokens per second"),
            ("energy", "energy_per_token_j", "joules per token"),
        ):
            having = [(line, cell) for line, cell in group if metric in cell.metrics]
            if having:
                lines = _by_mode(having, metric, modes, series)
                head = (f"{board}: {what} of generation", "power mode", axis)
                panels.append(Plot(*head, lines, badge, y_zero=True, height=180, names=ticks))
    alt = f"Speed and energy of {len(cells)} cells by power mode; the figures are in the table of the same name."
    plot = Scatter(tuple(panels), series, lines=True)
    return drawn(name, title, caption + unless_named(results), alt, plot, scatter.draw)


def _mode(cell: CellResult) -> str:
    return cell.device.power_mode or ""


def _by_mode(
    cells: Sequence[tuple[str, CellResult]], metric: str, modes: Sequence[str], series: Sequence[str]
) -> tuple[Dots, ...]:
    found = []
    for index, one in enumerate(series):
        points = []
        for cell in sorted((cell for line, cell in cells if line == one), key=lambda cell: modes.index(_mode(cell))):
            s = cell.metrics[metric]
            tip = f"{one}, {_mode(cell)}: {number(s.median)}, n = {s.n}"
            points.append(Dot(float(modes.index(_mode(cell))), s.median, tip, y_range=(s.low, s.high)))
        found.append(Dots(index, tuple(points), line=True))
    return tuple(found)


def accuracy(results: Results) -> Figure:
    """Scores over the size of the file, one panel a task; of a text one a context."""
    name, title = "accuracy", "Accuracy against size"
    caption = (
        "Points are quantizations of a model, joined in order of size; in brackets the bits that the file really spends on a"
        " weight. The line at each point is one standard error to both sides."
    )
    cells = [cell for cell in ordered(results.cells) if cell.scores and cell.model_bytes]
    if not cells:
        reason = measurements.accuracy(results).reason or "the sizes of the files are not known"
        return Figure(name, title, caption, reason=reason)
    names = _score_names(results, cells)
    series = tuple(dict.fromkeys(names))
    kinds = list(dict.fromkeys(score_kind(cell, score) for cell in cells for score in cell.scores))
    panels = []
    for virtual in (False, True):
        group = [(one, cell) for one, cell in zip(names, cells, strict=True) if cell.device.virtual is virtual]
        for kind in kinds:
            lines = tuple(
                _scored([cell for name, cell in group if name == one], index, kind) for index, one in enumerate(series)
            )
            if any(one.points for one in lines):
                metric = kind[1]
                axis = metric.replace("_", " ") + (", lower is better" if metric in _LOWER else "")
                badge = badge_of(group[0][1].device)
                panels.append(
                    Plot(score_title(kind), "size of the model file, GB", axis, lines, badge, x_log=True, height=260)
                )
    alt = f"Scores of {len(cells)} cells on {len(kinds)} tasks over the size of the model; the figures are in the table Accuracy."
    return drawn(name, title, caption, alt, Scatter(tuple(panels), series, lines=True), scatter.draw)


def _score_names(results: Results, cells: Sequence[CellResult]) -> list[str]:
    """Model, device and software of each cell, and its campaign where the same was scored in several."""
    names = [f"{cell.model}, {results.title(cell.device)}, {software(cell)}" for cell in cells]
    campaigns = {name: {c.campaign for n, c in zip(names, cells, strict=True) if n == name} for name in names}
    return [
        f"{name}, campaign {results.number(cell.campaign)}" if len(campaigns[name]) > 1 else name
        for name, cell in zip(names, cells, strict=True)
    ]


def _scored(cells: Sequence[CellResult], index: int, kind: ScoreKind) -> Dots:
    pairs = [(cell, score) for cell in cells for score in cell.scores if score_kind(cell, score) == kind]
    points = (_score(cell, score) for cell, score in sorted(pairs, key=lambda pair: pair[0].model_bytes or 0))
    return Dots(index, tuple(points), line=True)


def _score(cell: CellResult, score: Score) -> Dot:
    bits = cell.bits_per_weight
    label = cell.quantization + (f" ({bits:.2f})" if bits is not None else "")
    error = score.stderr
    plus_minus = f" ± {number(error)}" if error is not None else ""
    tip = f"{weights(cell)}: {number(score.value)}{plus_minus}, n = {score.n}"
    around = None if error is None else (score.value - error, score.value + error)
    return Dot((cell.model_bytes or 0) / 1e9, score.value, tip, label, y_range=around)
