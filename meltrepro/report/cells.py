"""How cells are named, ordered and told apart, the same in every table and figure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from meltrepro.report.content import Content
from meltrepro.report.keys import DeviceKey, device_key
from meltrepro.report.results import CellResult, Device
from meltrepro.report.values import Column, Tags, Value

_REMARKS = ("synthetic", "invalid")
"""Tags that a row of a figure carries; its panel says whether a device is virtual."""
_NOBODY = "no cell of this report measured it"
WHO = (
    Column("device", "device"),
    Column("framework", "framework"),
    Column("release", "release"),
    Column("model", "model"),
    Column("quantization", "quantization"),
    Column("workload", "workload"),
    Column("campaign", "campaign"),
    Column("tags", "tags", "tags"),
)
"""The columns that say which cell a row is about."""


def who(content: Content, cell: CellResult) -> tuple[Value, ...]:
    """The values of `WHO`."""
    return (
        content.title(cell.device),
        cell.framework,
        cell.release,
        cell.model,
        cell.quantization,
        cell.workload,
        campaign_number(content, cell.campaign),
        Tags(tags(cell)),
    )


def tags(cell: CellResult) -> tuple[str, ...]:
    """What a reader must know before comparing the cell with any other."""
    found = (
        ("virtual", cell.device.virtual),
        ("synthetic", cell.synthetic),
        ("GPU", cell.accelerated),
        ("invalid", cell.state == "invalid"),
    )
    return tuple(name for name, holds in found if holds)


def campaign_ids(content: Content) -> tuple[str, ...]:
    """Ids of all campaigns, in the order in which they were given."""
    named = [provenance.campaign for provenance in content.provenance] or list(content.results.names)
    return tuple(dict.fromkeys([*named, *(cell.campaign for cell in content.results.cells)]))


def campaign_number(content: Content, campaign: str) -> int:
    """What a campaign is called in tables, from 1."""
    return campaign_ids(content).index(campaign) + 1


def software(cell: CellResult) -> str:
    """Framework and release, and whether it used a GPU."""
    return f"{cell.framework} {cell.release}" + (" on GPU" if cell.accelerated else "")


def weights(cell: CellResult) -> str:
    """Model and quantization."""
    return f"{cell.model} {cell.quantization}"


def labelled(content: Content, cells: Sequence[CellResult]) -> dict[int, tuple[str, str]]:
    """By position: a name that is short and unlike the others on the same device and software, and its remarks.

    The workload is named where it is not the usual one, the campaign where there are several.
    """
    usual = usual_workload(content)
    names = [weights(cell) if cell.workload == usual else f"{weights(cell)} · {cell.workload}" for cell in cells]
    seen = Counter((name, device_key(cell.device), software(cell)) for name, cell in zip(names, cells, strict=True))
    found = {}
    for position, (name, cell) in enumerate(zip(names, cells, strict=True)):
        if seen[name, device_key(cell.device), software(cell)] > 1:
            name = f"{name} · campaign {campaign_number(content, cell.campaign)}"
        found[position] = (name, ", ".join(tag for tag in tags(cell) if tag in _REMARKS))
    return found


def line_names(content: Content, cells: Sequence[CellResult]) -> list[str]:
    """What the lines of cells are called in a figure, so that no two of one device have the same name."""
    labels = labelled(content, cells)
    names = []
    for position, cell in enumerate(cells):
        label, remark = labels[position]
        names.append(", ".join(filter(None, (label, software(cell), remark))))
    return names


def usual_workload(content: Content) -> str:
    """The workload of most cells whose speed was measured."""
    counts = Counter(cell.workload for cell in content.measured if "generation_tps" in cell.metrics)
    return max(counts, key=lambda name: (counts[name], name), default="")


def unless_named(content: Content) -> str:
    """What a figure says of the workload that its rows do not name."""
    return f" Workload {usual_workload(content)} where none is named."


def by_device(cells: Iterable[CellResult]) -> list[tuple[Device, list[CellResult]]]:
    """Cells device by device, real ones first, and by size within each."""
    groups: dict[DeviceKey, list[CellResult]] = {}
    for cell in cells:
        groups.setdefault(device_key(cell.device), []).append(cell)
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


def why_none(content: Content, metric: str | None = None, wanted: Callable[[CellResult], bool] | None = None) -> str:
    """Why no cell has a metric, in one sentence made of the reasons that the records give."""
    cells = [cell for cell in content.results.cells if wanted is None or wanted(cell)]
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


def none_since(said: str, content: Content, wanted: Callable[[CellResult], bool] | None = None) -> str:
    """What there is none of, and why in the words of the records where they say more."""
    why = why_none(content, wanted=wanted)
    return said if why == _NOBODY else f"{said}; {why}"


def _counted(reason: str, n: int, total: int) -> str:
    return reason if n == total else f"{reason} ({n} of {total} cells)"
