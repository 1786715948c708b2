"""Tables of MELT's study in a report: its claims with their verdicts, and its figures beside ours.

Names differ: `llama-2-7b` of the scores is `llama-2-7b-chat` on devices, and a manifest may say `stablelm-zephyr-3b`. Two
names mean the same model where the parts of one stand in a row within the other's; a name that fits several models, as
`gemma` does, means none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from meltrepro.report.cells import ordered, software
from meltrepro.report.results import CellResult, Results, Score
from meltrepro.report.values import Absent, Column, Remark, Remarks, Section, Table, Tags, Value, Word, measured, named
from meltrepro.studies.melt import paper
from meltrepro.studies.melt.findings.model import Definition, Finding, Ruling

_SEPARATORS = re.compile(r"[^a-z0-9.]+")
_FULL = frozenset({"unquantised", "unquantized", "none", "f16", "f32", "bf16", "fp16", "fp32"})
_SECONDHAND = "quoted by others: a rough range, because the paper itself was not read"
_FLAGS = {
    "in_memory_equals_on_disk_no_gib_conversion": Remark(
        "not converted", "the size in memory is the size on disk again, where other rows have it in GiB"
    ),
    "in_memory_not_size_converted_to_gib": Remark(
        "other size in memory", "the size in memory is not the size on disk in GiB, as it is in other rows"
    ),
    "max_ram_equals_size_plus_2.5": Remark(
        "peak not measured", "the published peak memory is the size plus 2.5 GB in every row: an estimate"
    ),
    "suspect_copy_of_tinyllama": Remark("copy of TinyLlama's", "all published scores of the row are TinyLlama's"),
    "replaces_suspect_row": Remark("recomputed", "stands for a published row that is a copy of another model's"),
    "stderr_inconsistent_with_n": Remark(
        "std. error of another", "the standard error does not follow from the score and the number of questions"
    ),
    "framework_label_suspect": Remark("framework doubtful", "the framework that the published row names is doubtful"),
    "variant_unclear": Remark("variant unclear", "it is not known which variant of the task was scored"),
    "missing": Remark("missing", "the published table has a gap here"),
}
"""Flags of the reference data in plain words."""
_METRICS = {
    "generation_throughput": ("generation_tps", 1.0),
    "energy_per_token_low": ("energy_per_token_j", 1 / 3.6),
    "energy_per_token_high": ("energy_per_token_j", 1 / 3.6),
    "surface_temperature_max": ("temperature_max_c", 1.0),
    "power_sustained": ("generation_power_w", 1.0),
}
_TONES: dict[Ruling, Literal["good", "bad", "none"]] = {
    Ruling.holds: "good",
    Ruling.fails: "bad",
    Ruling.not_testable: "none",
}
_WHAT = named("framework", "model", "quantization")
_ORIGIN = (Column("remarks", "remarks", "remarks"), Column("source", "source", "prose", below="model"))


def sections(results: Results, findings: Sequence[Finding], tally: str) -> tuple[Section, ...]:
    """What a report says of the study, after the results."""
    return (
        Section(
            "findings",
            "Findings",
            f"The claims of MELT's paper, each as a test on these results: {tally}. Where the results cannot decide, they say why.",
            (),
            (claims(findings),),
        ),
        Section(
            "paper",
            "The paper's figures",
            "What was recovered of MELT's figures (MobiCom'24, arXiv 2403.12844), beside ours where there is a counterpart. Remarks say what is wrong with a published row.",
            (),
            (
                *(sizes(results, paper.sizes()), scores(results, paper.accuracy())),
                *(devices(results, (*paper.throughput(), *paper.energy())), operators(paper.operators())),
            ),
        ),
    )


def claims(findings: Sequence[Finding]) -> Table:
    """One row a claim."""
    columns = (
        *(*named("id", "verdict"), Column("tags", "tags", "tags")),
        *(Column("claim", "claim", "prose"), Column("reason", "because", "prose")),
        Column("numbers", "figures", "prose", "reason"),
        *(Column("threshold", "holds when", "prose", "claim"), Column("paper_figures", "paper", "prose", "claim")),
        Column("notes", "notes", "prose", "reason"),
    )
    rows = tuple(
        (
            *(row.definition.id, Word(row.verdict.value, _TONES[row.verdict]), Tags(row.marks)),
            *(row.definition.claim, row.reason),
            ", ".join(f"{name} = {quantity}" for name, quantity in row.numbers.items()),
            *(row.definition.threshold, _figures(row.definition), "; ".join(row.notes)),
        )
        for row in findings
    )
    note = (
        "Verdicts tagged virtual rest on virtual devices and say nothing of real ones; thresholds are this project's, fixed before"
        " anything was measured."
    )
    return Table("findings", "Findings", columns, rows, (note,))


def _figures(definition: Definition) -> str:
    return "; ".join(
        f"{one.name}: {one.quantity}{' (secondhand, rough)' if one.secondhand else ''}"
        for one in definition.reference()
    )


def sizes(results: Results, published: Sequence[paper.SizeRow]) -> Table:
    """Size of the model files, which must agree: it is arithmetic, not a measurement."""
    columns = (
        *(*named("model", "quantization"), Column("framework", "framework", below="quantization")),
        *(Column("paper_gb", "paper (GB)", "known"), Column("paper_memory_gb", "paper, in memory (GB)", "known")),
        *(Column("ours_gb", "ours (GB)", "known"), Column("difference_percent", "difference (%)", "number")),
        *_ORIGIN,
    )
    ours = _same(published, results.cells)
    rows: list[tuple[Value, ...]] = []
    for row in published:
        found = [cell.model_bytes for cell in ours(row) if cell.model_bytes]
        size = found[0] / 1e9 if found and _is_llama(row.framework) else None
        percent = 100 * (size / row.disk_gb - 1) if size is not None and row.disk_gb else None
        rows.append(
            (
                *(row.model, row.quantization, row.framework, row.disk_gb, row.published_memory_gb),
                *(size, percent, remarks(row.flags), row.source),
            )
        )
    note = "In memory: as published; no row of it is a measured footprint, and the remarks say what it is instead. GB are 10^9 bytes."
    return Table("paper-sizes", "Sizes of model files", columns, tuple(rows), (note,))


def scores(results: Results, published: Sequence[paper.AccuracyRow]) -> Table:
    """The paper's scores beside ours."""
    columns = (
        *named("model", "quantization", "framework", "task"),
        *(Column("paper", "paper", "known"), Column("paper_stderr", "± paper", "known")),
        *(Column("ours", "ours", "number"), Column("ours_stderr", "± ours", "number")),
        *(Column("ours_n", "n", "number"), *_ORIGIN),
    )
    ours = _same(published, [cell for cell in results.cells if cell.scores])
    rows: list[tuple[Value, ...]] = []
    for row in published:
        found = [score for cell in ours(row) for score in cell.scores if row.task == paper_task(score)]
        mine = (found[0].value, found[0].stderr, found[0].n) if found and _is_llama(row.framework) else (None,) * 3
        value = Absent("missing in the paper's table") if row.value is None else row.value
        rows.append(
            (
                *(row.model, row.quantization, row.framework, row.task, value, row.stderr),
                *(*mine, remarks(row.flags), row.source),
            )
        )
    note = "The paper's scores are of whole data sets; where n differs, so does the set of questions."
    return Table("paper-accuracy", "Accuracy", columns, tuple(rows), (note,), folded=True)


def devices(results: Results, published: Sequence[paper.FigureRow]) -> Table:
    """What is known of the paper's speed and energy, with our nearest figure: other devices, so only for orientation."""
    columns = (
        *(*named("device"), *_WHAT, *named("metric"), Column("paper", "paper", "known")),
        *(*named("unit"), Column("ours", "ours", "estimate")),
        *(Column("ours_where", "ours was measured on", "prose"), *_ORIGIN),
    )
    ours = _same(published, ordered(results.measured))
    rows: list[tuple[Value, ...]] = []
    for row in published:
        metric, scale = _METRICS.get(row.metric, ("", 1.0))
        cell = next((cell for cell in ours(row) if metric in cell.metrics), None)
        mine: tuple[Value, Value] = (None, None)
        if cell is not None:
            virtual = ", virtual" if cell.device.virtual else ""
            where = f"{results.title(cell.device)}{virtual}, {software(cell)}, {cell.quantization}"
            mine = (measured(cell, metric, scale), where)
        rows.append(
            (
                *(row.device, row.framework, row.model, row.quantization, row.metric, row.value, row.unit),
                *(*mine, remarks((), secondhand=row.secondhand), row.source),
            )
        )
    note = f"{_SECONDHAND[0].upper()}{_SECONDHAND[1:]}. No row is a target."
    return Table("paper-devices", "Speed and energy", columns, tuple(rows), (note,), folded=True)


def operators(published: Sequence[paper.OperatorRow]) -> Table:
    """The paper's operators as it plotted them, and by time."""
    columns = (
        *(*named("device"), *_WHAT, *named("operator")),
        *(Column("share_as_plotted", "as plotted", "known"), Column("share_of_time", "share of time", "known")),
        _ORIGIN[1],
    )
    rows = tuple(
        (
            *(row.device, row.framework, row.model, row.quantization, f"{row.module}: {row.role or row.name}"),
            *(row.plotted_share, row.time_share, row.source),
        )
        for row in published
    )
    note = (
        "As plotted: mean time of one call, normalised; an operator that runs once a token weighs as much as one that"
        " runs in every layer. Share of time: multiplied by the calls of a pass."
    )
    return Table("paper-operators", "Operators", columns, rows, (note,), folded=True)


_PaperRow = paper.SizeRow | paper.AccuracyRow | paper.FigureRow


def _same(published: Sequence[_PaperRow], cells: Sequence[CellResult]) -> Callable[[_PaperRow], list[CellResult]]:
    """Which cells are about the model and the quantization of a published row."""
    meant = {cell.model: same_model((row.model for row in published), cell.model) for cell in cells}

    def found(row: _PaperRow) -> list[CellResult]:
        rough = row.quantization.startswith(("4-bit", "not stated"))
        return [
            cell
            for cell in cells
            if row.model in meant[cell.model]
            and (
                same_quantization(row.quantization, cell.quantization)
                or (rough and cell.quantization.lower().startswith("q4"))
            )
        ]

    return found


def same_model(published: Iterable[str], model: str) -> frozenset[str]:
    """The published names that mean a model; none where its name fits several."""
    found = frozenset(name for name in published if _contains(_parts(name), _parts(model)))
    shortest = min(map(_parts, found), key=len, default=())
    return found if all(_contains(_parts(name), shortest) for name in found) else frozenset()


def same_quantization(a: str, b: str) -> bool:
    """`q3_K`, `q3_k` and `q3_K_M` are the same, and so are all names for not quantized."""
    return _quantization(a) == _quantization(b)


def paper_task(score: Score) -> str:
    """What the paper's table calls the task of a score."""
    named = f"{score.task}_{score.metric}" if score.task == "truthfulqa" else score.task
    return named.lower().replace("-", "_")


def remarks(flags: Sequence[str], *, secondhand: bool = False) -> Remarks:
    """Flags of a row in words."""
    words = tuple(_FLAGS[flag] for flag in flags)
    return Remarks((Remark("secondhand", _SECONDHAND), *words) if secondhand else words)


def _is_llama(framework: str) -> bool:
    return framework.lower().replace(".", "").startswith("llamacpp")


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in _SEPARATORS.split(name.lower()) if part)


def _contains(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the parts of the shorter name stand in a row within the longer one."""
    short, long = sorted((tuple(one), tuple(other)), key=len)
    return bool(short) and any(long[i : i + len(short)] == short for i in range(len(long) - len(short) + 1))


def _quantization(name: str) -> str:
    lowered = name.lower()
    return "unquantized" if lowered in _FULL else re.sub(r"^(q\d_k)_[sml]$", r"\1", lowered)
