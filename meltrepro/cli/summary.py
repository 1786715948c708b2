"""A campaign for people: its results as tables, where it was logged to, and what can be done with it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import typer

from meltrepro.cli.terminal import plain_table, result_console, say, typed
from meltrepro.record.ids import CellId
from meltrepro.words import counted

if TYPE_CHECKING:
    from rich.console import Console

    from meltrepro.measure.operators import Breakdown
    from meltrepro.measure.records import CampaignRecord, CellRecord
    from meltrepro.stats.summary import Summary
    from meltrepro.workflow.tracking import Logged

_MOST_OPERATORS = 8
_STEPS = (
    ("ui", "the results in a browser (MLflow)"),
    ("report last -o report", "one page with figures, and every table as CSV and LaTeX"),
    ("compare last OTHER", "beside another campaign, which `show --list` names"),
    ("replay last", "is it reproduced?"),
)
"""What somebody can do with a campaign that has just ended."""


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


_COSTS = (_Column("time_per_right_answer_s", "s/right"), _Column("energy_per_right_answer_j", "J/right"))
"""What a right answer costs, where any cell knows it."""


def show_results(record: CampaignRecord, out: Console | None = None) -> None:
    """Print the results of a campaign; raises `RecordError` where it is damaged."""
    out = out or result_console()
    pattern, short = short_names([cell.id for cell in record.cells])
    names = dict(zip((cell.id for cell in record.cells), short, strict=True))
    say(out, f"{record.id}: {pattern}" if pattern else record.id)
    scored = [cell for cell in record.cells if "task" in cell.entry.params]
    measured = [cell for cell in record.cells if cell.summaries or cell not in scored]
    if measured:
        _show_metrics(measured, names, out)
    if scored:
        _show_scores(scored, names, out)
    for line in _remarks(record, names):
        say(out, line)
    for cell in record.cells:
        for breakdown in cell.profiles.values():
            _show_operators(names[cell.id], breakdown, cell.profile_slowdown, out)


def show_answers(record: CampaignRecord, out: Console | None = None) -> None:
    """Print which answers are right, the wrong ones first; raises `RecordError` where the campaign is damaged."""
    out = out or result_console()
    checked = {cell.id: marks for cell in record.cells if (marks := cell.marks)}
    for cell_id, marks in checked.items():
        say(out, f"\n{cell_id}: {sum(mark.right for mark in marks)} of {len(marks)} are right")
        table = plain_table("question", "", "expected", "found", texts=4)
        for mark in sorted(marks, key=lambda mark: (mark.right, mark.number)):
            verdict = "right" if mark.right else "wrong"
            table.add_row(str(mark.number), verdict, mark.expected, mark.found or "-")
        out.print(table)
    if not checked:
        say(out, f"{record.id}: no answer of it is checked, as those to tasks such as gsm8k are (docs/accuracy.md)")


def _show_metrics(cells: Sequence[CellRecord], names: Mapping[str, str], out: Console) -> None:
    columns = [
        column for column in _COLUMNS if not column.optional or any(column.metric in cell.summaries for cell in cells)
    ]
    table = plain_table("cell", "n", *(column.title for column in columns))
    for cell in cells:
        values = [_shown(cell.summaries.get(column.metric), column) for column in columns]
        table.add_row(names[cell.id], _counted(cell), *values)
    from meltrepro.stats.summary import INTERVAL

    say(out, f"median and {INTERVAL}")
    out.print(table)


def _remarks(record: CampaignRecord, names: Mapping[str, str]) -> Iterator[str]:
    """What a reader must know of the numbers, a line each."""
    for cell in record.cells:
        name = names[cell.id]
        if cell.virtual:
            yield f"{name}: a virtual device; its numbers say nothing of real ones"
        if cell.synthetic:
            yield f"{name}: synthetic weights; its answers mean nothing"
        if proof := cell.entry.params.get("device.proof"):
            yield f"{name}: {proof}: nothing stands behind these numbers yet"
        if not cell.agreement.valid:
            yield f"{name}: {cell.agreement}"
        for excluded in cell.exclusions:
            yield f"{name}: {excluded}"
    yield from _grouped(record, names, lambda cell: cell.remarks)
    used = {cell.id: _used(cell) for cell in record.cells}
    alike = [said for said in next(iter(used.values()), []) if all(said in each for each in used.values())]
    yield from _grouped(record, names, lambda _: _listed(alike))
    yield from _grouped(record, names, lambda cell: _listed([one for one in used[cell.id] if one not in alike]))
    for skip in record.document.skipped:
        yield f"skipped: {skip.id}: {skip.reason}"
    for first, second in record.copied:
        yield f"{first} and {second} were equally fast to the last bit: one is a copy"


def _grouped(
    record: CampaignRecord, names: Mapping[str, str], said_of: Callable[[CellRecord], Sequence[str]]
) -> Iterator[str]:
    """What is to be said of cells, each thing once, with the cells that it is true of."""
    found: dict[str, list[str]] = {}
    for cell in record.cells:
        for said in said_of(cell):
            found.setdefault(said, []).append(names[cell.id])
    for said, cells in found.items():
        everywhere = len(cells) == len(record.cells) > 1
        yield f"{'all cells' if everywhere else ', '.join(cells)}: {said}"


def _used(cell: CellRecord) -> list[str]:
    """What the engine made of the request, as far as it says so."""
    from meltrepro.record.trace import text_of

    engine = "effective."
    return [
        f"{name.removeprefix(engine)} {text_of(value)}"
        for name, value in cell.ran_as.items()
        if name.startswith(engine)
    ]


def _listed(used: Sequence[str]) -> list[str]:
    return [f"used {', '.join(used)}"] if used else []


def tell_logged(logged: Logged, *, quiet: bool) -> None:
    """Say where a campaign was logged to, or why it was not."""
    if place := logged.without_login:
        typer.echo(f"only the manifest names {place.shown}: your login for MLflow is not sent there", err=True)
        typer.echo(f"next: to log in there, name it yourself: MLFLOW_TRACKING_URI={shlex.quote(place.shown)}", err=True)
    if logged.problem:
        typer.echo(f"not logged to MLflow: {logged.problem.message}", err=True)
        typer.echo(f"next: {logged.problem.hint}", err=True)
    elif not quiet:
        typer.echo("compare the cells in MLflow with: meltrepro ui")


def _show_scores(cells: Sequence[CellRecord], names: Mapping[str, str], out: Console) -> None:
    """Scores with what they rest on: right answers, standard error, and what the file really spends on a weight."""
    from meltrepro.accuracy.scores import metric_name

    costs = [each for each in _COSTS if any(each.metric in cell.summaries for cell in cells)]
    titles = ("value", "std. error", "right", "of", "bits/weight", "file MB", *(each.title for each in costs))
    table = plain_table("cell", "score", *titles, texts=2)
    for cell in cells:
        name = names[cell.id]
        bits = "-" if cell.bits_per_weight is None else f"{cell.bits_per_weight:.2f}"
        size = f"{cell.entry.model_bytes / 1e6:.1f}"
        for score in cell.scores:
            error = "-" if score.stderr is None else f"{score.stderr:.4f}"
            right = "-" if score.k is None else str(score.k)
            texts = (name, metric_name(score), f"{score.value:.4f}", error, right, str(score.n), bits, size)
            whole = score is cell.scores[0]  # right by the rule that counts
            table.add_row(*texts, *(_shown(cell.summaries.get(each.metric), each) if whole else "" for each in costs))
        if not cell.scores:
            table.add_row(name, "no score", "-", "-", "-", "-", bits, size)
    out.print(table)


def _show_operators(name: str, found: Breakdown, slowdown: float | None, out: Console) -> None:
    """The operators that take the most time, as a table."""
    table = plain_table("operator", "% of time", "us per call", "calls")
    for share in found.shares[:_MOST_OPERATORS]:
        table.add_row(share.title, f"{100 * share.time_share:.1f}", number(share.mean_us), str(share.calls))
    rest = found.shares[_MOST_OPERATORS:]
    if rest:
        table.add_row(counted(len(rest), "other"), f"{100 * sum(share.time_share for share in rest):.1f}")
    slower = f"; the profiled trial was {slowdown:.2f} times slower" if slowdown is not None else ""
    head = f"{name}, {found.phase}: {found.coverage:.1%} of {counted(found.calls, 'decoding')} is in operators{slower}"
    say(out, f"\n{head}")
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


# -- what comes next ----------------------------------------------------------------------------------------------


def tell_next(record: CampaignRecord) -> None:
    """Say why cells are noisy, where some are, what comes next, and last what happened; raises `RecordError`."""
    out = result_console()
    for line in (*noise(record.cells), *next_steps(tracked=record.document.tracking.enabled)):
        say(out, line)
    say(out, ended(record))


def ended(record: CampaignRecord) -> str:
    """What became of the cells of a campaign, and where its records are; raises `RecordError` where it is damaged."""
    verdicts = [_verdict(cell) for cell in record.cells] + ["skipped"] * len(record.document.skipped)
    found = [f"{count} {verdict}" for verdict in _VERDICTS if (count := verdicts.count(verdict))]
    return f"{counted(len(verdicts), 'cell')}: {', '.join(found)}; records in {record.folder}; again: {typed('show', record.id)}"


_VERDICTS = ("ok", "INVALID", "failed", "unfinished", "skipped")


def _verdict(cell: CellRecord) -> str:
    if cell.failures:
        return "failed"
    if len(cell.repetitions) < cell.asked or not cell.repetitions:
        return "unfinished"
    return "ok" if cell.validity.valid else "INVALID"


def noise(cells: Sequence[CellRecord]) -> list[str]:
    """What to do where cells are INVALID because something else kept the machine busy."""
    from meltrepro.measure.validity import Reason

    causes = {
        Reason.noisy: ("the repetitions differ too much", "noise=0.2"),
        Reason.cpu_pressure: ("they waited for a CPU too long", "cpu_pressure=1"),
    }
    lines = []
    for reason, (why, limit) in causes.items():
        busy = sum(reason in {finding.reason for finding in cell.validity.findings} for cell in cells)
        if busy:
            lines += [
                (
                    f"{busy} of {len(cells)} cells {'is' if busy == 1 else 'are'} INVALID because {why}: something else kept the "
                    "machine busy, or its clocks changed"
                ),
                (
                    "  let it rest and run the same with --new; --set protocol.gates.busy_cores=0.5 waits until it is idle, and "
                    f"--set measure.limits.{limit} allows more"
                ),
            ]
    return lines


def next_steps(*, tracked: bool) -> list[str]:
    """The commands that go on from here, as they can be typed; MLflow shows only what was logged to it."""
    shown = {typed(*command.split()): what for command, what in _STEPS if tracked or command != "ui"}
    width = max(map(len, shown))
    return ["next:", *(f"  {command:{width}}  {what}" for command, what in shown.items())]
