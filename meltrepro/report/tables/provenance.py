"""Where everything came from, what the metrics mean, and how to repeat it."""

from __future__ import annotations

from meltrepro.measure.metrics import METRICS
from meltrepro.report.content import Content
from meltrepro.report.tables.resources import ENERGIES
from meltrepro.report.values import Column, Table

SHOWN = (
    *("prefill_tps", "generation_tps", "ttft_ms", "peak_memory_bytes", *ENERGIES, "charge_per_token_mah"),
    *("idle_power_w", "prefill_power_w", "generation_power_w", "temperature_start_c", "temperature_max_c"),
)
"""Metrics whose values stand in the report."""


def campaigns(content: Content) -> Table:
    """How each campaign was run."""
    columns = (
        *(Column("campaign", "campaign", "number"), Column("version", "meltrepro"), Column("engine", "engine")),
        *(Column("seed", "seed", "number"), Column("order", "order")),
        *(Column("manifest", "manifest", "digest"), Column("plan", "plan", "digest")),
    )
    rows = tuple(
        (number, one.version, one.engine, one.seed, one.order, one.manifest_digest, one.plan_digest)
        for number, one in enumerate(content.provenance, 1)
    )
    reason = None if rows else "no campaign was given"
    return Table("campaign-digests", "How campaigns were run", columns, rows, reason=reason)


def digests(content: Content) -> Table:
    """sha256 of everything that cells ran."""
    columns = (
        *(Column("campaign", "campaign", "number"), Column("cell", "cell"), Column("release", "release")),
        *(Column("commit", "commit", "digest"), Column("isa", "CPU level"), Column("model", "model file", "digest")),
        *(Column("bundle", "runner bundle", "digest"), Column("runner", "runner", "digest")),
        Column("source", "framework's source", "digest"),
    )
    rows = tuple(
        (number, cell.cell, cell.release, cell.commit, cell.isa, cell.model, cell.bundle, cell.runner, cell.source)
        for number, one in enumerate(content.provenance, 1)
        for cell in one.cells
    )
    reason = None if rows else "the campaigns of this report have no cells"
    return Table("cell-digests", "What cells ran (sha256)", columns, rows, reason=reason, folded=bool(rows))


def definitions(content: Content) -> Table:
    """What the metrics of this report mean."""
    columns = (
        Column("metric", "metric"),
        Column("unit", "unit"),
        Column("meaning", "meaning", "prose"),
        Column("formula", "formula", "prose"),
    )
    rows = tuple(
        (METRICS[name].name, METRICS[name].unit, METRICS[name].meaning, METRICS[name].formula) for name in SHOWN
    )
    return Table("definitions", "Definitions", columns, rows, folded=True)


def commands(content: Content) -> tuple[str, ...]:
    """What to type to check and to repeat this report."""
    ids = [one.campaign for one in content.provenance]
    if not ids:
        return ()
    what = content.study.name if content.study else " ".join(ids)
    return (f"meltrepro report --from-records {what} -o FOLDER", *(f"meltrepro replay {id}" for id in ids))
