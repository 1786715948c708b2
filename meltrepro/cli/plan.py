"""`meltrepro plan`: what would run, what must be built or fetched for it, what is left out and why."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from meltrepro import workflow
from meltrepro.cli.common import JsonOption, OnlyOption, SetOption, SpecArgument
from meltrepro.cli.documents import PlanDocument
from meltrepro.cli.json_output import print_json
from meltrepro.cli.terminal import plain_table, result_console, say
from meltrepro.words import counted, readable

if TYPE_CHECKING:
    from rich.console import Console

_STATES = {"here": "reuse", "unknown": "not locked yet", "missing": "build"}


def command(
    spec: SpecArgument,
    set_: SetOption = [],
    only: OnlyOption = [],
    json: JsonOption = False,
) -> None:
    """Show the cells of a manifest, what must be built or fetched for them, and what will be skipped."""
    from meltrepro.plan.planner import require_cells

    planned = workflow.plan(spec, overrides=set_, only=only)
    if json:
        print_json("plan", PlanDocument.model_validate(planned.as_json()))
    else:
        show(planned, spec)
    require_cells(planned.plan, now=False, shown=not json)


def show(planned: workflow.Planned, spec: Path, out: Console | None = None) -> None:
    """Print a plan for people: at most 80 columns on a narrow terminal, never shortened in a pipe."""
    out = out or result_console()
    plan = planned.plan

    def table(*columns: str, rows: Sequence[Sequence[str]], texts: int = 2) -> None:
        if rows:
            found = plain_table(*columns, texts=texts)
            for row in rows:
                found.add_row(*row)
            out.print(found)
            out.print()

    memory = plan.estimate.peak_memory_bytes
    table("cell", "variant", "memory", rows=[(c.id, c.variant.name, _size(memory.get(c.id))) for c in plan.cells])
    if plan.cells:
        table("to have first", "state", rows=[(name, _STATES[state]) for name, state in planned.needed.items()])
    if planned.unknown:
        say(out, "not locked yet: its source was never looked up, so it may be here already;")
        say(out, f"to look, and to build what is missing: meltrepro build {shlex.quote(str(spec))}")
        out.print()
    data = [(name, source, _size(size)) for name, (source, size) in planned.data.items()]
    table("data of workload", "from", "to download", rows=data, texts=3)
    table("skipped", "because", rows=[(skip.cell_id, skip.reason) for skip in plan.skipped])
    for line in _summary(planned):
        say(out, line)


def _summary(planned: workflow.Planned) -> Iterator[str]:
    """Warnings, counts and sizes, and what to do where the store's disk has no room for all of it."""
    plan, free = planned.plan, planned.sizes.free_bytes
    for device in planned.devices.values():
        if device.absence is not None and device.known_as is not None:
            yield f"{device.absence.reason}; planned with {device.known_as}"
    yield from (f"warning: {warning}" for warning in plan.warnings)
    yield (
        f"{counted(len(plan.cells), 'cell')}, {counted(planned.trials, 'trial')}; to download: "
        f"{_size(plan.estimate.download_bytes)}; more disk: {_size(plan.estimate.disk_bytes)}"
    )
    if free is not None:
        yield f"free on the store's disk: {readable(free)}"
    if planned.too_large:
        yield (
            f"warning: {_size(plan.estimate.disk_bytes)} are needed in the store, {_size(free)} are free on its disk"
        )
    if planned.too_large or planned.left_out_for_room:
        yield "for more room: meltrepro gc, or another disk for the store: MELTREPRO_CACHE"
        yield "a study of manifests of one model each needs the room of one: meltrepro study --drop-models"


def _size(size: int | None) -> str:
    return "not known yet" if size is None else readable(size)
