"""What a reader of MLflow's pages reads first: names of runs, and descriptions in Markdown; nothing here knows MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from meltrepro.accuracy.scores import metric_name
from meltrepro.measure.records import CampaignRecord, CellRecord
from meltrepro.stats.summary import INTERVAL, Summary
from meltrepro.track.content import CellStatus, RunState

NOTE = "mlflow.note.content"
LONGEST_NOTE = 5000
"""Characters of a description; older servers take no more."""
_FIGURES = (
    ("generation_tps", "writing, tokens/s", 1.0),
    ("prefill_tps", "reading, tokens/s", 1.0),
    ("ttft_ms", "first token, ms", 1.0),
    ("peak_memory_bytes", "peak memory, GB", 1e-9),
    ("energy_per_token_j", "energy, J/token", 1.0),
)
_MOST_SCORES = 3
_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+!|~])")


@dataclass(frozen=True)
class Links:
    """Where the note's links lead to; all below the server that shows it."""

    run: str
    """Id of the run that it describes."""
    charts: str
    """Address of the experiment's page with the charts that were chosen."""
    report: str = ""
    """Address of the report among the run's artifacts."""
    figures: Sequence[str] = ()
    """Artifact paths of drawings that stand in the note."""


def cell_names(campaign: CampaignRecord) -> Mapping[str, str]:
    """By cell id the name of its run: `q4_0 · ENGINE 2026-10-01 · host`, with model and workload where there are several."""
    entries = [cell.entry for cell in campaign.cells]
    models, workloads = ({getattr(entry, what) for entry in entries} for what in ("model", "workload"))
    names = {}
    for entry in entries:
        parts = [entry.quantization, f"{entry.framework} {entry.release}", entry.target]
        parts = [entry.model] * (len(models) > 1) + parts + [entry.workload] * (len(workloads) > 1)
        names[entry.id] = " · ".join(parts)
    return names


def run_name(name: str, tags: Mapping[str, str]) -> str:
    """The name with what must not be overlooked: that its figures are not to be believed, and what is not real."""
    doubt = "INVALID · " if tags["meltrepro.state"] == RunState.invalid else ""  # lists and legends cut the end off
    marks = [mark for mark in ("virtual", "synthetic") if tags[f"meltrepro.{mark}"] == "true"]
    return f"{doubt}{name} ({', '.join(marks)})" if marks else f"{doubt}{name}"


def experiment_note(charts: str) -> str:
    """The description of an experiment, given the address of its page with the charts that were chosen."""
    return (
        f"[Charts and columns chosen for these runs]({charts}); the same view is among the saved ones of this page.\n\n"
        "A run with runs below it is a campaign, and its description has the results; each run below it is a cell."
        " A metric's plain name is the median over repetitions; `uncertainty/` has its interval, `values/` each repetition.\n"
    )


def campaign_note(campaign: CampaignRecord, statuses: Mapping[str, CellStatus], links: Links) -> str:
    """The description of a campaign's run: what is wrong, where to look on, the results, how to repeat them.

    Raises `RecordError`.
    """
    document = campaign.document
    # MLflow shows the first 100 px until it is asked for more.
    doubts = [f"**{doubt}**" for doubt in _doubts(campaign, statuses)]
    head = [" · ".join([*doubts, _where(links)]), ""]
    legend = f"Medians over repetitions, with the {INTERVAL} and the number of repetitions."
    skipped = [f"- skipped {_text(skip.id)}: {_text(skip.reason)}" for skip in document.skipped]
    drawings = [
        f"![{name.rpartition('/')[2].removesuffix('.svg')}](get-artifact?path={name}&run_uuid={links.run})"
        for name in links.figures
    ]
    own = [document.description] if document.description else []
    repeat = ["```console", f"meltrepro replay {document.id}", "```"]
    parts = ([legend], repeat, skipped, own, drawings)
    return _fitting(head, _table(campaign, statuses), [line for part in parts if part for line in ("", *part)])


def cell_note(cell: CellRecord, how: CellStatus) -> str:
    """The description of a cell's run: why it is not to be believed, its results, what is odd; raises `RecordError`."""
    head = [f"**{how.state.upper()}**: {_text(how.reason)}", ""] if how.reason else []
    if how.damaged:
        return _fitting(head, [], [])
    found = [(title, cell.summaries[name], scale) for name, title, scale in _FIGURES if name in cell.summaries]
    lines = [f"| {title} | {_figure(summary, scale)} |" for title, summary, scale in found]
    lines += [f"| {_text(metric_name(score))} | {score.value:.4g} |" for score in cell.scores]
    table = ["| | median (interval, repetitions) |", "| --- | ---: |", *lines, ""] if lines else []
    return _fitting(head, table, [f"- {_text(remark)}" for remark in cell.remarks] or [f"`{cell.id}`"])


def _doubts(campaign: CampaignRecord, statuses: Mapping[str, CellStatus]) -> Iterator[str]:
    total = len(statuses)
    for state in (RunState.invalid, RunState.failed, RunState.unfinished):
        count = sum(how.state is state for how in statuses.values())
        if count:
            yield f"{state.upper()}: {count} of {total} cells"


def _where(links: Links) -> str:
    found = [("Report with figures", links.report)] if links.report else []
    return " · ".join(f"[{title}]({address})" for title, address in [*found, ("Charts of all campaigns", links.charts)])


def _table(campaign: CampaignRecord, statuses: Mapping[str, CellStatus]) -> list[str]:
    names = cell_names(campaign)
    sound = [cell for cell in campaign.cells if not statuses[cell.id].damaged]
    figures = [each for each in _FIGURES if any(each[0] in cell.summaries for cell in sound)]
    scores = list(dict.fromkeys(metric_name(score) for cell in sound for score in cell.scores))[:_MOST_SCORES]
    heads = ["cell", "state", *(title for _, title, _ in figures), *map(_text, scores)]
    lines = [f"| {' | '.join(heads)} |", f"| --- | --- |{' ---: |' * (len(heads) - 2)}"]
    for cell in campaign.cells:
        how = statuses[cell.id]
        shown = "**INVALID**" if how.state is RunState.invalid else how.state.value
        values = [] if how.damaged else list(_values(cell, figures, scores))
        values += ["–"] * (len(heads) - 2 - len(values))
        lines.append(f"| {' | '.join((_text(names[cell.id]), shown, *values))} |")
    return lines


def _values(cell: CellRecord, figures: Sequence[tuple[str, str, float]], scores: Sequence[str]) -> Iterator[str]:
    for metric, _, scale in figures:
        found = cell.summaries.get(metric)
        if found is None:
            yield "–"
        else:
            yield _figure(found, scale)
    by_name = {metric_name(score): score.value for score in cell.scores}
    yield from (f"{by_name[name]:.4g}" if name in by_name else "–" for name in scores)


def _figure(summary: Summary, scale: float = 1.0) -> str:
    """A median with its interval and the number of values."""
    median, low, high = (f"{value * scale:.4g}" for value in (summary.median, summary.low, summary.high))
    return f"{median} ({low} to {high}, n = {summary.n})"


def _fitting(head: Sequence[str], lines: Sequence[str], foot: Sequence[str]) -> str:
    """The note with as many of the lines as there is room for."""
    room = LONGEST_NOTE - 60 - sum(len(line) + 1 for line in (*head, *foot))
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            kept += ["", f"... and {len(lines) - len(kept)} more: see the runs"]
            break
        kept.append(line)
    text = "\n".join((*head, *kept, *foot)).strip()
    return text if len(text) <= LONGEST_NOTE else f"{text[: LONGEST_NOTE - 4]} ..."


def _text(text: str) -> str:
    """A text that anybody may have written, in which Markdown finds nothing to do."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
