"""What the size of a model costs: speed, energy, memory and the work of attention, from the smallest to the largest."""

from __future__ import annotations

from collections.abc import Callable
from math import log

from meltrepro.report.cells import FILE, Field, gigabytes, metric, none_since, ordered, table, tags
from meltrepro.report.derive import attention_share
from meltrepro.report.results import CellResult, Results
from meltrepro.report.values import Absent, Column, Table, Tags, Value, named

_TOKENS = 1000
"""Of a context, for which the size of the KV cache is said."""
_ALIKE = 2.0
"""Times as many weights a model may have to be held against another of its class."""


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


def then_and_now(results: Results) -> Table:
    """Each model that only the newest release was measured with, against the one of the oldest release that is nearest in size."""
    columns = (
        *(*named("device", "quantization", "workload"), Column("tags", "tags", "tags")),
        *(Column("then", "then"), Column("now", "now")),
        *(Column(f"{key}_ratio", f"{title}, now / then", "number") for key, title, _ in _COSTS),
    )
    rows = tuple(
        (
            *(results.title(now.device), now.quantization, now.workload, Tags(tags(now))),
            *(f"{each.model} ({each.release})" for each in (then, now)),
            *(_ratio(of(now), of(then)) for _, _, of in _COSTS),
        )
        for then, now in successors(compared(results))
    )
    note = (
        f"Pairs are nearest in weights, within a factor of {_ALIKE:g}, of one framework, device, quantization and workload. Medians; what of it"
        " comes from the release alone stands under drift, where both loaded the same model."
    )
    why = none_since("no model of a newer release stands beside another of its size and of an older release", results)
    return Table("then-and-now", "Then and now", columns, rows, (note,) if rows else (), None if rows else why)


def successors(cells: list[CellResult]) -> list[tuple[CellResult, CellResult]]:
    """Pairs of an older and a newer cell, in the order of the newer."""
    groups: dict[tuple[object, ...], list[CellResult]] = {}
    for cell in cells:
        alike = (cell.device.key, cell.framework, cell.quantization, cell.workload, cell.accelerated, cell.synthetic)
        groups.setdefault(alike, []).append(cell)
    found = []
    for group in groups.values():
        oldest, newest = (choose(cell.release for cell in group) for choose in (min, max))
        olds = [cell for cell in group if cell.release == oldest]
        for now in (cell for cell in group if cell.release == newest):
            then = min(olds, key=lambda old: _apart(old, now))
            if now.model not in {old.model for old in olds} and _apart(then, now) <= log(_ALIKE):
                found.append((then, now))
    return found


def _apart(one: CellResult, other: CellResult) -> float:
    return abs(log((one.parameters or 0) / (other.parameters or 0)))


def _median(name: str) -> Callable[[CellResult], float | None]:
    return lambda cell: cell.metrics[name].median if name in cell.metrics else None


def _ratio(now: float | None, then: float | None) -> Value:
    return Absent("it is not known of both") if not now or not then else now / then


def _read(cell: CellResult) -> Value:
    if cell.model_bytes is None:
        return Absent("the size of the file is not in the record")
    return cell.model_bytes * cell.metrics["generation_tps"].median / 1e9


def _cache(cell: CellResult) -> int | None:
    return round(cell.kv_bytes / cell.context * _TOKENS) if cell.kv_bytes and cell.context else None


def _attention(cell: CellResult) -> Value:
    found = attention_share(cell)
    return Absent("no trial of it was profiled") if found is None else found


_COSTS: tuple[tuple[str, str, Callable[[CellResult], float | None]], ...] = (
    ("weights", "weights", lambda cell: cell.parameters),
    ("prefill_tps", "prefill (tokens/s)", _median("prefill_tps")),
    ("generation_tps", "generation (tokens/s)", _median("generation_tps")),
    ("energy_per_token_j", "generation (J/token)", _median("energy_per_token_j")),
    ("peak_memory_bytes", "peak memory", _median("peak_memory_bytes")),
    ("kv_per_1000", "KV cache of 1000 tokens", _cache),
    ("attention_share", "attention's share", attention_share),
)
"""What is compared between then and now: key, title, and its value."""
