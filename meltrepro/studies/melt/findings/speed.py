"""How fast, and what that depends on: F1, F2 and F20."""

from __future__ import annotations

from collections.abc import Sequence

from meltrepro.report.results import CellResult, TurnResult
from meltrepro.stats.relation import fit_line, fit_within
from meltrepro.studies.melt.findings import cells as of_cells
from meltrepro.studies.melt.findings.cells import PREFILL, SPEED, middle, middle_of
from meltrepro.studies.melt.findings.model import Decision, Definition, Quantity, missing

_LEAST_R2, _MOST_INTERCEPT = 0.9, 0.25
_FEWEST_MODELS = 3
_LEAST_PROMPT = 16
_FASTER = 3.0
_FEWEST_TURNS, _SIGNIFICANT = 4, 0.05


def memory_bound(cells: Sequence[CellResult]) -> Decision:
    """F1: time per token over weight bytes, within a device, framework and workload."""
    useful = [cell for cell in of_cells.measured(cells, SPEED) if cell.model_bytes]
    groups = of_cells.grouped(useful, lambda cell: (of_cells.stack(cell), cell.workload))
    fits = []
    for group in groups.values():
        if len(of_cells.models(group)) < _FEWEST_MODELS:
            continue
        times = [1 / middle(cell, SPEED) for cell in group]
        line = fit_line([float(cell.model_bytes or 0) for cell in group], times)
        if line is not None:
            fits.append((line, abs(line.intercept) / (sum(times) / len(times)), group))
    if not fits:
        most = max((len(of_cells.models(group)) for group in groups.values()), default=0)
        return missing(
            f"needs {_FEWEST_MODELS} models of different size on one device, framework and workload; at most {most}"
        )
    held = [line.slope > 0 and line.r2 >= _LEAST_R2 and share <= _MOST_INTERCEPT for line, share, _ in fits]
    used = [cell for *_, group in fits for cell in group]
    rates = [middle(cell, SPEED) * (cell.model_bytes or 0) / 1e9 for cell in used]
    numbers = {
        "groups": Quantity(len(fits)),
        "lowest_r2": Quantity(min(line.r2 for line, _, _ in fits)),
        "largest_intercept_share": Quantity(max(share for _, share, _ in fits)),
        "weights_read_low": Quantity(min(rates), "GB/s"),
        "weights_read_high": Quantity(max(rates), "GB/s"),
    }
    reason = f"{of_cells.of(sum(held), len(fits), 'group')} of cells lie on a line through nearly 0"
    return Decision(all(held), reason, numbers, tuple(used))


def prefill_faster(cells: Sequence[CellResult]) -> Decision:
    """F2: speed of reading over speed of writing; on GPUs where there are any."""
    known = [(cell, ratio) for cell in of_cells.measured(cells, SPEED, PREFILL) if (ratio := _phase_ratio(cell))]
    if not known:
        return missing(f"needs a cell whose prompts have {_LEAST_PROMPT} tokens or more")
    on_gpu = [pair for pair in known if pair[0].accelerated]
    used = on_gpu or known
    ratios = [ratio for _, ratio in used]
    faster = sum(ratio > 1 for ratio in ratios)
    numbers = {
        "cells": Quantity(len(used)),
        "ratio_median": Quantity(middle_of(ratios)),
        "ratio_lowest": Quantity(min(ratios)),
        "ratio_highest": Quantity(max(ratios)),
    }
    notes = () if on_gpu else ("no cell ran on a GPU, of which the paper speaks: decided by those on CPUs",)
    reason = (
        f"prefill is faster in {of_cells.of(faster, len(used), 'cell')}, by {middle_of(ratios):.3g} times in the median"
    )
    held = faster == len(used) and middle_of(ratios) >= _FASTER
    return Decision(held, reason, numbers, tuple(cell for cell, _ in used), notes)


def _phase_ratio(cell: CellResult) -> float | None:
    """Median over turns with a prompt that is long enough; of the whole cell where prompts are so on average."""
    ratios = [
        turn.prefill_tps / turn.generation_tps
        for turn in cell.turns
        if turn.prefill_tps and turn.generation_tps and turn.n_prompt >= _LEAST_PROMPT
    ]
    if ratios:
        return middle_of(ratios)
    prompts = cell.metrics.get("prompt_tokens"), cell.metrics.get("turns")
    if cell.turns or prompts[0] is None or prompts[1] is None or prompts[0].median < _LEAST_PROMPT * prompts[1].median:
        return None
    return middle(cell, PREFILL) / middle(cell, SPEED)


def slower_as_context_fills(cells: Sequence[CellResult]) -> Decision:
    """F20: slope of speed over the number of the turn, conversations with a level of their own."""
    known = [cell for cell in of_cells.measured(cells, SPEED) if _long_conversations(cell)]
    if not known:
        return missing(f"needs conversations of {_FEWEST_TURNS} turns or more whose context grows")
    used, fits = [], []
    for cell in known:
        line = fit_within([_over_turns(turns) for turns in _long_conversations(cell)])
        if line is not None:
            used.append(cell)
            fits.append(line)
    if not fits:
        return missing("the turns of no cell are enough for a slope")
    falling = sum(line.slope < 0 and line.p < _SIGNIFICANT for line in fits)
    changes = [line.slope / middle(cell, SPEED) for line, cell in zip(fits, used, strict=True)]
    numbers = {
        "cells": Quantity(len(fits)),
        "cells_that_fall": Quantity(falling),
        "change_per_turn_median": Quantity(100 * middle_of(changes), "%"),
        "largest_p": Quantity(max(line.p for line in fits)),
    }
    alone = sum(len({turn.conversation for turn in cell.turns}) == 1 for cell in used)
    notes = (
        (f"{of_cells.of(alone, len(used), 'cell')} had one conversation a trial, in which heat may slow down too",)
        if alone
        else ()
    )
    reason = f"speed falls from turn to turn in {of_cells.of(falling, len(fits), 'cell')} (p < {_SIGNIFICANT})"
    return Decision(2 * falling > len(fits), reason, numbers, tuple(used), notes)


def _long_conversations(cell: CellResult) -> list[Sequence[TurnResult]]:
    """Turns with a speed, of each conversation that is long enough and whose context grows."""
    timed = [turn for turn in cell.turns if turn.generation_tps]
    groups = of_cells.grouped(timed, lambda turn: (turn.repetition, turn.conversation)).values()
    return [turns for turns in groups if len(turns) >= _FEWEST_TURNS and turns[-1].n_past > turns[0].n_past]


def _over_turns(turns: Sequence[TurnResult]) -> tuple[list[float], list[float]]:
    return [float(turn.turn) for turn in turns], [turn.generation_tps or 0.0 for turn in turns]


F1 = Definition(
    id="F1",
    claim="Generation is bound by memory: the time per token grows in proportion to the bytes of the weights.",
    threshold=f"1/generation_tps over model_bytes, all models and quantizations of a device, framework and workload: R2 >= "
    f"{_LEAST_R2}, slope above 0, intercept at most {_MOST_INTERCEPT:.0%} of the mean time; in every such group",
    needs=f"{_FEWEST_MODELS} models of different size with one framework and workload on one device",
    decide=memory_bound,
)
F2 = Definition(
    id="F2",
    claim="Prefill is much faster than generation.",
    threshold=f"prefill_tps / generation_tps, median over turns with prompts of {_LEAST_PROMPT} tokens or more: above 1 in every GPU "
    f"cell and {_FASTER:g} or more in the median over cells; by CPU cells where there is no other",
    needs=f"one cell with prompts of {_LEAST_PROMPT} tokens or more; with GPU layers for what the paper says",
    decide=prefill_faster,
)
F20 = Definition(
    id="F20",
    claim="Throughput falls as the context fills.",
    threshold=f"slope of a turn's generation_tps over its number, each conversation with a level of its own: negative with p < {_SIGNIFICANT:g} "
    "in more than half of the cells",
    needs=f"conversations of {_FEWEST_TURNS} turns or more with a growing context, better several a trial (macro)",
    decide=slower_as_context_fills,
    direct=False,
)
SPEEDS = (F1, F2, F20)
