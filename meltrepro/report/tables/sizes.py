"""What the size of a model costs: speed, energy, memory and the work of attention, from the smallest to the largest."""

from __future__ import annotations

from meltrepro.report.cells import FILE, Field, gigabytes, metric, none_since, ordered, table
from meltrepro.report.derive import attention_share
from meltrepro.report.results import CellResult, Results
from meltrepro.report.values import Absent, Column, Table, Value

_TOKENS = 1000
"""Of a context, for which the size of the KV cache is said."""


def compared(results: Results) -> list[CellResult]:
    """The cells whose speed and number of weights are known, where models of more than one size are among them."""
    cells = [cell for cell in results.measured if cell.parameters and "generation_tps" in cell.metrics]
    return ordered(cells) if len({cell.parameters for cell in cells}) > 1 else []


def sizes(results: Results) -> Table:
    """A row a cell."""
    fields: tuple[Field, ...] = (
        gigabytes("weights_1e9", "weights (1e9)", lambda cell: round(cell.parameters or 0), ""),
        FILE,
        metric("generation_tps", "generation (tokens/s)"),
        (Column("read_gbps", "file x generation (GB/s)", "number"), _read),
        metric("energy_per_token_j", "generation (J/token)"),
        (Column("context_tokens", "context", "number"), lambda cell: cell.context),
        gigabytes(
            "kv_gb_per_1000", "KV cache (GB per 1000 tokens)", _cache, "the framework does not say how large it is"
        ),
        metric("peak_memory_bytes", "peak memory (GB)", key="peak_memory_gb", scale=1e-9),
        (Column("attention_share", "attention (share of time)", "number"), _attention),
    )
    note = (
        "File x generation: what a CPU would read each second if every token took the whole file; of a mixture of experts a token takes"
        " only some of it. Attention: its operators' share of the decoder's time in generation, where a trial was profiled."
    )
    why = none_since("no two models of different size were measured", results)
    return table(results, "sizes", "Sizes", compared(results), fields, why=why, note=note)


def _read(cell: CellResult) -> Value:
    if cell.model_bytes is None:
        return Absent("the size of the file is not in the record")
    return cell.model_bytes * cell.metrics["generation_tps"].median / 1e9


def _cache(cell: CellResult) -> int | None:
    return round(cell.kv_bytes / cell.context * _TOKENS) if cell.kv_bytes and cell.context else None


def _attention(cell: CellResult) -> Value:
    found = attention_share(cell)
    return Absent("no trial of it was profiled") if found is None else found
