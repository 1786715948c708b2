"""What lasting load does: F14 and F15."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from meltrepro.report.results import CellResult, TurnResult
from meltrepro.stats.relation import fit_within
from meltrepro.studies.melt import paper
from meltrepro.studies.melt.findings import cells as of_cells
from meltrepro.studies.melt.findings.cells import PHONES, SPEED, median_of
from meltrepro.studies.melt.findings.model import Definition, Judgement, Published, Quantity, missing

_FEWEST_TURNS, _LEAST_S, _LEAST_BUSY = 16, 30.0, 0.8
_LONG_S = 300.0
"""Load below this may end before a case is warm."""
_THROTTLED = 0.9
_GROWN = 1.2
"""How many times longer the context of the last prompts may be before its cost must be known."""
_HOT_C = 43.0


@dataclass(frozen=True)
class _Load:
    """First and last quarter of the prompts of a cell, mean over its repetitions."""

    cell: CellResult
    ratio: float
    """Speed of the last quarter over that of the first."""
    grown: float
    """Tokens in the context, likewise."""
    seconds: float
    corrected: float | None
    """The ratio with the cost of the longer context taken out; `None` where that is not known."""

    @property
    def throttled(self) -> bool | None:
        """`None` where a slower end may be the context's doing."""
        if self.ratio >= _THROTTLED:
            return False
        if self.grown <= _GROWN:
            return True
        return None if self.corrected is None else self.corrected < _THROTTLED


def load_throttles(cells: Sequence[CellResult]) -> Judgement:
    """F14: speed at the end of lasting load beside its beginning, what a growing context costs taken out."""
    useful = of_cells.measured(cells, SPEED)
    costs = _context_costs(useful)
    loads = [load for cell in useful if (load := _load(cell, costs)) is not None]
    if not loads:
        return missing(
            f"needs {_FEWEST_TURNS} prompts or more in one trial without pauses, over {_LEAST_S:g} s or more (sustained)"
        )
    numbers = {
        "cells": Quantity(len(loads)),
        "last_over_first_lowest": Quantity(min(load.ratio for load in loads)),
        "shortest_load": Quantity(min(load.seconds for load in loads), "s"),
        "context_growth_highest": Quantity(max(load.grown for load in loads)),
    }
    corrected = [load.corrected for load in loads if load.corrected is not None]
    if corrected:
        numbers["corrected_lowest"] = Quantity(min(corrected))
    hot = [load.cell.metrics["temperature_max_c"].median for load in loads if "temperature_max_c" in load.cell.metrics]
    if hot:
        numbers["temperature_highest"] = Quantity(max(hot), "degC")
    known = [load for load in loads if load.throttled is not None]
    evidence = tuple(load.cell for load in known or loads)
    if not known:
        text = (
            "speed fell while the context grew, and nothing tells what the context alone costs: needs the same model and "
            "quantization in a workload of several conversations (macro)"
        )
        return missing(text, numbers, *evidence)
    throttled = sum(load.throttled is True for load in known)
    numbers["cells_that_throttle"] = Quantity(throttled)
    reason = f"the last quarter of the prompts is slower than {_THROTTLED:g} of the first in {of_cells.of(throttled, len(known), 'cell')}"
    short = min(load.seconds for load in known)
    notes = (f"the load lasted {short:.0f} s: a case takes minutes to get warm",) if short < _LONG_S else ()
    return Judgement(2 * throttled > len(known), reason, numbers, evidence, notes)


def _load(cell: CellResult, costs: dict[object, float]) -> _Load | None:
    cost = costs.get(_same(cell))
    found = []
    for turns in of_cells.grouped(cell.turns, lambda turn: turn.repetition).values():
        timed = [turn for turn in turns if turn.generation_tps]
        seconds = _lasting_s(turns)
        if len(timed) < _FEWEST_TURNS or seconds < _LEAST_S:
            continue
        quarter = len(timed) // 4
        first, last = timed[:quarter], timed[-quarter:]
        begin = fmean(map(_position, first))
        ratio = fmean(map(_speed, last)) / fmean(map(_speed, first))
        corrected = None
        if cost is not None:
            corrected = _without(last, begin, cost) / _without(first, begin, cost)
        found.append((ratio, fmean(map(_position, last)) / begin if begin else 1.0, seconds, corrected))
    if not found:
        return None
    known = [corrected for *_, corrected in found if corrected is not None]
    return _Load(
        cell,
        ratio=fmean(ratio for ratio, *_ in found),
        grown=fmean(grown for _, grown, *_ in found),
        seconds=fmean(seconds for *_, seconds, _ in found),
        corrected=fmean(known) if known else None,
    )


def _lasting_s(turns: Sequence[TurnResult]) -> float:
    """How long a trial was busy; 0 where it paused."""
    busy = [
        (turn.n_prompt / turn.prefill_tps if turn.prefill_tps else 0.0)
        + ((turn.n_gen - 1) / turn.generation_tps if turn.generation_tps else 0.0)
        for turn in turns
    ]
    whole_s = turns[-1].began_s - turns[0].began_s + busy[-1]
    return whole_s if sum(busy) >= _LEAST_BUSY * whole_s else 0.0


def _context_costs(cells: Sequence[CellResult]) -> dict[object, float]:
    """Seconds that each token in the context adds to a token, by device, framework, model and quantization.

    Learnt from cells with several conversations a trial, in which contexts begin anew while the device stays warm.
    """
    points: dict[object, list[tuple[list[float], list[float]]]] = {}
    for cell in cells:
        if len({turn.conversation for turn in cell.turns}) < 2:
            continue
        for turns in of_cells.grouped(cell.turns, lambda turn: (turn.repetition, turn.conversation)).values():
            timed = [turn for turn in turns if turn.generation_tps]
            points.setdefault(_same(cell), []).append(
                ([_position(turn) for turn in timed], [1 / _speed(turn) for turn in timed])
            )
    lines = {key: fit_within(groups) for key, groups in points.items()}
    return {key: max(0.0, line.slope) for key, line in lines.items() if line is not None}


def _same(cell: CellResult) -> object:
    return (of_cells.stack(cell), cell.model, cell.quantization)


def _without(turns: Sequence[TurnResult], begin: float, cost: float) -> float:
    """Mean speed, had every turn had a context of `begin` tokens."""
    times = [1 / _speed(turn) - cost * (_position(turn) - begin) for turn in turns]
    return fmean(1 / time if time > 0 else _speed(turn) for time, turn in zip(times, turns, strict=True))


def _speed(turn: TurnResult) -> float:
    assert turn.generation_tps
    return turn.generation_tps


def _position(turn: TurnResult) -> float:
    """Mean number of tokens in the context while a turn was answered."""
    return turn.n_past - turn.n_gen / 2


def phones_get_hot(cells: Sequence[CellResult]) -> Judgement:
    """F15: the hottest reading of each phone."""
    phones = [cell for cell in cells if cell.device.kind in PHONES]
    useful = of_cells.measured(phones, "temperature_max_c")
    if not useful:
        why = of_cells.why_lacking(phones, "temperature_max_c")
        return missing("needs a phone that shows a temperature" + (f": {why}" if why else ""))
    hottest = {
        key: max(median_of(cell, "temperature_max_c") for cell in group)
        for key, group in of_cells.grouped(useful, of_cells.device).items()
    }
    hot = sum(value > _HOT_C for value in hottest.values())
    numbers = {
        "phones": Quantity(len(hottest)),
        "temperature_lowest": Quantity(min(hottest.values()), "degC"),
        "temperature_highest": Quantity(max(hottest.values()), "degC"),
    }
    notes = ("the hottest sensor of a phone is inside it; the paper's figure is of the surface",)
    reason = f"{of_cells.of(hot, len(hottest), 'phone')} got hotter than {_HOT_C:g} degC"
    return Judgement(hot == len(hottest), reason, numbers, tuple(useful), notes)


def _heat_of_paper() -> tuple[Published, ...]:
    row = paper.figure(paper.energy(), "surface_temperature_max")
    return (
        Published(f"surface of an {row.device}", Quantity(row.value, row.unit), row.source, secondhand=row.secondhand),
    )


F14 = Definition(
    id="F14",
    claim="Lasting load throttles.",
    threshold=f"generation_tps of the last quarter of the prompts < {_THROTTLED:g} of the first quarter, in more than half of the cells; where the context "
    f"grew by more than {_GROWN:g} times, what it costs by cells of several conversations is taken out first",
    needs=f"{_FEWEST_TURNS} prompts or more in one trial without pauses over {_LEAST_S:g} s or more (sustained); where it is one growing "
    "conversation, the same model and quantization with several conversations a trial (macro) too",
    decide=load_throttles,
)
F15 = Definition(
    id="F15",
    claim="Phones exceed comfortable temperatures.",
    threshold=f"temperature_max_c > {_HOT_C:g} degC in some cell of every phone",
    needs="a phone that shows a temperature, with the sustained workload",
    decide=phones_get_hot,
    reference=_heat_of_paper,
)
HEAT = (F14, F15)
