"""`meltrepro plan`: what would run, what must be built or fetched for it, what is left out and why."""

from __future__ import annotations

import json as json_module
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meltrepro import workflow
from meltrepro.cli.common import OnlyOption, SetOption, SpecArgument
from meltrepro.cli.terminal import plain_table, result_console
from meltrepro.manifest.schema import Workload
from meltrepro.plan.estimate import Sizes, data_of
from meltrepro.plan.model import Plan
from meltrepro.words import counted, readable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def command(
    spec: SpecArgument,
    set_: SetOption = [],
    only: OnlyOption = [],
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show the cells of a manifest, what must be built or fetched for them, and what will be skipped."""
    from meltrepro.plan.planner import require_cells

    planned = workflow.plan(spec, overrides=set_, only=only)
    if json:
        typer.echo(json_module.dumps(document(planned.plan, planned.sizes), indent=2, ensure_ascii=False))
    else:
        show(planned.plan, planned.sizes, planned.unknown, spec=spec)
    require_cells(planned.plan)


def document(plan: Plan, sizes: Sizes) -> dict[str, Any]:
    """The plan as plain data; each bundle and model says whether it is in the store already, data what is to be fetched."""
    from meltrepro.plan.identity import plan_document
    from meltrepro.store.source import key_of

    whole = plan_document(plan)
    data = [
        {"workload": name, "source": key_of(source), "download_bytes": sizes.downloads.get(source)}
        for name, source in data_of(plan.cells).items()
    ]
    for kind in ("bundles", "models", "logits"):
        for node in whole.get(kind, ()):
            node["stored"] = node["id"] in sizes.stored
    whole["estimate"]["free_bytes"] = sizes.free_bytes
    return {**whole, **({"data": data} if data else {}), "warnings": list(plan.warnings)}


def show(
    plan: Plan, sizes: Sizes, unknown: Collection[str] = (), out: Console | None = None, *, spec: Path = Path("SPEC")
) -> None:
    """Print a plan for people: at most 80 columns on a narrow terminal, never shortened in a pipe."""

    from meltrepro.store.source import key_of

    out = out or result_console()
    protocol = plan.manifest.protocol
    trials = sum(
        protocol.repetitions + protocol.warmups if isinstance(cell.workload, Workload) else cell.workload.repetitions
        for cell in plan.cells
    )
    if plan.cells:
        cells = plain_table("cell", "variant", "memory", texts=2)
        for cell in plan.cells:
            _row(cells, cell.id, cell.variant.name, _size(plan.estimate.peak_memory_bytes.get(cell.id)))
        out.print(cells)
        out.print()
        nodes = plain_table("to have first", "state", texts=2)
        for name in [node.id for kind in (plan.bundles, plan.models, plan.logits) for node in kind]:
            state = "reuse" if name in sizes.stored else "not locked yet" if name in unknown else "build"
            _row(nodes, name, state)
        out.print(nodes)
        out.print()
    if unknown:
        out.print("not locked yet: its source was never looked up, so it may be here already;", soft_wrap=True)
        out.print(f"to look, and to build what is missing: meltrepro build {spec}", markup=False, soft_wrap=True)
        out.print()
    if data := data_of(plan.cells):
        sources = plain_table("data of workload", "from", "to download", texts=3)
        for name, source in data.items():
            _row(sources, name, key_of(source), _size(sizes.downloads.get(source)))
        out.print(sources)
        out.print()
    if plan.skipped:
        skips = plain_table("skipped", "because", texts=2)
        for skip in plan.skipped:
            _row(skips, skip.cell_id, skip.reason)
        out.print(skips)
        out.print()
    for warning in plan.warnings:
        out.print(f"warning: {warning}", markup=False, soft_wrap=True)
    out.print(
        f"{counted(len(plan.cells), 'cell')}, {counted(trials, 'trial')}; to download: "
        f"{_size(plan.estimate.download_bytes)}; more disk: {_size(plan.estimate.disk_bytes)}",
        soft_wrap=True,
    )
    if sizes.free_bytes is not None:
        out.print(f"free on the store's disk: {readable(sizes.free_bytes)}", soft_wrap=True)
    for line in room(plan, sizes):
        out.print(line, markup=False, soft_wrap=True)


def room(plan: Plan, sizes: Sizes) -> list[str]:
    """What to do where the store's disk has no room for all of it."""
    from meltrepro.frameworks.base import SkipKind

    needed, free = plan.estimate.disk_bytes, sizes.free_bytes
    lacking = needed is not None and free is not None and needed > free
    if not lacking and not any(skip.kind is SkipKind.store for skip in plan.skipped):
        return []
    lines = []
    if needed is not None and free is not None and lacking:
        lines.append(f"warning: {readable(needed)} are needed in the store, {readable(free)} are free on its disk")
    lines.append("for more room: meltrepro gc, or another disk for the store: MELTREPRO_CACHE")
    return [*lines, "a study of manifests of one model each needs the room of one: meltrepro study --drop-models"]


def _row(table: Table, *texts: str) -> None:
    from rich.text import Text

    table.add_row(*map(Text, texts))


def _size(size: int | None) -> str:
    return "not known yet" if size is None else readable(size)
