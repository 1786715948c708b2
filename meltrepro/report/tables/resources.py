"""What runs cost: memory, energy, and both again by a board's power mode."""

from __future__ import annotations

from meltrepro.report.cells import WHO, ordered, who, why_none
from meltrepro.report.content import Content
from meltrepro.report.derive import MEMORY_LIMIT, memory_use
from meltrepro.report.keys import budget_w
from meltrepro.report.results import CellResult
from meltrepro.report.values import Absent, Column, Table, Value, measured

J_PER_MWH = 3.6
ENERGIES = ("energy_per_prompt_token_j", "energy_per_token_j", "net_energy_per_token_j")
_POWERS = ("idle_power_w", "prefill_power_w", "generation_power_w")


def memory(content: Content) -> Table:
    """Peak memory beside what must be held."""
    cells = ordered(cell for cell in content.measured if "peak_memory_bytes" in cell.metrics)
    columns = (
        *WHO,
        Column("model_gb", "file (GB)", "known"),
        Column("kv_gb", "KV cache (GB)", "known"),
        Column("peak_memory_gb", "peak memory (GB)", "estimate"),
        Column("peak_over_expected", "peak / (file + KV)", "number"),
        Column("within_limit", f"at most {MEMORY_LIMIT}"),
    )
    rows = []
    for cell in cells:
        use = memory_use(cell)
        unknown = Absent("the framework does not say how large the KV cache is")
        rows.append(
            (
                *who(content, cell),
                _gigabytes(cell.model_bytes, "the size of the file is not in the record"),
                _gigabytes(cell.kv_bytes, unknown.reason),
                measured(cell, "peak_memory_bytes", 1e-9),
                unknown if use is None else use.ratio,
                "" if use is None else "yes" if use.ratio <= MEMORY_LIMIT else "no",
            )
        )
    notes = ("KV cache as the runner reported it for the whole context.",) if rows else ()
    reason = None if rows else why_none(content, "peak_memory_bytes")
    return Table("memory", "Memory", columns, tuple(rows), notes, reason)


def energy(content: Content) -> Table:
    """Energy per token by phase, in both of its units."""
    cells = ordered(cell for cell in content.measured if any(name in cell.metrics for name in ENERGIES))
    columns = (*WHO, *_energy_columns(), Column("charge_per_token_mah", "charge (mAh/token)", "estimate"))
    rows = tuple((*who(content, cell), *_energies(cell), _value(cell, "charge_per_token_mah")) for cell in cells)
    notes = (
        (
            "Net: beyond what the device draws at rest. 1 mWh = 3.6 J. MELT divided the energy of both phases by the generated"
            " tokens; here each phase has its own."
        ),
    )
    reason = None if rows else why_none(content, "energy_per_token_j")
    return Table("energy", "Energy per token", columns, rows, notes if rows else (), reason)


def is_board(cell: CellResult) -> bool:
    """Whether it ran on a board with power modes."""
    return cell.device.kind == "jetson"


def power_modes(content: Content) -> Table:
    """Speed and energy of the same cell in each power mode."""
    cells = [
        cell
        for cell in content.measured
        if is_board(cell) and cell.device.power_mode and "generation_tps" in cell.metrics
    ]
    cells = sorted(
        ordered(cells), key=lambda cell: (cell.device.virtual, cell.device.name, budget_w(cell.device.power_mode or ""))
    )
    columns = (
        Column("power_mode", "power mode"),
        *WHO,
        Column("generation_tps", "generation (tokens/s)", "estimate"),
        Column("prefill_tps", "prefill (tokens/s)", "estimate"),
        *_energy_columns(),
    )
    rows = tuple(
        (
            cell.device.power_mode,
            *who(content, cell),
            _value(cell, "generation_tps"),
            _value(cell, "prefill_tps"),
            *_energies(cell),
        )
        for cell in cells
    )
    reason = None
    if not rows:
        boards = [cell for cell in content.results.cells if is_board(cell)]
        named = [cell for cell in boards if cell.device.power_mode]
        reason = (
            "no cell ran on a Jetson board"
            if not boards
            else why_none(content, "generation_tps", is_board)
            if named
            else "the board did not say which power mode it was in"
        )
    return Table("power-modes", "Power modes of Jetson boards", columns, rows, reason=reason)


def _energy_columns() -> tuple[Column, ...]:
    return (
        Column("energy_per_prompt_token_j", "prefill (J/token)", "estimate"),
        Column("energy_per_token_j", "generation (J/token)", "estimate"),
        Column("net_energy_per_token_j", "generation, net (J/token)", "estimate"),
        Column("energy_per_prompt_token_mwh", "prefill (mWh/token)", "estimate"),
        Column("energy_per_token_mwh", "generation (mWh/token)", "estimate"),
        *(Column(name, f"{name.partition('_')[0]} (W)", "estimate") for name in _POWERS),
    )


def _energies(cell: CellResult) -> tuple[Value, ...]:
    return (
        *(_value(cell, name) for name in ENERGIES),
        *(measured(cell, name, 1 / J_PER_MWH) for name in ENERGIES[:2]),
        *(_value(cell, name) for name in _POWERS),
    )


def _value(cell: CellResult, name: str) -> Value:
    return measured(cell, name)


def _gigabytes(size: int | None, reason: str) -> Value:
    return Absent(reason) if size is None else size / 1e9
