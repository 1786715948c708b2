"""Figures of operators and of accuracy."""

from __future__ import annotations

from meltrepro.report.cells import ordered, software, weights
from meltrepro.report.figures import forest, scatter
from meltrepro.report.figures.speed import badge_of
from meltrepro.report.figures.svg import drawn
from meltrepro.report.results import CellResult, Results, Score
from meltrepro.report.tables import measurements
from meltrepro.report.values import Figure, number

MOST_OPERATORS = 8
MOST_PANELS = 8
"""Profiles that are drawn; the table has them all."""
_SHARES = ("share of the decoder's time", "share by the time of a single call")
_LOWER = ("perplexity", "kl_divergence")


def operators(results: Results) -> Figure:
    """Both shares of the largest operators of each profile."""
    name, title = "operators", "Where decoding time goes"
    caption = (
        "The share of time is what an operator costs. The share by single calls, which some publish, counts an"
        " operator that runs once a token as much as one that runs in every layer, and makes the output matrix look"
        " large. A profiled trial is slower than others; only its shares count."
    )
    found = [
        (cell, phase, breakdown)
        for cell in ordered(cell for cell in results.cells if cell.operators)
        for phase, breakdown in sorted(cell.operators.items())
        if breakdown.shares
    ]
    if not found:
        return Figure(name, title, caption, reason=measurements.operators(results).reason or "no trial was profiled")
    if len(found) > MOST_PANELS:
        caption += f" The first {MOST_PANELS} of {len(found)} profiles are drawn; the table has all."
    panels = []
    for cell, phase, breakdown in found[:MOST_PANELS]:
        rows = []
        for share in breakdown.shares[:MOST_OPERATORS]:
            both = (100 * share.time_share, 100 * share.call_share)
            rows.append(
                forest.Row(
                    share.title,
                    tuple(
                        forest.Mark(i, value, value, value, f"{share.title}: {number(value)} % ({_SHARES[i]})")
                        for i, value in enumerate(both)
                    ),
                )
            )
        heading = f"{weights(cell)}, {phase} ({results.title(cell.device)}, {software(cell)})"
        badges = [name for name, holds in (("virtual", cell.device.virtual), ("synthetic", cell.synthetic)) if holds]
        panels.append(forest.Panel(heading, tuple(rows), ", ".join(badges)))
    plot = forest.Forest(tuple(panels), _SHARES, "%", spread=False, log=False)
    alt = f"Shares of operators in {len(found)} profiles; the figures are in the table Operators."
    return drawn(name, title, caption, alt, plot, forest.draw)


def accuracy(results: Results) -> Figure:
    """Scores over the size of the file, one panel a task."""
    name, title = "accuracy", "Accuracy against size"
    caption = (
        "Points are quantizations of a model, joined in order of size; in brackets the bits that the file really spends on a"
        " weight. The line at each point is one standard error to both sides."
    )
    cells = [cell for cell in ordered(results.cells) if cell.scores and cell.model_bytes]
    if not cells:
        return Figure(
            name, title, caption, reason=measurements.accuracy(results).reason or "the sizes of the files are not known"
        )
    names = _names(results, cells)
    series = tuple(dict.fromkeys(names))
    tasks = list(dict.fromkeys((score.task, score.metric) for cell in cells for score in cell.scores))
    panels = []
    for virtual in (False, True):
        group = [(one, cell) for one, cell in zip(names, cells, strict=True) if cell.device.virtual is virtual]
        for task, metric in tasks:
            lines = tuple(
                _series([cell for name, cell in group if name == one], index, task, metric)
                for index, one in enumerate(series)
            )
            if not any(one.points for one in lines):
                continue
            lower = metric in _LOWER
            axis = metric.replace("_", " ") + (", lower is better" if lower else "")
            panels.append(
                scatter.Panel(
                    task if metric in task else f"{task} ({metric.replace('_', ' ')})",
                    "size of the model file, GB",
                    axis,
                    lines,
                    badge_of(group[0][1].device),
                    x_log=True,
                    height=260,
                )
            )
    alt = f"Scores of {len(cells)} cells on {len(tasks)} tasks over the size of the model; the figures are in the table Accuracy."
    plot = scatter.Scatter(tuple(panels), series, lines=True)
    return drawn(name, title, caption, alt, plot, scatter.draw)


def _names(results: Results, cells: list[CellResult]) -> list[str]:
    """Model, device and software of each cell, and its campaign where the same was scored in several."""
    names = [f"{cell.model}, {results.title(cell.device)}, {software(cell)}" for cell in cells]
    campaigns = {name: {c.campaign for n, c in zip(names, cells, strict=True) if n == name} for name in names}
    return [
        f"{name}, campaign {results.number(cell.campaign)}" if len(campaigns[name]) > 1 else name
        for name, cell in zip(names, cells, strict=True)
    ]


def _series(cells: list[CellResult], index: int, task: str, metric: str) -> scatter.Series:
    pairs = [(cell, s) for cell in cells for s in cell.scores if (s.task, s.metric) == (task, metric)]
    points = tuple(_point(cell, score) for cell, score in sorted(pairs, key=lambda pair: pair[0].model_bytes or 0))
    return scatter.Series(index, points, line=True)


def _point(cell: CellResult, score: Score) -> scatter.Point:
    bits = cell.bits_per_weight
    label = cell.quantization + (f" ({bits:.2f})" if bits is not None else "")
    error = score.stderr
    plus_minus = f" ± {number(error)}" if error is not None else ""
    tip = f"{weights(cell)}: {number(score.value)}{plus_minus}, n = {score.n}"
    around = None if error is None else (score.value - error, score.value + error)
    return scatter.Point((cell.model_bytes or 0) / 1e9, score.value, tip, label, y_range=around)
