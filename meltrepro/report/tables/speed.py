"""Speed: of both phases, of one against the other, under load that does not end, and of one release against another."""

from __future__ import annotations

from meltrepro.report.cells import WHO, campaign_number, none_since, ordered, tags, who, why_none
from meltrepro.report.content import Content
from meltrepro.report.derive import drifts, prompt_tokens, sustained
from meltrepro.report.values import Absent, Column, Table, Tags, Value, measured

_SPEEDS = ("prefill_tps", "generation_tps")


def throughput(content: Content) -> Table:
    """Median speeds of every cell."""
    cells = ordered(cell for cell in content.measured if any(name in cell.metrics for name in _SPEEDS))
    columns = (
        *WHO,
        Column("model_gb", "file (GB)", "known"),
        Column("context_tokens", "context", "number"),
        Column("prefill_tps", "prefill (tokens/s)", "estimate"),
        Column("generation_tps", "generation (tokens/s)", "estimate"),
        Column("ttft_ms", "first token (ms)", "estimate"),
    )
    rows = tuple(
        (
            *who(content, cell),
            _gigabytes(cell.model_bytes),
            cell.context,
            *(measured(cell, name) for name in (*_SPEEDS, "ttft_ms")),
        )
        for cell in cells
    )
    reason = None if rows else why_none(content, "generation_tps")
    return Table("throughput", "Throughput", columns, rows, reason=reason)


def phases(content: Content) -> Table:
    """How much faster reading is than writing."""
    cells = ordered(cell for cell in content.measured if all(name in cell.metrics for name in _SPEEDS))
    columns = (
        *WHO,
        Column("prompt_tokens_mean", "tokens a prompt", "known"),
        Column("prefill_tps", "prefill (tokens/s)", "estimate"),
        Column("generation_tps", "generation (tokens/s)", "estimate"),
        Column("prefill_over_generation", "prefill / generation", "number"),
    )
    rows = []
    for cell in cells:
        generation = cell.metrics["generation_tps"].median
        rows.append(
            (
                *who(content, cell),
                prompt_tokens(cell),
                *(measured(cell, name) for name in _SPEEDS),
                cell.metrics["prefill_tps"].median / generation if generation else Absent("nothing was generated"),
            )
        )
    reason = None if rows else why_none(content, "prefill_tps")
    return Table("phases", "Prefill against generation", columns, tuple(rows), reason=reason)


def sustained_speed(content: Content) -> Table:
    """First and last quarter of long runs, and how hot they got."""
    found = [curve for curve in map(sustained, ordered(content.measured)) if curve is not None]
    columns = (
        *WHO,
        Column("prompts", "prompts", "number"),
        Column("first_quarter_tps", "first quarter (tokens/s)", "number"),
        Column("last_quarter_tps", "last quarter (tokens/s)", "number"),
        Column("last_over_first", "last / first", "number"),
        Column("temperature_start_c", "start (°C)", "estimate"),
        Column("temperature_max_c", "hottest (°C)", "estimate"),
    )
    rows = tuple(
        (
            *who(content, curve.cell),
            len(curve.speeds),
            curve.first_quarter,
            curve.last_quarter,
            curve.last_quarter / curve.first_quarter if curve.first_quarter else Absent("nothing was generated"),
            *(measured(curve.cell, name) for name in ("temperature_start_c", "temperature_max_c")),
        )
        for curve in found
    )
    notes = (
        (
            "Quarters are means over their prompts of the median over repetitions. The context grows with every prompt, which"
            " slows generation too: heat is not the only cause of a ratio below one."
        ),
    )
    reason = None if rows else none_since("no cell held one conversation of many prompts without pause", content)
    return Table("sustained", "Sustained load", columns, rows, notes if rows else (), reason)


def drift(content: Content) -> Table:
    """Every newer release against the oldest."""
    columns = (
        *(Column("device", "device"), Column("framework", "framework"), Column("model", "model")),
        *(Column("quantization", "quantization"), Column("workload", "workload"), Column("tags", "tags", "tags")),
        *(Column("older", "older release"), Column("newer", "newer release"), Column("phase", "phase")),
        *(Column("ratio", "newer / older", "number"), Column("ratio_low", "low", "number")),
        *(Column("ratio_high", "high", "number"), Column("n_older", "n older", "number")),
        *(Column("n_newer", "n newer", "number"), Column("campaigns", "campaigns")),
    )
    single = Absent("one side has a single repetition, which says nothing of its spread")
    order = {id(cell): position for position, cell in enumerate(ordered(content.measured))}
    rows: list[tuple[Value, ...]] = []
    for pair in sorted(drifts(content), key=lambda pair: (order[id(pair.newer)], pair.phase)):
        numbers = {campaign_number(content, cell.campaign) for cell in (pair.older, pair.newer)}
        cell = pair.newer
        rows.append(
            (
                *(content.title(cell.device), cell.framework, cell.model, cell.quantization, cell.workload),
                Tags(tags(cell)),
                *(pair.older.release, cell.release, pair.phase, pair.ratio),
                *(single if bound is None else bound for bound in (pair.low, pair.high)),
                *(pair.n_older, pair.n_newer, " and ".join(map(str, sorted(numbers)))),
            )
        )
    notes = (
        (
            "Ratio of the 20 % trimmed means of the logarithms of the repetitions, with a 95 % interval; above one, the newer"
            " release is faster."
        ),
    )
    reason = (
        None if rows else none_since("no model was measured with two releases of one framework on one device", content)
    )
    return Table("drift", "Drift between releases", columns, tuple(rows), notes if rows else (), reason)


def _gigabytes(size: int | None) -> Value:
    return Absent("the size of the file is not in the record") if size is None else size / 1e9
