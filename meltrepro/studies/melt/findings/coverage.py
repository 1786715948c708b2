"""What ran at all: F22."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from meltrepro.report.results import CellResult
from meltrepro.studies.melt.findings import cells as of_cells
from meltrepro.studies.melt.findings.model import Decision, Definition, Quantity, missing

_FEWEST_MODELS = 3
_CIRCUMSTANCES = frozenset(
    {"pending", "unreachable", "gate-closed", "target-error", "meter-error", "metric-unavailable", "killed"}
)
"""Causes that say something of the day or of the lab, and nothing of the framework on the device."""


def nothing_ran_everything(cells: Sequence[CellResult]) -> Decision:
    """F22: for each class of devices and each framework, whether some cell could not be run."""
    tried = [cell for cell in of_cells.latest(cells) if cell.cause not in _CIRCUMSTANCES]
    groups = {
        key: group
        for key, group in of_cells.grouped(tried, lambda cell: (cell.device.kind, cell.framework)).items()
        if len(of_cells.models(group)) >= _FEWEST_MODELS
    }
    if not groups:
        return missing(f"needs {_FEWEST_MODELS} models or more that a framework was asked for on one device")
    failed = {key: [cell for cell in group if cell.state in ("failed", "skipped")] for key, group in groups.items()}
    complete = [f"{framework} on {kind}" for (kind, framework), found in failed.items() if not found]
    causes = Counter(cell.cause or "unknown" for found in failed.values() for cell in found)
    numbers = {
        "frameworks_on_devices": Quantity(len(groups)),
        "cells": Quantity(sum(map(len, groups.values()))),
        "cells_that_failed": Quantity(sum(map(len, failed.values()))),
        **{f"failed_{cause}": Quantity(count) for cause, count in sorted(causes.items())},
    }
    notes = tuple(f"{cell.cell}: {cell.reason}" for found in failed.values() for cell in found[:2])
    reason = (
        f"everything that was asked for ran with {of_cells.listed(complete)}"
        if complete
        else "something could not be run with every framework on every class of devices"
    )
    evidence = tuple(cell for key, found in failed.items() for cell in found or groups[key])
    return Decision(not complete, reason, numbers, evidence, notes)


F22 = Definition(
    id="F22",
    claim="No framework ran every model on every class of devices.",
    threshold="each framework on each class of devices has one cell or more that failed, or was skipped because it cannot run there "
    "(memory, disk, context, unsupported); what failed by circumstance does not count",
    needs=f"{_FEWEST_MODELS} models or more on one device, best the whole zoo, unquantized too; skipped cells count",
    decide=nothing_ran_everything,
    direct=False,
)
COVERAGE = (F22,)
