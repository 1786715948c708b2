"""What cells measured: speed, memory, energy, operators, accuracy, and one release against another."""

from __future__ import annotations

from meltrepro.report.cells import (
    FILE,
    WHO,
    Field,
    gigabytes,
    metric,
    none_since,
    ordered,
    table,
    tags,
    who,
    why_none,
)
from meltrepro.report.derive import MEMORY_LIMIT, drifts, memory_use, prompt_tokens, sustained
from meltrepro.report.results import CellResult, Results, budget_w
from meltrepro.report.values import Absent, Column, Table, Tags, Value, named

J_PER_MWH = 3.6
ENERGIES = ("energy_per_prompt_token_j", "energy_per_token_j", "net_energy_per_token_j")
MOST = 40
"""Operators of a phase in the table; the rest is one row."""
_SPEEDS = (metric("prefill_tps", "prefill (tokens/s)"), metric("generation_tps", "generation (tokens/s)"))
_ENERGY = (
    metric("energy_per_prompt_token_j", "prefill (J/token)"),
    metric("energy_per_token_j", "generation (J/token)"),
    metric("net_energy_per_token_j", "generation, net (J/token)"),
    metric("energy_per_prompt_token_j", "prefill (mWh/token)", key="energy_per_prompt_token_mwh", scale=1 / J_PER_MWH),
    metric("energy_per_token_j", "generation (mWh/token)", key="energy_per_token_mwh", scale=1 / J_PER_MWH),
    *(metric(f"{phase}_power_w", f"{phase} (W)") for phase in ("idle", "prefill", "generation")),
)
_COSTS = (
    metric("time_per_right_answer_s", "time (s/right answer)"),
    metric("energy_per_right_answer_j", "energy (J/right answer)"),
)
_ALL_ASKED = Absent("all questions were to be asked")
_ASKING: tuple[Field, ...] = (
    (Column("saved", "questions saved", "number"), lambda cell: cell.asking.saved if cell.asking else _ALL_ASKED),
    (Column("low", "low", "number"), lambda cell: cell.asking.interval[0] if cell.asking else _ALL_ASKED),
    (Column("high", "high", "number"), lambda cell: cell.asking.interval[1] if cell.asking else _ALL_ASKED),
)
_NO_CACHE = "the framework does not say how large the KV cache is"


def throughput(results: Results) -> Table:
    """Median speeds of every cell."""
    cells = ordered(cell for cell in results.measured if {"prefill_tps", "generation_tps"} & cell.metrics.keys())
    context: Field = (Column("context_tokens", "context", "number"), lambda cell: cell.context)
    fields = (FILE, context, *_SPEEDS, metric("ttft_ms", "first token (ms)"))
    return table(results, "throughput", "Throughput", cells, fields, why=why_none(results, "generation_tps"))


def phases(results: Results) -> Table:
    """How much faster reading is than writing."""

    def ratio(cell: CellResult) -> Value:
        generation = cell.metrics["generation_tps"].median
        return cell.metrics["prefill_tps"].median / generation if generation else Absent("nothing was generated")

    cells = ordered(cell for cell in results.measured if {"prefill_tps", "generation_tps"} <= cell.metrics.keys())
    prompts: Field = (Column("prompt_tokens_mean", "tokens a prompt", "known"), prompt_tokens)
    fields = (prompts, *_SPEEDS, (Column("prefill_over_generation", "prefill / generation", "number"), ratio))
    return table(results, "phases", "Prefill against generation", cells, fields, why=why_none(results, "prefill_tps"))


def sustained_speed(results: Results) -> Table:
    """First and last quarter of long runs, and how hot they got."""
    curves = {id(curve.cell): curve for curve in map(sustained, ordered(results.measured)) if curve is not None}

    def change(cell: CellResult) -> Value:
        curve = curves[id(cell)]
        return curve.last_quarter / curve.first_quarter if curve.first_quarter else Absent("nothing was generated")

    fields: tuple[Field, ...] = (
        (Column("prompts", "prompts", "number"), lambda cell: len(curves[id(cell)].speeds)),
        (
            Column("first_quarter_tps", "first quarter (tokens/s)", "number"),
            lambda cell: curves[id(cell)].first_quarter,
        ),
        (Column("last_quarter_tps", "last quarter (tokens/s)", "number"), lambda cell: curves[id(cell)].last_quarter),
        (Column("last_over_first", "last / first", "number"), change),
        metric("temperature_start_c", "start (°C)"),
        metric("temperature_max_c", "hottest (°C)"),
    )
    note = (
        "Quarters are means over their prompts of the median over repetitions. The context grows with every prompt, which"
        " slows generation too: heat is not the only cause of a ratio below one."
    )
    why = none_since("no cell held one conversation of many prompts without pause", results)
    cells = [curve.cell for curve in curves.values()]
    return table(results, "sustained", "Sustained load", cells, fields, why=why, note=note)


def drift(results: Results) -> Table:
    """Every newer release against the oldest."""
    columns = (
        *(*named("device", "framework", "model", "quantization", "workload"), Column("tags", "tags", "tags")),
        *(Column("older", "older release"), Column("newer", "newer release"), Column("phase", "phase")),
        *(Column("ratio", "newer / older", "number"), Column("ratio_low", "low", "number")),
        *(Column("ratio_high", "high", "number"), Column("n_older", "n older", "number")),
        *(Column("n_newer", "n newer", "number"), Column("campaigns", "campaigns")),
    )
    single = Absent("one side has a single repetition, which says nothing of its spread")
    order = {id(cell): position for position, cell in enumerate(ordered(results.measured))}
    rows: list[tuple[Value, ...]] = []
    for pair in sorted(drifts(results), key=lambda pair: (order[id(pair.newer)], pair.phase)):
        numbers = {results.number(cell.campaign) for cell in (pair.older, pair.newer)}
        cell = pair.newer
        rows.append(
            (
                *(results.title(cell.device), cell.framework, cell.model, cell.quantization, cell.workload),
                Tags(tags(cell)),
                *(pair.older.release, cell.release, pair.phase, pair.ratio),
                *(single if bound is None else bound for bound in (pair.low, pair.high)),
                *(pair.n_older, pair.n_newer, " and ".join(map(str, sorted(numbers)))),
            )
        )
    note = (
        "Ratio of the 20 % trimmed means of the logarithms of the repetitions, with a 95 % interval; above one, the newer"
        " release is faster."
    )
    why = none_since("no model was measured with two releases of one framework on one device", results)
    return Table(
        *("drift", "Drift between releases", columns, tuple(rows)),
        *((note,) if rows else (), None if rows else why),
    )


def memory(results: Results) -> Table:
    """Peak memory beside what must be held."""

    def ratio(cell: CellResult) -> Value:
        use = memory_use(cell)
        return Absent(_NO_CACHE) if use is None else use.ratio

    def within(cell: CellResult) -> Value:
        use = memory_use(cell)
        return "" if use is None else "yes" if use.ratio <= MEMORY_LIMIT else "no"

    fields: tuple[Field, ...] = (
        FILE,
        gigabytes("kv_gb", "KV cache (GB)", lambda cell: cell.kv_bytes, _NO_CACHE),
        metric("peak_memory_bytes", "peak memory (GB)", key="peak_memory_gb", scale=1e-9),
        (Column("peak_over_expected", "peak / (file + KV)", "number"), ratio),
        (Column("within_limit", f"at most {MEMORY_LIMIT}"), within),
    )
    cells = ordered(cell for cell in results.measured if "peak_memory_bytes" in cell.metrics)
    note = "KV cache as the runner reported it for the whole context."
    why = why_none(results, "peak_memory_bytes")
    return table(results, "memory", "Memory", cells, fields, why=why, note=note)


def energy(results: Results) -> Table:
    """Energy per token by phase, in both of its units."""
    cells = ordered(cell for cell in results.measured if any(name in cell.metrics for name in ENERGIES))
    fields = (*_ENERGY, metric("charge_per_token_mah", "charge (mAh/token)"))
    note = "Net: beyond what the device draws at rest. 1 mWh = 3.6 J. Each phase is divided by its own tokens."
    why = why_none(results, "energy_per_token_j")
    return table(results, "energy", "Energy per token", cells, fields, why=why, note=note)


def power_modes(results: Results) -> Table:
    """Speed and energy of the same cell in each power mode."""
    cells = sorted(
        ordered(cell for cell in results.measured if has_power_mode(cell)),
        key=lambda cell: (cell.device.virtual, cell.device.name, budget_w(cell.device.power_mode or "")),
    )
    mode: Field = (Column("power_mode", "power mode"), lambda cell: cell.device.power_mode)
    fields = (mode, *reversed(_SPEEDS), *_ENERGY)
    known = any(cell.device.power_mode for cell in results.cells)
    why = (
        why_none(results, "generation_tps", lambda cell: bool(cell.device.power_mode))
        if known
        else "no device said which power mode it was in"
    )
    return table(results, "power-modes", "Power modes", cells, fields, why=why)


def has_power_mode(cell: CellResult) -> bool:
    """Whether its speed in a power mode is known."""
    return bool(cell.device.power_mode) and "generation_tps" in cell.metrics


def operators(results: Results) -> Table:
    """Every operator by its share of the decoder's time, and by the time of one call."""
    columns = (
        *WHO,
        *named("phase", "operator", "module"),
        *(Column("calls", "calls", "number"), Column("mean_us", "one call (µs)", "number")),
        Column("time_share", "share of time", "number"),
        Column("call_share", "share by single calls", "number"),
    )
    rows: list[tuple[Value, ...]] = []
    for cell in ordered(cell for cell in results.cells if cell.operators):
        for phase, breakdown in sorted(cell.operators.items()):
            head = (*who(results, cell), phase)
            for share in breakdown.shares[:MOST]:
                what = (share.name, share.module, share.calls, share.mean_us)
                rows.append((*head, *what, share.time_share, share.call_share))
            rest = breakdown.shares[MOST:]
            if rest:
                shares = (sum(s.time_share for s in rest), sum(s.call_share for s in rest))
                rows.append((*head, f"{len(rest)} others", "", sum(s.calls for s in rest), None, *shares))
            unexplained = max(0.0, 1 - breakdown.coverage)
            rows.append((*head, "outside of operators", "", None, None, unexplained, None))
    reason = None
    if not rows:
        found = {
            cell.unavailable[name]
            for cell in results.cells
            for name in cell.unavailable
            if name.startswith("operators")
        }
        reason = "; ".join(sorted(found)) or none_since("no trial was profiled (measure: {operators: true})", results)
    return Table("operators", "Operators", columns, tuple(rows), reason=reason, folded=bool(rows))


def accuracy(results: Results) -> Table:
    """Scores with their standard errors, and the real size of the weights."""
    columns = (
        *(
            *WHO,
            Column("context_tokens", "context", "number"),
            Column("bits_per_weight", "bits a weight", "known"),
            FILE[0],
        ),
        *(*named("task", "metric"), Column("value", "value", "number")),
        *(Column("stderr", "standard error", "number"), Column("n", "n", "number"), Column("k", "right", "number")),
    )
    answered = any("right_answers" in cell.metrics for cell in results.cells)
    costs = _COSTS if answered else ()
    stopping = _ASKING if any(cell.asking is not None for cell in results.cells) else ()
    columns = (*columns, *(column for column, _ in (*costs, *stopping)))
    uncounted = Absent("the record does not say how many weights there are")
    rows: list[tuple[Value, ...]] = []
    for cell in ordered(cell for cell in results.cells if cell.scores):
        bits = cell.bits_per_weight
        head = (*who(results, cell), cell.context, uncounted if bits is None else bits, FILE[1](cell))
        for score in cell.scores:
            error = Absent("the scorer gave none") if score.stderr is None else score.stderr
            whole = score is cell.scores[0]  # right by the rule that counts
            paid = (value(cell) if whole else Absent("counted for the other rule") for _, value in costs)
            told = (value(cell) if whole else Absent("told of the other rule") for _, value in stopping)
            rows.append((*head, score.task, score.metric, score.value, error, score.n, score.k, *paid, *told))
    note = (
        "Bits a weight: 8 x size of the file / number of weights, which a quantization's name hides where tensors fall back to"
        " another type."
    )
    paid_for = "Time and energy for each right answer: of all questions, those with wrong answers included."
    early = (
        "Asking ended once the score was known as nearly as wished: low and high hold that of all questions with 95 %, however"
        " often one looked (Waudby-Smith and Ramdas 2020)."
    )
    notes = (note, *((paid_for,) if answered else ()), *((early,) if stopping else ()))
    reason = None if rows else _no_scores(results)
    return Table("accuracy", "Accuracy", columns, tuple(rows), notes if rows else (), reason)


def _no_scores(results: Results) -> str:
    if results.cells and all(cell.synthetic for cell in results.cells):
        return "all weights are synthetic, whose answers mean nothing"
    return none_since("no cell was scored on an accuracy task", results, wanted=lambda cell: not cell.synthetic)
