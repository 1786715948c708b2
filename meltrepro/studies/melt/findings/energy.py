"""Energy, charge and power: F10 to F13, F19 and F21."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from math import isfinite
from statistics import median

from meltrepro.report.results import CellResult, budget_w
from meltrepro.stats.relation import spearman
from meltrepro.studies.melt import paper
from meltrepro.studies.melt.findings import cells as of_cells
from meltrepro.studies.melt.findings.cells import ENERGY, PHONES, PREFILL, SPEED, median_of
from meltrepro.studies.melt.findings.model import Definition, Judgement, Published, Quantity, missing

_LEAST_RANK = 0.8
_FEWEST_SIZES = 4
_LEAST_PROMPTS, _MOST_PROMPTS = 100, 2000
_MOST_HOURS = 5.0
_FEWEST_MODES = 3
_SAME_SPEED = 0.02
"""Share by which a mode of more power may be slower and still count as not slower."""
_PHASES_APART, _IDLE = 0.1, 0.8
_CHARGES = ("prefill_charge_mah", "generation_charge_mah")
_PHASES = ("prefill_power_w", "generation_power_w")
_NO_POWER = "no cell has it: the device shows no power, and there is no meter"


def energy_rises(cells: Sequence[CellResult]) -> Judgement:
    """F10: rank correlation of energy per token and weight bytes."""
    useful = [cell for cell in of_cells.measured(cells, ENERGY) if cell.model_bytes]
    if not useful:
        return missing(f"needs energy per token: {of_cells.why_lacking(cells, ENERGY) or _NO_POWER}")
    ranks, used = [], list[CellResult]()
    for group in of_cells.grouped(useful, lambda cell: (of_cells.stack(cell), cell.workload)).values():
        if len({cell.model_bytes for cell in group}) < _FEWEST_SIZES:
            continue
        rank = spearman([median_of(cell, ENERGY) for cell in group], [float(cell.model_bytes or 0) for cell in group])
        if rank is not None:
            ranks.append(rank)
            used += group
    if not ranks:
        return missing(
            f"needs energy per token of files of {_FEWEST_SIZES} sizes with one framework and workload on one device"
        )
    values = [median_of(cell, ENERGY) for cell in used]
    numbers = {
        "groups": Quantity(len(ranks)),
        "lowest_rank_correlation": Quantity(min(ranks)),
        "energy_per_token_low": Quantity(min(values), "J"),
        "energy_per_token_high": Quantity(max(values), "J"),
    }
    reason = f"energy per token and size go together with a rank correlation of {min(ranks):.3g} or more"
    alone = len(of_cells.models(used)) == 1
    notes = ("the sizes are those of one model in several quantizations",) if alone else ()
    return Judgement(min(ranks) > _LEAST_RANK, reason, numbers, tuple(used), notes)


def _range_of_paper(name: str, unit: str, scale: float = 1.0) -> tuple[Published, ...]:
    """Both ends of a range, each the paper's value times `scale`."""
    rows = [paper.figure(paper.energy(), f"{name}_{end}") for end in ("low", "high")]
    return tuple(
        Published(row.metric, Quantity(row.value * scale, unit), row.source, secondhand=row.secondhand) for row in rows
    )


def faster_is_cheaper(cells: Sequence[CellResult]) -> Judgement:
    """F11: pairs of frameworks with one model on one device, by speed and by energy."""
    groups = of_cells.grouped(of_cells.measured(cells, ENERGY, SPEED), of_cells.same_bits)
    pairs = [
        (a, b)
        for group in groups.values()
        for a, b in combinations(group, 2)
        if (a.framework, a.release, a.accelerated) != (b.framework, b.release, b.accelerated)
    ]
    if not pairs:
        return missing(
            "needs energy per token of one model in as many bits with two frameworks or releases on one device"
        )
    odd = [
        (a, b)
        for a, b in pairs
        if (median_of(a, SPEED) - median_of(b, SPEED)) * (median_of(a, ENERGY) - median_of(b, ENERGY)) >= 0
    ]
    numbers = {"pairs": Quantity(len(pairs)), "exceptions": Quantity(len(odd))}
    notes = (f"exceptions: {of_cells.listed(f'{a.cell} and {b.cell}' for a, b in odd)}",) if odd else ()
    reason = f"the faster one needs less energy per token in {of_cells.of(len(pairs) - len(odd), len(pairs), 'pair')}"
    used = tuple(cell for pair in pairs for cell in pair)
    return Judgement(2 * len(odd) < len(pairs), reason, numbers, used, notes)


def battery_lasts(cells: Sequence[CellResult]) -> Judgement:
    """F12: prompts per full battery, phone by phone."""
    known = _discharged(cells)
    if isinstance(known, Judgement):
        return known
    prompts = {
        key: median([_capacity(cell) * median_of(cell, "turns") / _charge(cell) for cell in group])
        for key, group in of_cells.grouped(known, of_cells.device).items()
    }
    within = sum(_LEAST_PROMPTS <= value <= _MOST_PROMPTS for value in prompts.values())
    numbers = {
        "phones": Quantity(len(prompts)),
        "prompts_lowest": Quantity(min(prompts.values()), "prompts"),
        "prompts_highest": Quantity(max(prompts.values()), "prompts"),
    }
    reason = f"a full battery lasts {_LEAST_PROMPTS} to {_MOST_PROMPTS} prompts on {of_cells.of(within, len(prompts), 'phone')}"
    return Judgement(within == len(prompts), reason, numbers, tuple(known))


def hours_to_empty(cells: Sequence[CellResult]) -> Judgement:
    """F13: capacity over mean current, in the workload with most turns of each phone."""
    known = _discharged(cells, PREFILL, SPEED, "prompt_tokens", "generated_tokens")
    if isinstance(known, Judgement):
        return known
    hours = {}
    used = []
    for key, group in of_cells.grouped(known, of_cells.device).items():
        cell = max(group, key=lambda cell: median_of(cell, "turns"))
        used.append(cell)
        hours[key] = _capacity(cell) / (_charge(cell) / _busy_h(cell))
    numbers = {
        "phones": Quantity(len(hours)),
        "hours_lowest": Quantity(min(hours.values()), "h"),
        "hours_highest": Quantity(max(hours.values()), "h"),
    }
    hot = [median_of(cell, "temperature_max_c") for cell in used if "temperature_max_c" in cell.metrics]
    if hot:
        numbers["temperature_highest"] = Quantity(max(hot), "degC")
    short = sum(value < _MOST_HOURS for value in hours.values())
    reason = f"without a pause the battery is empty in less than {_MOST_HOURS:g} h on {of_cells.of(short, len(hours), 'phone')}"
    return Judgement(short == len(hours), reason, numbers, tuple(used))


def _hours_of_paper() -> tuple[Published, ...]:
    power = paper.figure(paper.energy(), "power_sustained")
    stored = paper.figure(paper.energy(), "nominal_energy_at_supply_voltage", "iPhone 14 Pro")
    source = f"derived: {stored.source}; over {power.source}"
    return (Published("hours of an iPhone 14 Pro", Quantity(stored.value / power.value, "h"), source, secondhand=True),)


def _discharged(cells: Sequence[CellResult], *metrics: str) -> list[CellResult] | Judgement:
    """Cells of phones whose battery's capacity and charge are known, or why there is none."""
    phones = [cell for cell in cells if cell.device.kind in PHONES]
    if not phones:
        return missing("needs a phone: no cell is of one")
    if not of_cells.measured(phones):
        return missing(f"no cell of a phone was measured: {of_cells.why_unmeasured(phones)}")
    charged = [cell for cell in of_cells.measured(phones, *_CHARGES, "turns", *metrics) if _charge(cell) > 0]
    if not charged:
        why = of_cells.why_lacking(of_cells.measured(phones), *_CHARGES, "turns", *metrics)
        return missing(f"needs the charge that prompts draw: {why or 'no phone shows a current whose unit is known'}")
    known = [cell for cell in charged if cell.device.battery_mah]
    return known or missing("needs the capacity of the battery, which no phone tells")


def _capacity(cell: CellResult) -> float:
    return cell.device.battery_mah or 0.0


def _charge(cell: CellResult) -> float:
    """Of all prompts of a repetition, mAh."""
    return sum(median_of(cell, name) for name in _CHARGES)


def _busy_h(cell: CellResult) -> float:
    """Time within prefill and generation of a repetition, hours."""
    prefill_s = median_of(cell, "prompt_tokens") / median_of(cell, PREFILL)
    generation_s = (median_of(cell, "generated_tokens") - median_of(cell, "turns")) / median_of(cell, SPEED)
    return (prefill_s + generation_s) / 3600


def budgets_trade(cells: Sequence[CellResult]) -> Judgement:
    """F19: speed and energy per token over the power modes of a board."""
    useful = [cell for cell in of_cells.measured(cells, SPEED, ENERGY) if watts(cell.device.power_mode) is not None]
    groups = of_cells.grouped(
        useful,
        lambda cell: (
            of_cells.device(cell),
            cell.framework,
            cell.release,
            cell.model,
            cell.quantization,
            cell.workload,
        ),
    )
    series = [
        sorted(group, key=lambda cell: watts(cell.device.power_mode) or 0)
        for group in groups.values()
        if len({watts(cell.device.power_mode) for cell in group}) >= _FEWEST_MODES
    ]
    if not series:
        return missing(f"needs energy and speed of one model in {_FEWEST_MODES} power modes of a Jetson board")
    fine = 0
    for group in series:
        faster = all(median_of(b, SPEED) >= (1 - _SAME_SPEED) * median_of(a, SPEED) for a, b in pairwise(group))
        steps = [median_of(b, ENERGY) - median_of(a, ENERGY) for a, b in pairwise(group)]
        fine += faster and min(steps) < 0 < max(steps)
    best = min((cell for group in series for cell in group), key=lambda cell: median_of(cell, ENERGY))
    numbers = {
        "series": Quantity(len(series)),
        "series_as_claimed": Quantity(fine),
        "lowest_energy_per_token": Quantity(median_of(best, ENERGY), "J"),
    }
    notes = (f"{best.model} {best.quantization} needs least energy per token in mode {best.device.power_mode}",)
    reason = f"speed rises with the budget while energy per token has an optimum inside in {of_cells.of(fine, len(series), 'case')}"
    return Judgement(fine == len(series), reason, numbers, tuple(cell for group in series for cell in group), notes)


def watts(power_mode: str | None) -> float | None:
    """The budget that the name of a power mode tells: 15 of `15W` or `MODE_15W`; infinite for `MAXN`, which has none."""
    mode = power_mode or ""
    budget = budget_w(mode)
    return budget if isfinite(budget) or mode.upper().startswith("MAXN") else None


def power_by_phase(cells: Sequence[CellResult]) -> Judgement:
    """F21: mean power of prefill, of generation and at rest."""
    shown = of_cells.measured(cells, *_PHASES)
    useful = [cell for cell in shown if min(median_of(cell, phase) for phase in _PHASES) > 0]
    if not useful:
        return missing(f"needs the power of both phases: {of_cells.why_lacking(cells, *_PHASES) or _NO_POWER}")
    ratios = [median_of(cell, _PHASES[0]) / median_of(cell, _PHASES[1]) for cell in useful]
    apart = sum(abs(ratio - 1) > _PHASES_APART for ratio in ratios)
    numbers = {
        "cells": Quantity(len(useful)),
        "cells_whose_phases_differ": Quantity(apart),
        "prefill_over_generation_median": Quantity(median(ratios)),
    }
    rested = [cell for cell in useful if "idle_power_w" in cell.metrics]
    low = True
    if rested:
        shares = [median_of(cell, "idle_power_w") / min(median_of(cell, phase) for phase in _PHASES) for cell in rested]
        numbers["idle_share_highest"] = Quantity(max(shares))
        low = max(shares) <= _IDLE
    notes = () if rested else ("power at rest was not measured (protocol.idle_s): decided by the two phases alone",)
    reason = f"prefill and generation draw different power in {of_cells.of(apart, len(useful), 'cell')}"
    return Judgement(2 * apart > len(useful) and low, reason, numbers, tuple(useful), notes)


F10 = Definition(
    id="F10",
    claim="Energy per token rises with the size of the model.",
    threshold=f"Spearman(energy_per_token_j, model_bytes) > {_LEAST_RANK:g} within every device, framework and workload; the paper's figure "
    "includes prefill, ours is of generation",
    needs=f"energy of files of {_FEWEST_SIZES} sizes, best of several models, with one framework and workload on one device that shows its power",
    decide=energy_rises,
    reference=lambda: _range_of_paper("energy_per_token", "J", 3.6),
)
F11 = Definition(
    id="F11",
    claim="What is faster is usually cheaper per token.",
    threshold="of two frameworks, releases or backends with one model in as many bits on one device, the faster one has the lower "
    "energy_per_token_j: in more than half of the pairs",
    needs="energy of one model with two frameworks or two releases on one device that shows its power",
    decide=faster_is_cheaper,
    direct=False,
)
F12 = Definition(
    id="F12",
    claim="A full battery lasts a few hundred prompts.",
    threshold=f"capacity / charge drawn per prompt, median over a phone's cells: {_LEAST_PROMPTS} to {_MOST_PROMPTS} on every phone",
    needs="a phone with a calibrated current (`meltrepro devices probe`) or a meter, and the capacity of its battery",
    decide=battery_lasts,
    reference=lambda: _range_of_paper("prompts_until_battery_empty", "prompts"),
)
F13 = Definition(
    id="F13",
    claim="Continuous use is impractical: the battery is soon empty.",
    threshold=f"capacity / mean current of the workload with most turns: less than {_MOST_HOURS:g} h on every phone",
    needs="as F12, best with the sustained workload",
    decide=hours_to_empty,
    reference=_hours_of_paper,
)
F19 = Definition(
    id="F19",
    claim="A lower power budget of a board trades speed for efficiency.",
    threshold=f"over {_FEWEST_MODES} budgets or more, generation_tps never falls by more than {_SAME_SPEED:.0%} as the budget rises, and "
    "energy_per_token_j is not monotone",
    needs=f"one model with energy in {_FEWEST_MODES} power modes of one Jetson board",
    decide=budgets_trade,
    direct=False,
)
F21 = Definition(
    id="F21",
    claim="Power depends on the phase.",
    threshold=f"prefill_power_w and generation_power_w differ by more than {_PHASES_APART:.0%} in more than half of the cells, and idle_power_w is at "
    f"most {_IDLE:g} of the lower one where it was measured",
    needs="one cell on a device that shows its power, with protocol.idle_s",
    decide=power_by_phase,
    direct=False,
)
ENERGIES = (F10, F11, F12, F13, F19, F21)
