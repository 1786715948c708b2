"""Speed, and what quantization does to it and to size: F1, F2, F4, F5 and F20."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from meltrepro.report.results import CellResult, TurnResult
from meltrepro.stats.relation import fit_line, fit_within
from meltrepro.studies.melt import paper
from meltrepro.studies.melt.findings import cells as of_cells
from meltrepro.studies.melt.findings.cells import FULL_BITS, PREFILL, SPEED, median_of
from meltrepro.studies.melt.findings.model import Definition, Judgement, Published, Quantity, missing

_LEAST_R2, _MOST_INTERCEPT = 0.9, 0.25
_FEWEST_MODELS = 3
_LEAST_PROMPT = 16
_FASTER = 3.0
_FEWEST_TURNS, _SIGNIFICANT = 4, 0.05


def memory_bound(cells: Sequence[CellResult]) -> Judgement:
    """F1: time per token over weight bytes, within a device, framework and workload."""
    useful = [cell for cell in of_cells.measured(cells, SPEED) if cell.model_bytes]
    groups = of_cells.grouped(useful, lambda cell: (of_cells.stack(cell), cell.workload))
    fits = []
    for group in groups.values():
        if len(of_cells.models(group)) < _FEWEST_MODELS:
            continue
        times = [1 / median_of(cell, SPEED) for cell in group]
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
    rates = [median_of(cell, SPEED) * (cell.model_bytes or 0) / 1e9 for cell in used]
    numbers = {
        "groups": Quantity(len(fits)),
        "lowest_r2": Quantity(min(line.r2 for line, _, _ in fits)),
        "largest_intercept_share": Quantity(max(share for _, share, _ in fits)),
        "weights_read_low": Quantity(min(rates), "GB/s"),
        "weights_read_high": Quantity(max(rates), "GB/s"),
    }
    reason = f"{of_cells.of(sum(held), len(fits), 'group')} of cells lie on a line through nearly 0"
    return Judgement(all(held), reason, numbers, tuple(used))


def prefill_faster(cells: Sequence[CellResult]) -> Judgement:
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
        "ratio_median": Quantity(median(ratios)),
        "ratio_lowest": Quantity(min(ratios)),
        "ratio_highest": Quantity(max(ratios)),
    }
    notes = () if on_gpu else ("no cell ran on a GPU, of which the paper speaks: decided by those on CPUs",)
    reason = (
        f"prefill is faster in {of_cells.of(faster, len(used), 'cell')}, by {median(ratios):.3g} times in the median"
    )
    held = faster == len(used) and median(ratios) >= _FASTER
    return Judgement(held, reason, numbers, tuple(cell for cell, _ in used), notes)


def _phase_ratio(cell: CellResult) -> float | None:
    """Median over turns with a prompt that is long enough; of the whole cell where prompts are so on average."""
    ratios = [
        turn.prefill_tps / turn.generation_tps
        for turn in cell.turns
        if turn.prefill_tps and turn.generation_tps and turn.n_prompt >= _LEAST_PROMPT
    ]
    if ratios:
        return median(ratios)
    prompts = cell.metrics.get("prompt_tokens"), cell.metrics.get("turns")
    if cell.turns or prompts[0] is None or prompts[1] is None or prompts[0].median < _LEAST_PROMPT * prompts[1].median:
        return None
    return median_of(cell, PREFILL) / median_of(cell, SPEED)


def slower_as_context_fills(cells: Sequence[CellResult]) -> Judgement:
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
    changes = [line.slope / median_of(cell, SPEED) for line, cell in zip(fits, used, strict=True)]
    numbers = {
        "cells": Quantity(len(fits)),
        "cells_that_fall": Quantity(falling),
        "change_per_turn_median": Quantity(100 * median(changes), "%"),
        "largest_p": Quantity(max(line.p for line in fits)),
    }
    alone = sum(len({turn.conversation for turn in cell.turns}) == 1 for cell in used)
    notes = (
        (f"{of_cells.of(alone, len(used), 'cell')} had one conversation a trial, in which heat may slow down too",)
        if alone
        else ()
    )
    reason = f"speed falls from turn to turn in {of_cells.of(falling, len(fits), 'cell')} (p < {_SIGNIFICANT})"
    return Judgement(2 * falling > len(fits), reason, numbers, tuple(used), notes)


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


_LEAST_SMALLER = 1.05
"""How much larger the file in 4 bits must be: where most tensors fall back to another type, there is nothing to compare."""
_LEAST_RATIO = 3.3
_MOST_MEMORY = 0.8
"""Part of a device's memory that weights may take, where that they fit is only computed."""
_TOO_LARGE = ("memory", "out-of-memory")
"""Causes of a cell that did not fit: by the plan, or when it was tried."""


def bits_and_speed(cells: Sequence[CellResult]) -> Judgement:
    """F4: what 3 bits gain in speed beside what they save in bytes."""
    useful = [cell for cell in of_cells.measured(cells, SPEED) if cell.model_bytes]
    groups = of_cells.grouped(useful, lambda cell: (of_cells.stack(cell), cell.model, cell.workload))
    pairs = [pair for group in groups.values() for pair in _pairs(group)]
    if not pairs:
        return missing(
            "needs one model in 3 and in 4 bits, with files that differ by 5 % or more, same device, framework and workload"
        )
    gains = [median_of(three, SPEED) / median_of(four, SPEED) for three, four in pairs]
    savings = [(four.model_bytes or 0) / (three.model_bytes or 1) for three, four in pairs]
    short = sum(gain < saving for gain, saving in zip(gains, savings, strict=True))
    slower = sum(gain <= 1 for gain in gains)
    numbers = {
        "pairs": Quantity(len(pairs)),
        "pairs_that_gain_less": Quantity(short),
        "pairs_not_faster": Quantity(slower),
        "speed_ratio_median": Quantity(median(gains)),
        "bytes_ratio_median": Quantity(median(savings)),
    }
    reason = f"3 bits gain less speed than bytes in {of_cells.of(short, len(pairs), 'pair')} and are no faster than 4 in {slower}"
    return Judgement(2 * short > len(pairs), reason, numbers, tuple(cell for pair in pairs for cell in pair))


def _pairs(group: Sequence[CellResult]) -> Iterator[tuple[CellResult, CellResult]]:
    """Each quantization in 3 bits with the one in 4 of its own scheme, or with any where there is none."""
    fours = [cell for cell in group if of_cells.bits(cell.quantization) == 4]
    for three in group:
        if of_cells.bits(three.quantization) != 3:
            continue
        same = [four for four in fours if of_cells.scheme(four.quantization) == of_cells.scheme(three.quantization)]
        for four in same or fours:
            if (four.model_bytes or 0) >= _LEAST_SMALLER * (three.model_bytes or 0):
                yield three, four


def _sizes_of_paper() -> tuple[Published, ...]:
    disk = {row.quantization: row for row in paper.sizes() if row.model == "llama-2-7b"}
    three, four = disk["q3_k"], disk["q4_k"]
    source = f"derived: {four.source} over {three.source}"
    return (Published("bytes_ratio of llama-2-7b", Quantity(four.disk_gb / three.disk_gb), source),)


@dataclass(frozen=True)
class _Fit:
    """Whether one model fits on one device, without quantization and in 4 bits."""

    model: str
    parameters: float
    four: CellResult
    """The cell in 4 bits; of another model, whose bits per weight are taken, where `computed`."""
    four_bytes: float
    computed: bool
    full: CellResult | None
    """The cell without quantization, where one was asked for."""

    @property
    def ratio(self) -> float:
        """Bytes without quantization, by the file or else by 16 bits a parameter, over those in 4 bits."""
        file = self.full.model_bytes if self.full is not None else None
        return float(file or self.parameters * FULL_BITS / 8) / self.four_bytes

    @property
    def full_fits(self) -> bool:
        """By what happened to a cell in 16 bits; one in 32 bits that did not fit says nothing of 16."""
        if self.full is not None and _loaded(self.full):
            return True
        if self.full is not None and of_cells.bits(self.full.quantization) in (FULL_BITS, None):
            return False
        memory = self.four.device.memory_bytes
        return memory is None or self.parameters * FULL_BITS / 8 <= memory

    @property
    def large(self) -> bool:
        return self.parameters >= of_cells.SEVEN_BILLION


def quantization_makes_fit(cells: Sequence[CellResult]) -> Judgement:
    """F5: models that load in 4 bits, and whether they would without; of 7 billion parameters where there are any."""
    known = list(_fits(cells))
    if not known:
        return missing("needs a model that loaded in 4 bits and whose number of parameters is known")
    large = [fit for fit in known if fit.large]
    # A small model that fits as it is says nothing against the claim; one that does not fit speaks for it.
    used = large or [fit for fit in known if not fit.full_fits]
    largest = max(known, key=lambda fit: fit.parameters)
    if not used:
        numbers = {"weight_ratio": Quantity(largest.ratio)}
        text = f"the largest model that loaded in 4 bits, {largest.model}, fits without quantization too; needs a larger one"
        return missing(text, numbers, largest.four)
    out = [fit for fit in used if not fit.full_fits]
    numbers = {
        "models": Quantity(len(used)),
        "models_that_need_it": Quantity(len(out)),
        "weight_ratio_lowest": Quantity(min(fit.ratio for fit in used)),
        "weight_ratio_median": Quantity(median([fit.ratio for fit in used])),
    }
    evidence = [cell for fit in used for cell in (fit.four, fit.full) if cell is not None]
    notes = []
    if not large:
        notes.append("no model of 7 billion parameters loaded: decided by smaller ones that do not fit unquantized")
    if any(fit.full is None for fit in used):
        notes.append("where no cell without quantization was asked for, its size is that of 16 bits a parameter")
    if guessed := [fit for fit in used if fit.computed]:
        notes.append(
            f"{of_cells.listed(fit.model for fit in guessed)} did not run in 4 bits: that it fits is computed from the bits per "
            f"weight of {of_cells.listed(fit.four.model for fit in guessed)} and the memory of the device"
        )
    reason = f"{of_cells.of(len(out), len(used), 'model')} fit in 4 bits and not without quantization"
    held = len(out) == len(used) and median([fit.ratio for fit in used]) >= _LEAST_RATIO
    return Judgement(held, reason, numbers, tuple(evidence), tuple(notes))


def _loaded(cell: CellResult) -> bool:
    """Whether it ran, however well: what is INVALID was loaded too."""
    return cell.state in ("measured", "invalid")


def _fits(cells: Sequence[CellResult]) -> Iterator[_Fit]:
    """One for each device, framework and model that loaded in 4 bits, or must fit by what others need."""
    for stack in of_cells.grouped(cells, lambda cell: (of_cells.device(cell), cell.framework)).values():
        fours = [cell for cell in stack if _loaded(cell) and _in_four_bits(cell) and cell.model_bytes]
        known = [cell for cell in fours if cell.parameters]
        lean = min(known, key=lambda cell: (cell.bits_per_weight or 0, cell.cell), default=None)
        for model, group in of_cells.grouped(stack, lambda cell: cell.model).items():
            parameters = max((cell.parameters or 0 for cell in group), default=0)
            own = [cell for cell in fours if cell.model == model]
            if parameters and own:
                four = min(own, key=lambda cell: (cell.model_bytes or 0, cell.cell))
                yield _Fit(model, parameters, four, float(four.model_bytes or 0), computed=False, full=_full(group))
            elif parameters and lean is not None and (fit := _computed(model, parameters, group, lean)):
                yield fit


def _computed(model: str, parameters: float, group: Sequence[CellResult], lean: CellResult) -> _Fit | None:
    """Of a model that did not load unquantized and was not asked for in 4 bits; `lean` spends the fewest bits on a weight."""
    full = _full(group)
    needed = parameters * (lean.bits_per_weight or 0) / 8
    asked = full is not None and not _loaded(full) and not any(map(_in_four_bits, group))
    fits = needed <= _MOST_MEMORY * (lean.device.memory_bytes or 0)
    return _Fit(model, parameters, lean, needed, computed=True, full=full) if asked and fits else None


def _full(group: Sequence[CellResult]) -> CellResult | None:
    """The cell of a model without quantization in the fewest bits: one that loaded, else one that was too large."""
    cells = [cell for cell in group if of_cells.unquantised(cell)]
    decided = [cell for cell in cells if _loaded(cell)] or [cell for cell in cells if cell.cause in _TOO_LARGE]
    return min(decided, key=lambda cell: (of_cells.bits(cell.quantization) or 0, cell.cell), default=None)


def _in_four_bits(cell: CellResult) -> bool:
    return of_cells.bits(cell.quantization) == 4


def _ratio_of_paper() -> tuple[Published, ...]:
    rows = {(row.model, row.quantization): row for row in paper.sizes()}
    return tuple(
        Published(
            f"weight_ratio of {model}",
            Quantity(rows[model, "unquantised"].disk_gb / rows[model, "q4_k"].disk_gb),
            f"derived: {rows[model, 'unquantised'].source} over {rows[model, 'q4_k'].source}",
        )
        for model in ("llama-2-7b", "mistral-7b-v0.1")
    )


F4 = Definition(
    id="F4",
    claim="Fewer bits do not buy as much speed as they save memory; 3 bits may even be slower than 4.",
    threshold="generation_tps of 3 bits over 4 < bytes of 4 bits over 3, same device, framework, model, scheme and workload: in more than "
    "half of the pairs",
    needs="one model in q3_K and q4_K with one workload on one device; not one whose tensors fall back to other types",
    decide=bits_and_speed,
    reference=_sizes_of_paper,
)
F5 = Definition(
    id="F5",
    claim="Quantization is what makes models of 7 billion parameters fit.",
    threshold="each model of 7 billion parameters that loads in 4 bits does not fit without quantization (skipped or killed for lack of "
    f"memory, or 16 bits a parameter exceed the device's), and weights shrink {_LEAST_RATIO:g} times or more in the median",
    needs="a model of 7 billion parameters or more in 4 bits (a cell without quantization may be skipped for lack of memory), or a "
    "smaller one that does not fit without; or, where only the large model's unquantized cell was asked for and skipped, another model in 4 bits",
    decide=quantization_makes_fit,
    reference=_ratio_of_paper,
)
SPEEDS = (F1, F2, F4, F5, F20)
