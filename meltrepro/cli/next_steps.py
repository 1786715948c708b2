"""What somebody can do with a campaign that has just ended; printed once, at the end of a run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from meltrepro.measure.records import CellRecord

_STEPS = (
    ("ui", "the results in a browser (MLflow)"),
    ("report last -o report", "one page with figures, and every table as CSV and LaTeX"),
    ("compare last OTHER", "beside another campaign, which `show --list` names"),
    ("replay last", "is it reproduced?"),
)


def tell(folder: Path) -> None:
    """Say why cells are noisy, where some are, and what comes next; raises `RecordError` where the record is damaged."""
    from meltrepro.measure.records import read_campaign

    record = read_campaign(folder)
    for line in (*noise(record.cells), *steps(tracked=record.document.tracking.enabled)):
        typer.echo(line)


def noise(cells: Sequence[CellRecord]) -> list[str]:
    """What to do where cells are INVALID because something else kept the machine busy."""
    from meltrepro.measure.validity import Reason

    busy = {Reason.noisy, Reason.unsteady, Reason.cpu_pressure}
    noisy = [cell.id for cell in cells if busy & {finding.reason for finding in cell.validity.findings}]
    if not noisy:
        return []
    return [
        (
            f"{len(noisy)} of {len(cells)} cells {'is' if len(noisy) == 1 else 'are'} INVALID because the repetitions differ too "
            "much: something else kept the machine busy, or its clocks changed"
        ),
        (
            "  let it rest and run the same with --new; --set protocol.gates.busy_cores=0.5 waits until it is idle, and "
            "--set measure.limits.noise=0.2 allows more"
        ),
    ]


def steps(*, tracked: bool) -> list[str]:
    """The commands that go on from here, as they can be typed; MLflow shows only what was logged to it."""
    program = "meltrepro" if shutil.which("meltrepro") else sys.argv[0]
    shown = [step for step in _STEPS if tracked or step[0] != "ui"]
    width = max(len(command) for command, _ in shown)
    return ["next:", *(f"  {program} {command:{width}}  {what}" for command, what in shown)]
