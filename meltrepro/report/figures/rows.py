"""Figures with a row a cell: throughput, peak memory over what is expected, energy, drift, operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from meltrepro.report.cells import by_device, labelled, none_since, ordered, software, unless_named, weights, why_none
from meltrepro.report.derive import MEMORY_LIMIT, drifts, memory_use
from meltrepro.report.figures import forest
from meltrepro.report.figures.forest import Forest, Mark, Panel, Row
from meltrepro.report.figures.svg import drawn
from meltrepro.report.results import CellResult, Device, Results
from meltrepro.report.tables import measurements
from meltrepro.report.values import Figure, number
from meltrepro.stats.summary import INTERVAL

BOUND = (
    f"{MEMORY_LIMIT} is a bound of this project: {MEMORY_LIMIT - 1:.0%} of room for the program, its tokenizer and the"
    " buffers of a computation. A mark beyond it is a run that holds something twice, or a model so small that these weigh more."
)
MOST_OPERATORS = 8
MOST_PANELS = 8
"""Profiles that are drawn; the table has them all."""
_PHASES = (("prefill", "energy_per_prompt_token_j"), ("generation", "energy_per_token_j"))
_SHARES = ("share of the decoder's time", "share by the time of a single call")


def throughput(results: Results, phase: str) -> Figure:
    """One row a cell, one panel a device."""
    metric, name = f"{phase}_tps", f"throughput-{phase}"
    title = "Speed of writing answers (generation)" if phase == "generation" else "Speed of reading prompts (prefill)"
    caption = f"Median over repetitions; the line is the {INTERVAL}. Every device has its own axis, logarithmic where its figures are far apart."
    cells = [cell for cell in results.measured if metric in cell.metrics]
    if not cells:
        return Figure(name, title, caption, reason=why_none(results, metric))
    series = _programs(cells)

    def marks(cell: CellResult, label: str) -> Iterable[Mark]:
        s = cell.metrics[metric]
        tip = f"{label}, {software(cell)}: {number(s.median)} tokens/s ({number(s.low)} to {number(s.high)}, n = {s.n})"
        yield Mark(series.index(software(cell)), s.median, s.low, s.high, tip)

    plot = Forest(_panels(results, cells, marks), series, "tokens per second")
    alt = f"{title}, tokens per second, for {len(cells)} cells on {len(plot.panels)} devices; the figures are in the table Throughput."
    return drawn(name, title, caption + unless_named(results), alt, plot, forest.draw)


def memory_ratio(results: Results) -> Figure:
    """How many times more than expected, cell by cell."""
    name, title = "memory-ratio", "Peak memory over model file and KV cache"
    caption = f"Dashed: 1, which is all that must be held, and a bound. {BOUND}"
    uses = {id(cell): use for cell in results.measured if (use := memory_use(cell)) is not None}
    cells = [cell for cell in ordered(results.measured) if id(cell) in uses]
    if not cells:
        return Figure(name, title, caption, reason=why_none(results, "peak_memory_bytes"))
    series = _programs(cells)

    def marks(cell: CellResult, label: str) -> Iterable[Mark]:
        use = uses[id(cell)]
        tip = f"{label}, {software(cell)}: {number(use.ratio)}"
        around = (use.low / use.expected, use.high / use.expected)
        yield Mark(series.index(software(cell)), use.ratio, *around, tip)

    plot = Forest(
        *(_panels(results, cells, marks), series, "peak memory / (model file + KV cache)"),
        *(False, False, (1.0, MEMORY_LIMIT)),
        shared=True,
    )
    alt = f"Ratio of peak to expected memory of {len(cells)} cells; the figures are in the table Memory."
    return drawn(name, title, caption + unless_named(results), alt, plot, forest.draw)


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

    def marks(cell: CellResult, label: str) -> Iterable[Mark]:
        for series, (phase, metric) in enumerate(_PHASES):
            if (s := cell.metrics.get(metric)) is not None:
                tip = f"{label}, {phase}: {number(s.median)} J/token, n = {s.n}"
                yield Mark(series, s.median, s.low, s.high, tip)

    panels = _panels(results, cells, marks, programs=len(_programs(cells)) > 1)
    plot = Forest(
        panels, tuple(phase for phase, _ in _PHASES), "joules per token", top=(1 / measurements.J_PER_MWH, "mWh")
    )
    alt = f"Energy per token of {len(cells)} cells on {len(panels)} devices; the figures are in the table of the same name."
    return drawn(name, title, caption + unless_named(results), alt, plot, forest.draw)


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
    oldest = {id(pair.newer): pair.older.release for pair in pairs}

    def marks(cell: CellResult, _: str) -> Iterable[Mark]:
        for pair in pairs:
            if pair.newer is cell:
                low, high = pair.low or pair.ratio, pair.high or pair.ratio
                interval = f"{number(low)} to {number(high)}" if pair.low is not None else "no interval"
                tip = f"{weights(cell)}, {pair.phase}: {number(pair.ratio)} ({interval})"
                yield Mark(series.index(pair.phase), pair.ratio, low, high, tip)

    panels = _panels(
        results,
        {id(pair.newer): pair.newer for pair in pairs}.values(),
        marks,
        heading=lambda cell: f": {software(cell)} over {oldest[id(cell)]}",
    )
    plot = Forest(panels, series, "newer / older", log=True, zero=False, lines=(1.0,), shared=True)
    alt = f"Ratios of {len(pairs)} speeds between releases; the figures are in the table Drift between releases."
    return drawn(name, title, caption + unless_named(results), alt, plot, forest.draw)


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
        reason = measurements.operators(results).reason or "no trial was profiled"
        return Figure(name, title, caption, reason=reason)
    if len(found) > MOST_PANELS:
        caption += f" The first {MOST_PANELS} of {len(found)} profiles are drawn; the table has all."
    panels = []
    for cell, phase, breakdown in found[:MOST_PANELS]:
        rows = []
        for share in breakdown.shares[:MOST_OPERATORS]:
            both = enumerate((100 * share.time_share, 100 * share.call_share))
            tips = ((i, value, f"{share.title}: {number(value)} % ({_SHARES[i]})") for i, value in both)
            rows.append(Row(share.title, tuple(Mark(i, value, value, value, tip) for i, value, tip in tips)))
        heading = f"{weights(cell)}, {phase} ({results.title(cell.device)}, {software(cell)})"
        badges = [name for name, holds in (("virtual", cell.device.virtual), ("synthetic", cell.synthetic)) if holds]
        panels.append(Panel(heading, tuple(rows), ", ".join(badges)))
    plot = Forest(tuple(panels), _SHARES, "%", spread=False, log=False)
    alt = f"Shares of operators in {len(found)} profiles; the figures are in the table Operators."
    return drawn(name, title, caption, alt, plot, forest.draw)


def badge_of(device: Device) -> str:
    """What a panel must say of its device."""
    return "virtual device" if device.virtual else ""


def _programs(cells: Iterable[CellResult]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(software(cell) for cell in ordered(cells)))


def _panels(
    results: Results,
    cells: Iterable[CellResult],
    marks: Callable[[CellResult, str], Iterable[Mark]],
    *,
    programs: bool = False,
    heading: Callable[[CellResult], str] = lambda cell: "",
) -> tuple[Panel, ...]:
    """A panel per device and heading, a row per label; labels name the software where `programs` says so."""
    panels = []
    for device, group in by_device(cells):
        labels = labelled(results, group)
        rows: dict[str, dict[tuple[str, str], tuple[str, Sequence[Mark]]]] = {}
        for cell, (name, remark) in zip(group, labels, strict=True):
            label = f"{name} · {software(cell)}" if programs else name
            own = rows.setdefault(heading(cell), {})
            model, known = own.get((label, remark), (cell.model, ()))
            own[label, remark] = (model, (*known, *marks(cell, label)))
        for head, lines in rows.items():
            shown = (Row(label, tuple(found), remark, model) for (label, remark), (model, found) in lines.items())
            panels.append(Panel(f"{results.title(device)}{head}", tuple(shown), badge_of(device)))
    return tuple(panels)
