"""The results of a campaign as a table: per cell the median of each metric and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from meltrepro.cli.terminal import rich_console
from meltrepro.record.ids import CellId
from meltrepro.words import counted

if TYPE_CHECKING:
    from rich.console import Console

    from meltrepro.measure.operators import Breakdown
    from meltrepro.measure.records import CellRecord
    from meltrepro.stats.summary import Summary
    from meltrepro.workflow.tracking import Logged

_MOST_OPERATORS = 8


@dataclass(frozen=True)
class _Column:
    """One metric of the table."""

    metric: str
    title: str
    scale: float = 1.0
    interval: bool = False
    """Whether its interval is shown too; the table must fit into 80 columns."""
    optional: bool = False
    """Whether it is left out where no cell has it."""


_COLUMNS = (
    _Column("prefill_tps", "prefill tok/s", interval=True),
    _Column("generation_tps", "generation tok/s", interval=True),
    _Column("ttft_ms", "first token ms"),
    _Column("peak_memory_bytes", "memory MB", 1e-6),
    _Column("energy_per_token_j", "J/token", optional=True),
    _Column("temperature_max_c", "hottest °C", optional=True),
)


def show_results(campaign: Path, out: Console | None = None, *, with_invalid: bool = False) -> None:
    """Print the results of a campaign folder, INVALID repetitions only if asked for; raises `RecordError` where it is damaged."""
    from rich.table import Table
    from rich.text import Text

    from meltrepro.measure.records import read_campaign

    out = out or rich_console()
    if not out.is_terminal:
        out.width = 10_000
    record = read_campaign(campaign, with_invalid=with_invalid)
    pattern, names = short_names([cell.id for cell in record.cells])
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cell", overflow="fold")
    table.add_column("n", justify="right")
    columns = [
        column
        for column in _COLUMNS
        if not column.optional or any(column.metric in cell.summaries for cell in record.cells)
    ]
    for column in columns:
        table.add_column(column.title, justify="right", overflow="fold")
    for name, cell in zip(names, record.cells, strict=True):
        if _is_scored(cell):
            continue
        values = [_shown(cell.summaries.get(column.metric), column) for column in columns]
        table.add_row(Text(name), _counted(cell), *values)
    out.print(f"{record.id}: {pattern}" if pattern else record.id, markup=False, soft_wrap=True)
    if table.rows:
        explained = "median and 95 % interval of the median (of fewer than 5 repetitions: smallest and largest)"
        out.print(explained, soft_wrap=True)
        out.print(table)
    scored = [(name, cell) for name, cell in zip(names, record.cells, strict=True) if _is_scored(cell)]
    if scored:
        _show_scores(scored, out)
    for name, cell in zip(names, record.cells, strict=True):
        if cell.virtual:
            out.print(f"{name}: a virtual device; its numbers say nothing of real ones", markup=False, soft_wrap=True)
        if cell.synthetic:
            out.print(f"{name}: synthetic weights; its answers mean nothing", markup=False, soft_wrap=True)
        if proof := cell.entry.params.get("device.proof"):
            out.print(f"{name}: {proof}: nothing stands behind these numbers yet", markup=False, soft_wrap=True)
        for remark in (*([] if cell.agreement.valid else [str(cell.agreement)]), *map(str, cell.exclusions)):
            out.print(f"{name}: {remark}", markup=False, soft_wrap=True)
        for found in cell.steadiness:
            for remark in found.remarks():
                out.print(f"{name}: {remark}", markup=False, soft_wrap=True)
    for skip in record.document.skipped:
        out.print(f"skipped: {skip.id}: {skip.reason}", markup=False, soft_wrap=True)
    for first, second in record.copied:
        out.print(
            f"{first} and {second} were equally fast to the last bit: one is a copy", markup=False, soft_wrap=True
        )
    for name, cell in zip(names, record.cells, strict=True):
        for breakdown in cell.profiles.values():
            _show_operators(name, breakdown, cell.profile_slowdown, out)


def tell_logged(logged: Logged, *, quiet: bool) -> None:
    """Say where a campaign was logged to, or why it was not."""
    if place := logged.without_login:
        typer.echo(f"only the manifest names {place.shown}: your login for MLflow is not sent there", err=True)
        typer.echo(f"next: to log in there, name it yourself: MLFLOW_TRACKING_URI={place.shown}", err=True)
    if logged.problem:
        typer.echo(f"not logged to MLflow: {logged.problem.message}", err=True)
        typer.echo(f"next: {logged.problem.hint}", err=True)
    elif not quiet:
        typer.echo("compare the cells in MLflow with: meltrepro ui")


def _is_scored(cell: CellRecord) -> bool:
    return "task" in cell.entry.params


def _show_scores(cells: Sequence[tuple[str, CellRecord]], out: Console) -> None:
    """Scores with what they rest on: right answers, standard error, and what the file really spends on a weight."""
    from rich.table import Table
    from rich.text import Text

    from meltrepro.accuracy.scores import metric_name

    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cell", overflow="fold")
    table.add_column("score", overflow="fold")
    for title in ("value", "std. error", "right", "of", "bits/weight", "file MB"):
        table.add_column(title, justify="right")
    for name, cell in cells:
        bits = "-" if cell.bits_per_weight is None else f"{cell.bits_per_weight:.2f}"
        size = f"{cell.entry.model_bytes / 1e6:.1f}"
        for score in cell.scores:
            error = "-" if score.stderr is None else f"{score.stderr:.4f}"
            right = "-" if score.k is None else str(score.k)
            texts = (name, metric_name(score), f"{score.value:.4f}", error, right, str(score.n), bits, size)
            table.add_row(*map(Text, texts))
        if not cell.scores:
            table.add_row(*map(Text, (name, "no score", "-", "-", "-", "-", bits, size)))
    out.print(table)


def _show_operators(name: str, found: Breakdown, slowdown: float | None, out: Console) -> None:
    """The operators that take the most time, as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("operator", overflow="fold")
    for title in ("% of time", "us per call", "calls"):
        table.add_column(title, justify="right")
    for share in found.shares[:_MOST_OPERATORS]:
        table.add_row(Text(share.title), f"{100 * share.time_share:.1f}", number(share.mean_us), str(share.calls))
    rest = found.shares[_MOST_OPERATORS:]
    if rest:
        table.add_row(counted(len(rest), "other"), f"{100 * sum(share.time_share for share in rest):.1f}")
    slower = f"; the profiled trial was {slowdown:.2f} times slower" if slowdown is not None else ""
    head = f"{name}, {found.phase}: {found.coverage:.1%} of {counted(found.calls, 'decoding')} is in operators{slower}"
    out.print(f"\n{head}", markup=False, soft_wrap=True)
    out.print(table)


def short_names(ids: Sequence[str]) -> tuple[str, list[str]]:
    """What cell ids have in common, with `*` for the rest, and what tells them apart."""
    parts = [astuple(CellId.parse(cell_id)) for cell_id in ids]
    if len(parts) < 2:
        return ("", list(ids))
    same = [len(set(column)) == 1 for column in zip(*parts, strict=True)]
    pattern = "/".join(part if fixed else "*" for part, fixed in zip(parts[0], same, strict=True))
    return pattern, ["/".join(p for p, fixed in zip(part, same, strict=True) if not fixed) for part in parts]


def _shown(summary: Summary | None, column: _Column) -> str:
    """`108.2 (105.9-109.0)`; a dash where there is no value."""
    if summary is None:
        return "-"
    low, middle, high = (number(value * column.scale) for value in (summary.low, summary.median, summary.high))
    return f"{middle} ({low}-{high})" if column.interval and summary.n > 1 else middle


def number(value: float) -> str:
    """A value with four digits that count: `12346`, `108.2`, `0.01234`."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:#.4g}".rstrip(".")


def _counted(cell: CellRecord) -> str:
    """Repetitions with a result that is believed, of those that there should be."""
    done = len(cell.believed)
    return str(done) if cell.asked == done else f"{done} of {cell.asked}"
