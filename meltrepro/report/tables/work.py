"""Where the time goes, and how good the answers are."""

from __future__ import annotations

from meltrepro.report.cells import WHO, none_since, ordered, who
from meltrepro.report.content import Content
from meltrepro.report.values import Absent, Column, Table, Value
from meltrepro.studies.melt.paper_match import beside, paper_score

MOST = 40
"""Operators of a phase in the table; the rest is one row."""


def operators(content: Content) -> Table:
    """Every operator by its share of the decoder's time, and by the time of one call."""
    columns = (
        *WHO,
        *(Column("phase", "phase"), Column("operator", "operator"), Column("module", "module")),
        *(Column("calls", "calls", "number"), Column("mean_us", "one call (µs)", "number")),
        Column("time_share", "share of time", "number"),
        Column("call_share", "share by single calls", "number"),
    )
    rows: list[tuple[Value, ...]] = []
    for cell in ordered(cell for cell in content.results.cells if cell.operators):
        for phase, breakdown in sorted(cell.operators.items()):
            head = (*who(content, cell), phase)
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
            for cell in content.results.cells
            for name in cell.unavailable
            if name.startswith("operators")
        }
        reason = "; ".join(sorted(found)) or none_since("no trial was profiled (measure: {operators: true})", content)
    return Table("operators", "Operators", columns, tuple(rows), reason=reason, folded=bool(rows))


def accuracy(content: Content) -> Table:
    """Scores with their standard errors, the real size of the weights, and what the paper had."""
    columns = (
        *WHO,
        Column("bits_per_weight", "bits a weight", "known"),
        Column("model_gb", "file (GB)", "known"),
        *(Column("task", "task"), Column("metric", "metric"), Column("value", "value", "number")),
        *(Column("stderr", "standard error", "number"), Column("n", "n", "number"), Column("k", "right", "number")),
        *(Column("paper", "paper", "known"), Column("paper_flags", "remarks on the paper's row", "remarks")),
    )
    rows: list[tuple[Value, ...]] = []
    for cell in ordered(cell for cell in content.results.cells if cell.scores):
        size = (
            Absent("the size of the file is not in the record") if cell.model_bytes is None else cell.model_bytes / 1e9
        )
        bits = cell.bits_per_weight
        for score in cell.scores:
            reference = paper_score(content.references, cell, score)
            rows.append(
                (
                    *who(content, cell),
                    Absent("the record does not say how many weights there are") if bits is None else bits,
                    size,
                    *(score.task, score.metric, score.value),
                    Absent("the scorer gave none") if score.stderr is None else score.stderr,
                    *(score.n, score.k, *beside(reference)),
                )
            )
    notes = (
        (
            "Bits a weight: 8 x size of the file / number of weights, which a name such as q4_K hides where tensors fall back to"
            " another type. The paper's scores are of whole data sets; where n differs, so does the set of questions."
        ),
    )
    reason = None if rows else _no_scores(content)
    return Table("accuracy", "Accuracy", columns, tuple(rows), notes if rows else (), reason)


def _no_scores(content: Content) -> str:
    cells = content.results.cells
    if cells and all(cell.synthetic for cell in cells):
        return "all weights are synthetic, whose answers mean nothing"
    return none_since("no cell was scored on an accuracy task", content, wanted=lambda cell: not cell.synthetic)
