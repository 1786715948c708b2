"""Where the time of decoding goes: F8 and F9."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from meltrepro.measure.operators import Breakdown, Share
from meltrepro.report.derive import is_attention
from meltrepro.report.results import CellResult
from meltrepro.studies.melt import paper
from meltrepro.studies.melt.findings import cells as of_cells
from meltrepro.studies.melt.findings.model import Definition, Judgement, Published, Quantity, missing

_LEAST_MATMUL = 0.85
_MOST_ATTENTION, _SHORT = 0.15, 256
_APART = 1.5
"""How many times longer the longer of two contexts must be to be called longer."""
_MOST_SLOWDOWN = 2.0
"""A profiler that stops after every operator adds some time to each: beyond this it is most of what is timed."""
_PRODUCTS = ("mul_mat", "matmul", "fullyconnected", "vector_product", "matrix_product")
"""Of llama.cpp; of the paper's MLC and ONNX Runtime; of OpenVINO; of our MLC."""


def is_weight_matmul(share: Share) -> bool:
    """Whether an operator multiplies by weights, dequantizing them on the way."""
    name = share.name.lower()
    return not is_attention(share) and any(each in name for each in _PRODUCTS)


def matmul_dominates(cells: Sequence[CellResult]) -> Judgement:
    """F8: the part of decoding time within products with weights."""
    profiled = _profiled(cells)
    if not profiled:
        return _unprofiled(cells)
    shares = [_share(found, is_weight_matmul) for _, found in profiled]
    calls = [sum(one.call_share for one in found.shares if is_weight_matmul(one)) for _, found in profiled]
    numbers = {
        "cells": Quantity(len(shares)),
        "matmul_share_median": Quantity(median(shares)),
        "matmul_share_lowest": Quantity(min(shares)),
        "matmul_share_highest": Quantity(max(shares)),
        "share_of_single_calls_median": Quantity(median(calls)),
    }
    reason = f"products with weights take {median(shares):.1%} of decoding in the median"
    return Judgement(median(shares) >= _LEAST_MATMUL, reason, numbers, tuple(cell for cell, _ in profiled))


def _matmul_of_paper() -> tuple[Published, ...]:
    rows = paper.operators()
    decode = [row for row in rows if row.module == "decode" and "dequantize" in row.name and row.time_share is not None]
    (sample,) = (row for row in rows if row.name == "MUL_MAT")
    return (
        Published(
            "matmul_share, Galaxy S23, MLC",
            Quantity(sum(row.time_share or 0 for row in decode)),
            f"derived: {decode[0].source}",
        ),
        Published("matmul_share, a phone's CPU, llama.cpp", Quantity(sample.time_share or 0), sample.source),
    )


def attention_is_minor(cells: Sequence[CellResult]) -> Judgement:
    """F9: the part of decoding time within attention, over the length of the context."""
    known = sorted(
        (
            (position, _share(found, is_attention), cell)
            for cell, found in _profiled(cells)
            if (position := _position(cell))
        ),
        key=lambda point: point[0],
    )
    short = [(position, share, cell) for position, share, cell in known if position <= _SHORT]
    if not known:
        return _unprofiled(cells)
    if not short:
        return missing(f"needs a cell with operators whose context holds {_SHORT} tokens or fewer on average")
    numbers = {
        "cells": Quantity(len(known)),
        "short_share_highest": Quantity(max(share for _, share, _ in short)),
        "shortest": Quantity(known[0][0], "tokens"),
        "longest": Quantity(known[-1][0], "tokens"),
        "longest_share": Quantity(known[-1][1]),
    }
    minor = all(share < _MOST_ATTENTION for _, share, _ in short)
    series = [
        sorted(group, key=lambda point: point[0])
        for group in of_cells.grouped(
            known, lambda point: (of_cells.stack(point[2]), point[2].model, point[2].quantization)
        ).values()
    ]
    steps = [
        after[1] > before[1]
        for group in series
        for i, before in enumerate(group)
        for after in group[i + 1 :]
        if after[0] >= _APART * before[0]
    ]
    numbers["steps"] = Quantity(len(steps))
    numbers["steps_that_grow"] = Quantity(sum(steps))
    notes = () if steps else (f"no model has contexts {_APART:g} times apart: that it grows was not tested",)
    growth = f", and grows in {of_cells.of(sum(steps), len(steps), 'step')} to a longer context" if steps else ""
    highest = numbers["short_share_highest"].value
    reason = f"at {_SHORT} tokens or fewer attention takes {highest:.1%} of decoding at most{growth}"
    return Judgement(minor and all(steps), reason, numbers, tuple(cell for *_, cell in known), notes)


def _attention_of_paper() -> tuple[Published, ...]:
    (row,) = (row for row in paper.operators() if row.module == "decode" and row.role.startswith("attention with"))
    return (Published("attention_share, Galaxy S23, MLC", Quantity(row.time_share or 0), f"derived: {row.source}"),)


def _profiled(cells: Sequence[CellResult]) -> list[tuple[CellResult, Breakdown]]:
    """Cells whose decoding was profiled without slowing it so much that the profiler is what was timed."""
    return [
        (cell, cell.operators["generation"])
        for cell in of_cells.measured(cells)
        if "generation" in cell.operators and (cell.profile_slowdown or 1.0) <= _MOST_SLOWDOWN
    ]


def _unprofiled(cells: Sequence[CellResult]) -> Judgement:
    slow = [
        cell.profile_slowdown
        for cell in of_cells.measured(cells)
        if "generation" in cell.operators and cell.profile_slowdown is not None
    ]
    if not slow:
        return missing("needs a cell with operators: measure: {operators: true}")
    return missing(
        f"the profiler slowed generation {min(slow):.1f} times, so that its stops are most of what was timed; needs "
        f"{_MOST_SLOWDOWN:g} times at most: one thread, or a larger model"
    )


def _share(found: Breakdown, wanted: Callable[[Share], bool]) -> float:
    return sum(share.time_share for share in found.shares if wanted(share))


def _position(cell: CellResult) -> float | None:
    """Mean number of tokens in the context while answers were written."""
    answered = [turn for turn in cell.turns if turn.n_gen > 1]
    tokens = sum(turn.n_gen for turn in answered)
    return sum(turn.n_gen * (turn.n_past - turn.n_gen / 2) for turn in answered) / tokens if tokens else None


F8 = Definition(
    id="F8",
    claim="Products of matrices with dequantization in them dominate the operators.",
    threshold=f"time within products with weights over the decoder's time, generation: {_LEAST_MATMUL:g} or more in the median over cells",
    needs=f"one cell with operators (micro) whose profiler slows it {_MOST_SLOWDOWN:g} times at most: one thread, or a large model",
    decide=matmul_dominates,
    reference=_matmul_of_paper,
)
F9 = Definition(
    id="F9",
    claim="Attention takes little time while the context is short, and more as it grows.",
    threshold=f"time within attention over the decoder's time: below {_MOST_ATTENTION:g} in every cell whose context holds {_SHORT} tokens or fewer on "
    f"average, and larger in every context {_APART:g} times as long, same device, framework, model and quantization",
    needs=f"cells with operators at {_SHORT} tokens or fewer and, of the same model, at {_APART:g} times that or more (two micro workloads), profiled as for F8",
    decide=attention_is_minor,
    direct=False,
    reference=_attention_of_paper,
)
OPERATORS = (F8, F9)
