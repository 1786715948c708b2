"""Speed against what it costs: memory, energy and quality of the same weights, and which cells nothing beats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from meltrepro.report.cells import Field, ScoreKind, metric, ordered, score_kind, score_title, table, why_none
from meltrepro.report.results import CellResult, Results, Score
from meltrepro.report.values import Absent, Column, Table, Value, Word

SPEED = "generation_tps"
_LOWER = ("perplexity", "kl_divergence")
Around = tuple[float, float, float]
"""Value, lower and upper end of its interval."""
Place = tuple[object, str]
"""Device and workload: only within one are cells compared."""


@dataclass(frozen=True)
class Axis:
    """What a cell costs, or what it is good for."""

    key: str
    title: str
    lower: bool
    """Whether less of it is better."""
    of: Callable[[CellResult], Around | None]


def _metric(name: str, scale: float = 1.0) -> Callable[[CellResult], Around | None]:
    def of(cell: CellResult) -> Around | None:
        found = cell.metrics.get(name)
        return None if found is None else (found.median * scale, found.low * scale, found.high * scale)

    return of


def axes(results: Results) -> list[Axis]:
    """Those of which some cell that was measured for its speed has a value."""
    known = [
        Axis("memory", "peak memory, GB", True, _metric("peak_memory_bytes", 1e-9)),
        Axis("energy", "energy, joules per token", True, _metric("energy_per_token_j")),
    ]
    if (usual := _usual(results)) is not None:
        scores = _scores(results, usual)
        title, lower = f"quality, {score_title(usual)}", usual[1] in _LOWER
        known.append(Axis("quality", title, lower, lambda cell: _around(scores.get(_weights(cell)))))
    return [axis for axis in known if any(axis.of(cell) for cell in compared(results))]


def _weights(cell: CellResult) -> tuple[str, ...]:
    """What a score belongs to, on whatever device it was found."""
    return (cell.model, cell.quantization, cell.framework, cell.release)


def _usual(results: Results) -> ScoreKind | None:
    """In what most weights were scored, the first by name where several were."""
    kinds = Counter(score_kind(cell, score) for cell, score in _scored(results))
    return min(kinds, key=lambda kind: (-kinds[kind], kind)) if kinds else None


def _scores(results: Results, kind: ScoreKind) -> Mapping[tuple[str, ...], Score]:
    return {_weights(cell): score for cell, score in _scored(results) if score_kind(cell, score) == kind}


def _scored(results: Results) -> list[tuple[CellResult, Score]]:
    return [(cell, score) for cell in results.cells if not cell.synthetic for score in cell.scores]


def _around(score: Score | None) -> Around | None:
    if score is None:
        return None
    error = score.stderr or 0.0
    return score.value, score.value - error, score.value + error


def compared(results: Results) -> list[CellResult]:
    """The cells whose speed may be believed."""
    return [cell for cell in ordered(results.cells) if cell.state == "measured" and SPEED in cell.metrics]


def places(results: Results) -> Mapping[Place, list[CellResult]]:
    """The same by device and workload."""
    found: dict[Place, list[CellResult]] = {}
    for cell in compared(results):
        found.setdefault((cell.device.key, cell.workload), []).append(cell)
    return found


def front(cells: Sequence[CellResult], against: Sequence[Axis]) -> set[int]:
    """Positions of the cells that no other beats: none is as good in everything, speed too, and better in something."""
    points = [_point(cell, against) for cell in cells]
    return {
        position
        for position, point in enumerate(points)
        if point is not None and not any(other is not None and _beats(other, point) for other in points)
    }


def _point(cell: CellResult, against: Sequence[Axis]) -> tuple[float, ...] | None:
    found = [(axis.of(cell), -1 if axis.lower else 1) for axis in against]
    costs = [around[0] * sign for around, sign in found if around is not None]
    return (cell.metrics[SPEED].median, *costs) if len(costs) == len(against) else None


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def tradeoffs(results: Results) -> Table:
    """Speed, memory, energy and quality of every cell, and whether another on the same device beats it in all of them."""
    known = axes(results)
    beaten: dict[int, Value] = {}
    for group in places(results).values():
        shared = [axis for axis in known if all(axis.of(cell) for cell in group)]
        best = front(group, shared)
        for position, cell in enumerate(group):
            beaten[id(cell)] = Word("no", "good") if position in best else "yes"
    quality = next((axis for axis in known if axis.key == "quality"), None)

    def scored(cell: CellResult) -> Value:
        found = quality.of(cell) if quality else None
        return Absent("these weights were not scored") if found is None else found[0]

    fields: tuple[Field, ...] = (
        metric(SPEED, "generation (tokens/s)"),
        metric("peak_memory_bytes", "peak memory (GB)", key="peak_memory_gb", scale=1e-9),
        metric("energy_per_token_j", "generation (J/token)"),
        (Column("quality", quality.title if quality else "quality", "number"), scored),
        (Column("beaten", "beaten in all"), lambda cell: beaten[id(cell)]),
    )
    note = (
        "Beaten in all: another cell of the same device and workload is at least as good in speed and in every other figure that"
        " all of them have, and better in one. Medians alone decide; intervals may overlap."
    )
    cells = compared(results)
    return table(results, "tradeoffs", "What each costs", cells, fields, why=why_none(results, SPEED), note=note)
