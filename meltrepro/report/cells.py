"""How cells are named, ordered and told apart, the same in every table and figure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from meltrepro.manifest.accuracy import TEXT_TASKS
from meltrepro.report.results import CellResult, Device, DeviceKey, Results, Score
from meltrepro.report.values import Absent, Column, Table, Tags, Value, measured, named
from meltrepro.stats.summary import TOO_FEW

_REMARKS = ("synthetic", "invalid", TOO_FEW)
"""Tags that a row of a figure carries; its panel says whether a device is virtual."""
_NOBODY = "no cell of this report measured it"
WHO = (
    *named("device", "framework", "release", "model", "quantization", "workload", "campaign"),
    Column("tags", "tags", "tags"),
)
"""The columns that say which cell a row is about."""


def who(results: Results, cell: CellResult) -> tuple[Value, ...]:
    """The values of `WHO`."""
    return (
        results.title(cell.device),
        cell.framework,
        cell.release,
        cell.model,
        cell.quantization,
        cell.workload,
        results.number(cell.campaign),
        Tags(tags(cell)),
    )


Field = tuple[Column, Callable[[CellResult], Value]]
"""A column, and what stands in it."""


def metric(name: str, title: str, *, key: str | None = None, scale: float = 1.0) -> Field:
    """The column of a metric, in a unit of its own where it has a scale."""
    return Column(key or name, title, "estimate"), lambda cell: measured(cell, name, scale)


ScoreKind = tuple[str, str, int]
"""What two scores must share to be compared: task, metric, and of a text how many tokens a window has, else 0."""


def score_kind(cell: CellResult, score: Score) -> ScoreKind:
    return score.task, score.metric, (cell.context or 0) if score.task in TEXT_TASKS else 0


def score_title(kind: ScoreKind) -> str:
    task, metric, context = kind
    said = metric.replace("_", " ")
    title = task if metric in task else f"{task} ({said})"
    return f"{title}, context {context}" if context else title


def gigabytes(key: str, title: str, size: Callable[[CellResult], int | None], unknown: str) -> Field:
    """The column of a size that is known beforehand."""

    def shown(cell: CellResult) -> Value:
        found = size(cell)
        return Absent(unknown) if found is None else found / 1e9

    return Column(key, title, "known"), shown


FILE = gigabytes("model_gb", "file (GB)", lambda cell: cell.model_bytes, "the size of the file is not in the record")


def table(
    results: Results,
    name: str,
    title: str,
    cells: Iterable[CellResult],
    fields: Sequence[Field],
    *,
    why: str,
    note: str = "",
) -> Table:
    """One row a cell: which it is, and its fields. `why` it has no rows, where it has none."""
    rows = tuple((*who(results, cell), *(value(cell) for _, value in fields)) for cell in cells)
    columns = (*WHO, *(column for column, _ in fields))
    return Table(name, title, columns, rows, (note,) if note and rows else (), None if rows else why)


def tags(cell: CellResult) -> tuple[str, ...]:
    """What a reader must know before comparing the cell with any other."""
    found = (
        ("virtual", cell.device.virtual),
        ("synthetic", cell.synthetic),
        ("GPU", cell.accelerated),
        ("software device", cell.software_device),
        ("invalid", cell.state == "invalid"),
        (TOO_FEW, cell.too_few),
    )
    return tuple(name for name, holds in found if holds)


def software(cell: CellResult) -> str:
    """Framework and release, and whether it used a GPU."""
    return f"{cell.framework} {cell.release}" + (" on GPU" if cell.accelerated else "")


def weights(cell: CellResult) -> str:
    return f"{cell.model} {cell.quantization}"


def labelled(results: Results, cells: Sequence[CellResult]) -> list[tuple[str, str]]:
    """A name of each cell that is short and unlike the others on the same device and software, and its remarks.

    The workload is named where it is not the usual one, the campaign where there are several.
    """
    usual = usual_workload(results)
    names = [weights(cell) if cell.workload == usual else f"{weights(cell)} · {cell.workload}" for cell in cells]
    whose = [(name, cell.device.key, software(cell)) for name, cell in zip(names, cells, strict=True)]
    seen = Counter(whose)
    found = []
    for key, cell in zip(whose, cells, strict=True):
        name = key[0] + (f" · campaign {results.number(cell.campaign)}" if seen[key] > 1 else "")
        found.append((name, ", ".join(tag for tag in tags(cell) if tag in _REMARKS)))
    return found


def line_names(results: Results, cells: Sequence[CellResult]) -> list[str]:
    """What the lines of cells are called in a figure, so that no two of one device have the same name."""
    labels = zip(labelled(results, cells), cells, strict=True)
    return [", ".join(filter(None, (label, software(cell), remark))) for (label, remark), cell in labels]


def usual_workload(results: Results) -> str:
    """The workload of most cells whose speed was measured."""
    counts = Counter(cell.workload for cell in results.measured if "generation_tps" in cell.metrics)
    return max(counts, key=lambda name: (counts[name], name), default="")


def unless_named(results: Results) -> str:
    """What a figure says of the workload that its rows do not name."""
    return f" Workload {usual_workload(results)} where none is named."


def by_device(cells: Iterable[CellResult]) -> list[tuple[Device, list[CellResult]]]:
    """Cells device by device, real ones first, and by size within each."""
    groups: dict[DeviceKey, list[CellResult]] = {}
    for cell in cells:
        groups.setdefault(cell.device.key, []).append(cell)
    return [(found[0].device, by_size(found)) for _, found in sorted(groups.items())]


def by_size(cells: Iterable[CellResult]) -> list[CellResult]:
    """Models from the smallest to the largest, each with its quantizations from the smallest file to the largest."""
    listed = list(cells)
    smallest: dict[str, float] = {}
    for cell in listed:
        size = cell.parameters or cell.model_bytes or math.inf
        smallest[cell.model] = min(smallest.get(cell.model, size), size)
    return sorted(
        listed,
        key=lambda cell: (
            smallest[cell.model],
            cell.model,
            cell.model_bytes or 0,
            cell.quantization,
            cell.workload,
            cell.framework,
            cell.release,
            cell.accelerated,
        ),
    )


def ordered(cells: Iterable[CellResult]) -> list[CellResult]:
    """By device, then by size."""
    return [cell for _, group in by_device(cells) for cell in group]


def why_none(results: Results, metric: str | None = None, wanted: Callable[[CellResult], bool] | None = None) -> str:
    """Why no cell has a metric, in one sentence made of the reasons that the records give."""
    cells = [cell for cell in results.cells if wanted is None or wanted(cell)]
    if not cells:
        return "no campaign of this report has such a cell"
    if metric is not None:
        reasons = Counter(cell.unavailable[metric] for cell in cells if metric in cell.unavailable)
        if reasons:
            return "; ".join(_counted(reason, n, len(cells)) for reason, n in sorted(reasons.items()))
    states = Counter(f"{cell.state}: {cell.reason or 'no reason given'}" for cell in cells if cell.state != "measured")
    if sum(states.values()) == len(cells):
        return "; ".join(_counted(reason, n, len(cells)) for reason, n in sorted(states.items()))
    return _NOBODY


def none_since(said: str, results: Results, wanted: Callable[[CellResult], bool] | None = None) -> str:
    """What there is none of, and why in the words of the records where they say more."""
    why = why_none(results, wanted=wanted)
    return said if why == _NOBODY else f"{said}; {why}"


def _counted(reason: str, n: int, total: int) -> str:
    return reason if n == total else f"{reason} ({n} of {total} cells)"
