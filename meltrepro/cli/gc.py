"""`meltrepro gc`: free disk space in the store."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings, workflow
from meltrepro.cli.common import JsonOption
from meltrepro.cli.documents import GcDocument, RemovedDocument
from meltrepro.cli.json_output import print_json
from meltrepro.errors import UsageError
from meltrepro.words import readable

if TYPE_CHECKING:
    from meltrepro.store.gc import Cleanup

_UNITS = {"": 1, "B": 1} | {
    prefix + suffix: factor**power
    for power, prefix in enumerate(("K", "M", "G", "T"), start=1)
    for suffix, factor in (("", 1000), ("B", 1000), ("IB", 1024))
}


def command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove whatever no lock file in use names, build caches included.")
    ] = False,
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Also remove results unused for DAYS.")
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="SIZE", help="Also remove what was used longest ago, down to SIZE (10GB)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Remove unfinished downloads, leftovers of stopped commands and objects that nothing refers to."""
    max_bytes = None if max_size is None else parse_size(max_size)
    decision = workflow.collect_garbage(
        everything=everything,
        older_than_s=None if older_than is None else older_than * 86400,
        max_bytes=max_bytes,
        dry_run=dry_run,
    )
    done = _document(decision, dry_run=dry_run)
    if json:
        print_json("gc", done)
        return
    for each in done.removed:
        typer.echo(f"{each.kind:17} {each.count:6}  {readable(each.bytes):>10}")
    freed = readable(sum(each.bytes for each in done.removed))
    locked = f", {readable(done.locked_bytes)} of it named by lock files" if done.locked_bytes else ""
    typer.echo(
        f"{'would free' if dry_run else 'freed'} {freed} in {done.store}; {readable(done.kept_bytes)} stay{locked}"
    )
    if max_bytes is not None and done.kept_bytes > max_bytes:
        typer.echo(f"more than {max_size} stay: what locks name and build caches are kept (--all removes the caches)")


def _document(decision: Cleanup, *, dry_run: bool) -> GcDocument:
    sizes: dict[str, list[int]] = {}
    for removal in decision.removals:
        sizes.setdefault(removal.kind, []).append(removal.size)
    return GcDocument(
        store=settings.load().store,
        dry_run=dry_run,
        removed=[RemovedDocument(kind=kind, count=len(each), bytes=sum(each)) for kind, each in sizes.items()],
        kept_bytes=decision.kept_bytes,
        locked_bytes=decision.locked_bytes,
    )


def parse_size(text: str) -> int:
    """A size for people (`10GB`, `1.5 GiB`, `500000`) in bytes; raises `UsageError`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    factor = _UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise UsageError(f"--max-size: expected a size, got {text!r}", hint="for example 10GB, 500MB or 1.5GiB")
    return int(float(match[1]) * factor)
