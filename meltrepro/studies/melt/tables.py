"""The paper's figures beside ours, with what is known to be wrong with them."""

from __future__ import annotations

from collections.abc import Callable

from meltrepro.report.cells import ordered, software
from meltrepro.report.content import Content, Reference
from meltrepro.report.results import CellResult
from meltrepro.report.values import Absent, Column, Table, Value, measured
from meltrepro.studies.melt.paper_match import SECONDHAND, paper_task, remarks, same_model, same_quantization

_NONE = "the paper's figures are not part of this report"
_SOURCE = Column("source", "source", "prose", below="model")
_REMARKS = Column("remarks", "remarks", "remarks")


def sizes(content: Content) -> Table:
    """Size of the model files, which must agree: it is arithmetic, not a measurement."""
    columns = (
        *(Column("model", "model"), Column("quantization", "quantization")),
        Column("framework", "framework", below="quantization"),
        *(Column("paper_gb", "paper (GB)", "known"), Column("paper_memory_gb", "paper, in memory (GB)", "known")),
        *(Column("ours_gb", "ours (GB)", "known"), Column("difference_percent", "difference (%)", "number")),
        *(_REMARKS, _SOURCE),
    )
    published = [reference for reference in content.references if reference.table == "sizes"]
    found = [reference for reference in published if reference.metric == "on disk"]
    memory = {_key(reference): reference for reference in published if reference.metric == "in memory"}
    ours = _same(found, content.results.cells)
    rows: list[tuple[Value, ...]] = []
    for reference in found:
        sizes = [cell.model_bytes for cell in ours(reference) if cell.model_bytes]
        size = sizes[0] / 1e9 if sizes and _is_llama(reference) else None
        percent = 100 * (size / reference.value - 1) if size is not None and reference.value else None
        rows.append(
            (
                *(reference.model, reference.quantization, reference.framework, _value(reference)),
                *(_value(memory.get(_key(reference))), size, percent),
                *(remarks(reference), reference.source),
            )
        )
    notes = (
        "In memory: as published; no row of it is a measured footprint, and the remarks say what it is instead. GB are 10^9 bytes.",
    )
    reason = None if rows else _NONE
    return Table("paper-sizes", "Sizes of model files", columns, tuple(rows), notes if rows else (), reason)


def _key(reference: Reference) -> tuple[str, str, str]:
    return reference.model, reference.quantization, reference.framework


def scores(content: Content) -> Table:
    """The paper's scores beside ours."""
    columns = (
        *(Column("model", "model"), Column("quantization", "quantization"), Column("framework", "framework")),
        *(Column("task", "task"), Column("paper", "paper", "known"), Column("paper_stderr", "± paper", "known")),
        *(Column("ours", "ours", "number"), Column("ours_stderr", "± ours", "number")),
        *(Column("ours_n", "n", "number"), _REMARKS, _SOURCE),
    )
    found = [reference for reference in content.references if reference.table == "accuracy"]
    ours = _same(found, [cell for cell in content.results.cells if cell.scores])
    rows: list[tuple[Value, ...]] = []
    for reference in found:
        matching = [
            score
            for cell in ours(reference)
            for score in cell.scores
            if reference.metric == paper_task(score) and _is_llama(reference)
        ]
        mine = (matching[0].value, matching[0].stderr, matching[0].n) if matching else (None, None, None)
        rows.append(
            (
                *(reference.model, reference.quantization, reference.framework, reference.metric),
                *(_value(reference), reference.stderr, *mine, remarks(reference), reference.source),
            )
        )
    return Table("paper-accuracy", "Accuracy", columns, tuple(rows), reason=None if rows else _NONE, folded=bool(rows))


def devices(content: Content) -> Table:
    """What is known of the paper's speed and energy, with our nearest figure: other devices, so only for orientation."""
    columns = (
        *(Column("device", "device"), Column("framework", "framework"), Column("model", "model")),
        *(Column("quantization", "quantization"), Column("metric", "metric"), Column("paper", "paper", "known")),
        *(
            Column("unit", "unit"),
            Column("ours", "ours", "estimate"),
            Column("ours_where", "ours was measured on", "prose"),
        ),
        *(_REMARKS, _SOURCE),
    )
    found = [reference for reference in content.references if reference.table in ("speed", "energy")]
    ours = _same(found, ordered(content.measured))
    rows: list[tuple[Value, ...]] = []
    for reference in found:
        metric, scale = _METRICS.get(reference.metric, ("", 1.0))
        matching = [cell for cell in ours(reference) if metric in cell.metrics]
        mine: tuple[Value, Value] = (None, None)
        if matching:
            cell = matching[0]
            virtual = ", virtual" if cell.device.virtual else ""
            mine = (
                measured(cell, metric, scale),
                f"{content.title(cell.device)}{virtual}, {software(cell)}, {cell.quantization}",
            )
        rows.append(
            (
                *(reference.device, reference.framework, reference.model, reference.quantization, reference.metric),
                *(_value(reference), reference.unit, *mine, remarks(reference), reference.source),
            )
        )
    notes = (f"{SECONDHAND[0].upper()}{SECONDHAND[1:]}. No row is a target.",) if rows else ()
    reason = None if rows else _NONE
    return Table("paper-devices", "Speed and energy", columns, tuple(rows), notes, reason, folded=bool(rows))


_METRICS = {
    "generation_throughput": ("generation_tps", 1.0),
    "energy_per_token_low": ("energy_per_token_j", 1 / 3.6),
    "energy_per_token_high": ("energy_per_token_j", 1 / 3.6),
    "surface_temperature_max": ("temperature_max_c", 1.0),
    "power_sustained": ("generation_power_w", 1.0),
}


def operators(content: Content) -> Table:
    """The paper's operators as it plotted them, and by time."""
    columns = (
        *(Column("device", "device"), Column("framework", "framework"), Column("model", "model")),
        *(Column("quantization", "quantization"), Column("operator", "operator")),
        *(Column("share_as_plotted", "as plotted", "known"), Column("share_of_time", "share of time", "known")),
        *(_REMARKS, _SOURCE),
    )
    found = [reference for reference in content.references if reference.table == "operators"]
    groups: dict[tuple[str, ...], dict[str, Reference]] = {}
    for reference in found:
        operator, _, share = reference.metric.rpartition(": ")
        key = (reference.device, reference.framework, reference.model, reference.quantization, operator)
        groups.setdefault(key, {})[share] = reference
    rows = tuple(
        (*key, *(_value(shares.get(name)) for name in ("as plotted", "of time")), *_origin(shares))
        for key, shares in groups.items()
    )
    notes = (
        (
            "As plotted: mean time of one call, normalised; an operator that runs once a token weighs as much as one that"
            " runs in every layer. Share of time: multiplied by the calls of a pass."
        ),
    )
    reason = None if rows else _NONE
    return Table("paper-operators", "Operators", columns, rows, notes if rows else (), reason, folded=bool(rows))


def _origin(shares: dict[str, Reference]) -> tuple[Value, Value]:
    first = next(iter(shares.values()))
    return remarks(first), first.source


def _same(
    references: list[Reference], cells: list[CellResult] | tuple[CellResult, ...]
) -> Callable[[Reference], list[CellResult]]:
    """Which cells are about the model and the quantization of a reference."""
    models = {cell.model: {id(r) for r in same_model(references, cell.model)} for cell in cells}

    def found(reference: Reference) -> list[CellResult]:
        rough = reference.quantization.startswith(("4-bit", "not stated"))
        return [
            cell
            for cell in cells
            if id(reference) in models[cell.model]
            and (
                same_quantization(reference.quantization, cell.quantization)
                or (rough and cell.quantization.lower().startswith("q4"))
            )
        ]

    return found


def _is_llama(reference: Reference) -> bool:
    return reference.framework.lower().replace(".", "").startswith("llamacpp")


def _value(reference: Reference | None) -> Value:
    if reference is None:
        return None
    return Absent("missing in the paper's table") if reference.value is None else reference.value
