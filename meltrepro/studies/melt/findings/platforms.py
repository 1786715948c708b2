"""Devices and frameworks beside each other, and what ran on them at all: F3, F16 to F18 and F22."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import log
from statistics import median

from meltrepro.report.results import CellResult
from meltrepro.studies.melt import paper
from meltrepro.studies.melt.findings import cells as of_cells
from meltrepro.studies.melt.findings.cells import BOARDS, ENERGY, PHONES, SPEED, median_of
from meltrepro.studies.melt.findings.model import Definition, Judgement, Published, Quantity, missing

_WIDE = 2.0
_MOST_GAIN = 1.1
_DIFFERENT = 0.1
_OFFLOAD = 2.0


def platforms_differ(cells: Sequence[CellResult]) -> Judgement:
    """F3: fastest device over slowest, with the same model, quantization and workload."""
    found = of_cells.best_by_kind(
        cells, lambda cell: (cell.model, cell.quantization, cell.framework, cell.workload), of_cells.device
    )
    if not found:
        return missing("needs one model, quantization and workload on two devices")
    spreads = [max(best.values()) / min(best.values()) for best, _ in found]
    numbers = {
        "models": Quantity(len(spreads)),
        "spread_median": Quantity(median(spreads)),
        "spread_highest": Quantity(max(spreads)),
    }
    reason = f"the fastest device is {median(spreads):.3g} times as fast as the slowest"
    return Judgement(median(spreads) >= _WIDE, reason, numbers, _cells_of(found))


def gpu_brings_nothing(cells: Sequence[CellResult]) -> Judgement:
    """F16: llama.cpp on Android with the GPU over without."""
    found = of_cells.best_by_kind(
        [cell for cell in cells if cell.device.kind == "android" and cell.framework == "llama.cpp"],
        lambda cell: (of_cells.device(cell), cell.release, cell.model, cell.quantization, cell.workload),
        lambda cell: cell.accelerated,
    )
    if not found:
        return missing("needs llama.cpp on an Android device with and without GPU, all else alike")
    gains = [best[True] / best[False] for best, _ in found]
    numbers = {
        "pairs": Quantity(len(gains)),
        "gain_median": Quantity(median(gains)),
        "gain_highest": Quantity(max(gains)),
    }
    reason = f"with the GPU generation is {median(gains):.3g} times as fast as without"
    return Judgement(max(gains) <= _MOST_GAIN, reason, numbers, _cells_of(found))


def _gpu_of_paper() -> tuple[Published, ...]:
    rows = [row for row in paper.throughput() if row.metric == "generation_throughput"]
    cpu, gpu = (next(row for row in rows if name in row.framework) for name in ("CPU", "GPU"))
    return (Published("gain", Quantity(gpu.value / cpu.value), gpu.source, secondhand=True),)


def frameworks_differ(cells: Sequence[CellResult]) -> Judgement:
    """F17: two kinds of framework with a model in as many bits on one device."""
    found = of_cells.best_by_kind(cells, of_cells.same_bits, lambda cell: cell.framework)
    if not found:
        return missing("needs two frameworks (llama.cpp and another) with one model in as many bits on one device")
    ratios = [max(a, b) / min(a, b) for best, _ in found for a, b in combinations(best.values(), 2)]
    apart = sum(abs(log(ratio)) > _DIFFERENT for ratio in ratios)
    numbers = {
        "pairs": Quantity(len(ratios)),
        "pairs_that_differ": Quantity(apart),
        "ratio_median": Quantity(median(ratios)),
    }
    reason = f"{of_cells.of(apart, len(ratios), 'pair')} of frameworks differ by more than a tenth"
    return Judgement(2 * apart > len(ratios), reason, numbers, _cells_of(found))


def boards_for_offloading(cells: Sequence[CellResult]) -> Judgement:
    """F18: the best board against the best phone, 4 bits, the largest model that both ran."""
    four = [cell for cell in of_cells.measured(cells, SPEED) if of_cells.bits(cell.quantization) == 4]
    groups = [
        (group, [c for c in group if c.device.kind in BOARDS], [c for c in group if c.device.kind in PHONES])
        for group in of_cells.grouped(four, lambda cell: (cell.model, cell.quantization, cell.workload)).values()
    ]
    both = [found for found in groups if found[1] and found[2]]
    if not both:
        return missing("needs one model in 4 bits and one workload on a Jetson board and on a phone")
    _, boards, phones = max(both, key=lambda found: max(cell.parameters or 0 for cell in found[0]))
    board, phone = (max(group, key=lambda cell: median_of(cell, SPEED)) for group in (boards, phones))
    ratio = median_of(board, SPEED) / median_of(phone, SPEED)
    numbers = {"speed_ratio": Quantity(ratio)}
    notes = []
    if (board.parameters or 0) < of_cells.SEVEN_BILLION:
        notes.append(f"no model of 7 billion parameters ran on both: decided by {board.model}")
    thrifty = True
    if ENERGY in board.metrics and ENERGY in phone.metrics:
        numbers["board_energy_per_token"] = Quantity(median_of(board, ENERGY), "J")
        numbers["phone_energy_per_token"] = Quantity(median_of(phone, ENERGY), "J")
        thrifty = median_of(board, ENERGY) <= median_of(phone, ENERGY)
    else:
        notes.append("the energy of one of them is not known: decided by speed alone")
    reason = f"the best board is {ratio:.3g} times as fast as the best phone" + (
        "" if thrifty else ", and needs more energy"
    )
    return Judgement(ratio >= _OFFLOAD and thrifty, reason, numbers, (board, phone), tuple(notes))


def _cells_of(found: Sequence[tuple[object, Sequence[CellResult]]]) -> tuple[CellResult, ...]:
    return tuple(cell for _, group in found for cell in group)


F3 = Definition(
    id="F3",
    claim="Platforms differ widely in speed.",
    threshold=f"generation_tps of the fastest device over that of the slowest, same model, quantization, framework and workload: {_WIDE:g} "
    "or more in the median",
    needs="one model, quantization and workload on two devices",
    decide=platforms_differ,
)
F16 = Definition(
    id="F16",
    claim="On Android, llama.cpp gains nothing from the GPU.",
    threshold=f"generation_tps with GPU layers over without: at most {_MOST_GAIN:g} in every pair",
    needs="llama.cpp on an Android device with and without GPU layers, same release, model, quantization and workload",
    decide=gpu_brings_nothing,
    reference=_gpu_of_paper,
)
F17 = Definition(
    id="F17",
    claim="Frameworks differ on the same silicon.",
    threshold=f"|ln of the ratio of generation_tps| > {_DIFFERENT:g} in more than half of the pairs of frameworks, same device, model, bits "
    "and workload",
    needs="two frameworks (not two releases of one) with one model in as many bits on one device",
    decide=frameworks_differ,
    direct=False,
)
F18 = Definition(
    id="F18",
    claim="Edge boards are the practical place to offload to.",
    threshold=f"best board over best phone, largest common model in 4 bits: generation_tps {_OFFLOAD:g} times or more, and energy_per_token_j "
    "not above the phone's where both show it",
    needs="one model in 4 bits and one workload on a Jetson board and on a phone; of 7 billion parameters for what the paper says",
    decide=boards_for_offloading,
)


_FEWEST_MODELS = 3
_CIRCUMSTANCES = frozenset(
    {
        "pending",
        "target",
        "store",
        "accuracy",
        "gate-closed",
        "target-error",
        "meter-error",
        "metric-unavailable",
        "killed",
    }
)
"""Causes that say something of the day or of the lab, and nothing of the framework on the device."""


def nothing_ran_everything(cells: Sequence[CellResult]) -> Judgement:
    """F22: for each class of devices and each framework, whether some cell could not be run."""
    tried = [cell for cell in of_cells.latest(cells) if cell.cause not in _CIRCUMSTANCES]
    groups = {
        key: group
        for key, group in of_cells.grouped(tried, lambda cell: (cell.device.kind, cell.framework)).items()
        if len(of_cells.models(group)) >= _FEWEST_MODELS
    }
    if not groups:
        return missing(f"needs {_FEWEST_MODELS} models or more that a framework was asked for on one device")
    failed = {key: [cell for cell in group if cell.state in ("failed", "skipped")] for key, group in groups.items()}
    complete = [f"{framework} on {kind}" for (kind, framework), found in failed.items() if not found]
    causes = Counter(cell.cause or "unknown" for found in failed.values() for cell in found)
    numbers = {
        "frameworks_on_devices": Quantity(len(groups)),
        "cells": Quantity(sum(map(len, groups.values()))),
        "cells_that_failed": Quantity(sum(map(len, failed.values()))),
        **{f"failed_{cause}": Quantity(count) for cause, count in sorted(causes.items())},
    }
    notes = tuple(f"{cell.cell}: {cell.reason}" for found in failed.values() for cell in found[:2])
    reason = (
        f"everything that was asked for ran with {of_cells.listed(complete)}"
        if complete
        else "something could not be run with every framework on every class of devices"
    )
    evidence = tuple(cell for key, found in failed.items() for cell in found or groups[key])
    return Judgement(not complete, reason, numbers, evidence, notes)


F22 = Definition(
    id="F22",
    claim="No framework ran every model on every class of devices.",
    threshold="each framework on each class of devices has one cell or more that failed, or was skipped because it cannot run there "
    "(memory, disk, context, or the framework lacks it); what failed by circumstance does not count",
    needs=f"{_FEWEST_MODELS} models or more on one device, best the whole zoo, unquantized too; skipped cells count",
    decide=nothing_ran_everything,
    direct=False,
)
PLATFORMS = (F3, F16, F17, F18, F22)
