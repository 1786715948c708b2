"""What is logged of a campaign, as plain values within MLflow's limits; nothing here knows MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from meltrepro import untrusted
from meltrepro.accuracy.scores import metric_name
from meltrepro.errors import RecordError
from meltrepro.measure.metric import token_gaps_ns
from meltrepro.measure.records import CampaignRecord, CellRecord, TrialRecord
from meltrepro.record import campaign as files
from meltrepro.record import trial as record
from meltrepro.record.trace import Trace, text_of
from meltrepro.words import counted

LONGEST_VALUE = 500
"""Characters of a param or tag; servers differ, all take this."""
SERIES_POINTS = 1000
"""Most points of one series, of which MLflow's pages draw 320; a longer one is thinned, and the table of tokens keeps them all."""
# MLflow sorts metrics by name and charts them by what stands before the slash: the medians come first and together.
_UNCERTAINTY, _VALUES = "uncertainty/", "values/"
_UNSAFE_KEY = re.compile(r"[^A-Za-z0-9_./ -]")
_TRIAL_FOLDER = re.compile(r"[wrp]\d{3,}(\.attempt\d+)?")
_TRIAL_FILES = (record.OUTCOME, *record.SEALED)


class RunState(StrEnum):
    """How a cell or campaign stands."""

    ok = "ok"
    partial = "partial"
    """Some repetitions failed."""
    failed = "failed"
    """No repetition ended well."""
    invalid = "invalid"
    """No figure of it may be believed."""
    unfinished = "unfinished"


@dataclass(frozen=True)
class MetricPoint:
    key: str
    value: float
    wall_ms: int
    """Unix time."""
    step: int


@dataclass(frozen=True)
class CellStatus:
    """State of a cell with its reason."""

    state: RunState
    reason: str | None = None
    damaged: bool = False
    """Whether its records cannot be read."""


@dataclass(frozen=True)
class RunFile:
    """An artifact: a file on this machine and the folder of the run's artifacts that it goes to."""

    path: Path
    folder: str | None


def status_of(campaign: CampaignRecord, cell: CellRecord) -> CellStatus:
    """How a cell stands; a record that cannot be read makes it fail with that reason."""
    try:
        good, bad = len(cell.repetitions), cell.failures
        _ = cell.summaries, cell.unavailable, cell.validity
        doubt = _doubt(cell)
    except RecordError as error:
        return CellStatus(RunState.failed, error.message, damaged=True)
    ended = good + len(bad)
    reason = (
        f"{len(bad)} of {counted(ended, 'repetition')} failed; {bad[0].name}: {bad[0].outcome.failure}" if bad else None
    )
    if not campaign.finished and (cell.expected is None or ended < cell.asked):
        return CellStatus(RunState.unfinished, reason)
    if good == 0:
        return CellStatus(RunState.failed, reason or "no repetition has ended")
    if doubt is not None:
        return CellStatus(RunState.invalid, doubt)
    return CellStatus(RunState.partial if bad else RunState.ok, reason)


def _doubt(cell: CellRecord) -> str | None:
    """Why no figure of a cell is to be believed; `None` where some are, or there are none. Raises `RecordError`."""
    if not cell.repetitions:
        return None
    findings = cell.agreement.findings if cell.believed else cell.exclusions
    return str(findings[0]) if findings else None


def overall(campaign: CampaignRecord, cells: Sequence[CellStatus]) -> RunState:
    """How a campaign stands, given its cells."""
    states = {cell.state for cell in cells}
    if not campaign.finished or RunState.unfinished in states:
        return RunState.unfinished
    if states <= {RunState.ok}:
        return RunState.ok
    return states.pop() if len(states) == 1 else RunState.partial


def campaign_params(campaign: CampaignRecord) -> dict[str, str]:
    document = campaign.document
    values = {
        "name": document.name,
        "engine": document.engine,
        "order": document.order.value,
        "seed": document.seed,
        "only": ",".join(document.only) or "everything",
        "meltrepro_version": document.meltrepro_version,
        "manifest_digest": document.manifest_digest,
    }
    return _flat(values)


def cell_params(cell: CellRecord) -> dict[str, str]:
    entry = cell.entry
    names = ("model", "quantization", "framework", "release", "commit", "target", "workload", "isa")
    return _flat({**{name: getattr(entry, name) for name in names}, **entry.params, **cell.limits_changed})


def ran_params(cell: CellRecord) -> dict[str, str]:
    """How the kernel treated the runner and what the engine made of the request; raises `RecordError`."""
    return _flat({name: text_of(value) for name, value in cell.ran_as.items()})


def campaign_tags(campaign: CampaignRecord, state: RunState) -> dict[str, str]:
    document = campaign.document
    tags = {
        **_common_tags(campaign, virtual=campaign.document.virtual, synthetic=campaign.document.synthetic),
        "meltrepro.kind": "campaign",
        "meltrepro.state": state.value,
        "meltrepro.manifest_digest": document.manifest_digest,
        # No params, which never change: devices that were not there may join later.
        "meltrepro.cells": str(len(document.cells)),
        "meltrepro.skipped": str(len(document.skipped)),
        "meltrepro.plan_digest": document.plan_digest,
    }
    return {key: _short(value) for key, value in tags.items()}


def cell_tags(campaign: CampaignRecord, cell: CellRecord, how: CellStatus, target_kind: str) -> dict[str, str]:
    """Tags of a cell's run."""
    entry = cell.entry
    tags = {
        **_common_tags(
            campaign,
            virtual=campaign.document.virtual if how.damaged else cell.virtual,
            synthetic=cell.synthetic,
        ),
        "meltrepro.kind": "cell",
        "meltrepro.cell": cell.id,
        "meltrepro.state": how.state.value,
        "meltrepro.model_digest": entry.model_digest,
        "meltrepro.bundle_digest": entry.bundle_digest,
        "meltrepro.runner_digest": entry.runner_digest,
        "meltrepro.source_digest": entry.source_digest,
        "meltrepro.commit": entry.commit,
        "meltrepro.isa": entry.isa,
        "meltrepro.target_kind": target_kind,
    }
    if "task" in entry.params:
        tags["meltrepro.task"] = str(entry.params["task"])
    if how.reason is not None:
        tags["meltrepro.reason"] = how.reason
    if not how.damaged:
        tags["meltrepro.validity"] = str(cell.validity)
        if cell.remarks:
            tags["meltrepro.remarks"] = "; ".join(cell.remarks)
        if cell.unavailable:
            tags["meltrepro.unavailable"] = str(len(cell.unavailable))
    return {key: _short(value) for key, value in tags.items()}


def summary_points(cell: CellRecord) -> list[MetricPoint]:
    """Of each metric: median, interval and count over the repetitions, then the value of each repetition.

    The median of a metric bears its plain name. Times are those of the trials, so that a summary of more trials is a
    later one. Raises `RecordError`.
    """
    trials = cell.believed
    if not trials:
        return []
    last_ms = max(_end_ms(trial) for trial in trials)
    points = _score_points(cell, last_ms)
    for name, summary in cell.summaries.items():
        points.append(MetricPoint(name, summary.median, last_ms, 0))
        spread = {"low": summary.low, "high": summary.high, "n": float(summary.n)}
        points += [MetricPoint(f"{_UNCERTAINTY}{name}.{what}", value, last_ms, 0) for what, value in spread.items()]
        bounds = [trial.metrics.bounds[name] for trial in trials if name in trial.metrics.bounds]
        if bounds:
            points.append(MetricPoint(f"{_UNCERTAINTY}{name}.bound", max(bounds), last_ms, 0))
        points += [
            MetricPoint(f"{_VALUES}{name}", trial.metrics.values[name], _start_ms(trial), trial.index)
            for trial in trials
            if name in trial.metrics.values
        ]
    return points + _spread_points(cell, last_ms)


def _score_points(cell: CellRecord, wall_ms: int) -> list[MetricPoint]:
    """Scores by their plain names, with what they rest on beside them, and what the model spends on a weight."""
    points = []
    for score in cell.scores:
        name = metric_name(score)
        beside = {"stderr": score.stderr, "n": float(score.n), "k": None if score.k is None else float(score.k)}
        points.append(MetricPoint(name, score.value, wall_ms, 0))
        if cell.asking is not None and score is cell.scores[0]:
            low, high = cell.asking.interval
            beside |= {"low": low, "high": high, "saved": float(cell.asking.saved)}
        points += [
            MetricPoint(f"{_UNCERTAINTY}{name}.{what}", value, wall_ms, 0)
            for what, value in beside.items()
            if value is not None
        ]
    if points and cell.bits_per_weight is not None:
        points.append(MetricPoint("bits_per_weight", cell.bits_per_weight, wall_ms, 0))
    return points


def operator_points(cell: CellRecord) -> list[MetricPoint]:
    """Of each operator of the profiled trial: its share of the decoder's time, and the mean time of a call in us.

    Raises `RecordError`.
    """
    wall_ms = max((_end_ms(trial) for trial in cell.trials), default=0)
    points = []
    for phase, found in cell.profiles.items():
        points.append(MetricPoint(f"operators.{phase}/coverage", found.coverage, wall_ms, 0))
        for share in found.shares:
            title = _UNSAFE_KEY.sub("_", share.title)
            points.append(MetricPoint(f"operators.{phase}.time_share/{title}", share.time_share, wall_ms, 0))
            points.append(MetricPoint(f"operators.{phase}.us_per_call/{title}", share.mean_us, wall_ms, 0))
    return points


def _spread_points(cell: CellRecord, wall_ms: int) -> list[MetricPoint]:
    """Spread of the time between tokens apart by origin, and of each watched metric its drift and autocorrelation."""
    values: dict[str, float | None] = {}
    spread = cell.token_spread
    if spread is not None:
        values |= {"inter_token_ms.within_cv": spread.within_cv, "inter_token_ms.between_cv": spread.between_cv}
    for found in cell.steadiness:
        values[f"{found.metric}.outliers"] = float(len(found.outliers))
        if found.drift is not None:
            values[f"{found.metric}.drift"] = found.drift.change
        if found.autocorrelation is not None:
            values[f"{found.metric}.autocorrelation"] = found.autocorrelation.coefficient
    return [
        MetricPoint(f"{_UNCERTAINTY}{name}", value, wall_ms, 0) for name, value in values.items() if value is not None
    ]


def campaign_points(campaign: CampaignRecord, cells: Sequence[CellRecord]) -> list[MetricPoint]:
    """Counts of the parent run, over the cells that can be read."""
    trials = [trial for cell in cells for trial in (*cell.repetitions, *cell.failures)]
    wall_ms = max(map(_end_ms, trials), default=campaign.document.started_wall_ns // 10**6)
    good = sum(trial.ok for trial in trials)
    counts = {"trials_ok": good, "trials_failed": len(trials) - good}
    return [MetricPoint(name, float(value), wall_ms, 0) for name, value in counts.items()]


def token_series(trial: TrialRecord, trace: Trace) -> list[MetricPoint]:
    """Time of every token after the one before it, within turns, in milliseconds; at its true time."""
    gaps = [
        (gap / 1e6, trace.wall_ns(t_ns) // 10**6)
        for turn in trace.turns
        for gap, t_ns in zip(token_gaps_ns(turn), turn.token_ns[1:], strict=True)
    ]
    kept = thin([value for value, _ in gaps], SERIES_POINTS)
    return [MetricPoint(f"inter_token_ms/{trial.name}", gaps[i][0], gaps[i][1], i) for i in kept]


def thin(values: Sequence[float], most: int) -> list[int]:
    """Indices of at most `most` values: all, or of each stretch of neighbours the smallest and the largest."""
    n = len(values)
    if n <= most:
        return list(range(n))
    stretches = max(most // 2, 1)
    kept: set[int] = set()
    for k in range(stretches):
        stretch = range(k * n // stretches, (k + 1) * n // stretches)
        kept |= {min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}
    return sorted(kept)


def campaign_files(campaign: CampaignRecord) -> list[RunFile]:
    names = (files.CAMPAIGN, files.MANIFEST, files.LOCK, files.PLAN, files.JOURNAL)
    found = [RunFile(campaign.folder / name, None) for name in names]
    builds = campaign.folder / files.BUILDS
    for folder in sorted(builds.iterdir()) if builds.is_dir() else ():
        if folder.is_dir() and not folder.is_symlink():
            found += [RunFile(path, f"{files.BUILDS}/{folder.name}") for path in sorted(folder.iterdir())]
    return [file for file in found if _plain(file.path)]


def trial_files(cell: CellRecord) -> Iterator[tuple[str, list[RunFile]]]:
    """Per trial folder that has an outcome, kept attempts included: its name and its artifacts."""
    folders = sorted(cell.folder.iterdir()) if cell.folder.is_dir() else ()
    for folder in folders:
        if _TRIAL_FOLDER.fullmatch(folder.name) and _plain(folder / record.OUTCOME):
            paths = [folder / name for name in _TRIAL_FILES]
            yield folder.name, [RunFile(path, f"trials/{folder.name}") for path in paths if _plain(path)]


def period_ms(campaign: CampaignRecord, cells: Sequence[CellRecord]) -> tuple[int, int]:
    """Unix times at which the first trial of some cells began and the last one ended; the campaign's start for none."""
    trials = [trial for cell in cells for trial in cell.trials]
    start = campaign.document.started_wall_ns // 10**6
    return min(map(_start_ms, trials), default=start), max(map(_end_ms, trials), default=start)


def _common_tags(campaign: CampaignRecord, *, virtual: bool, synthetic: bool) -> dict[str, str]:
    return {
        "mlflow.source.name": "meltrepro",
        "mlflow.source.type": "LOCAL",
        "meltrepro.campaign": campaign.id,
        "meltrepro.virtual": str(virtual).lower(),
        "meltrepro.synthetic": str(synthetic).lower(),
        "meltrepro.version": campaign.document.meltrepro_version,
    }


def _flat(values: Mapping[str, object]) -> dict[str, str]:
    """Params with names and values that MLflow takes; names that become equal are numbered."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        key = base = _UNSAFE_KEY.sub("_", name).strip("/. ")[:200] or "_"
        number = 2
        while key in flat:
            key, number = f"{base}_{number}", number + 1
        flat[key] = _short(str(value))
    return flat


def _short(text: str, most: int = LONGEST_VALUE) -> str:
    return text if len(text) <= most else f"{text[: most - 20]}... ({len(text)} chars)"


def _start_ms(trial: TrialRecord) -> int:
    return trial.outcome.started_wall_ns // 10**6


def _end_ms(trial: TrialRecord) -> int:
    return trial.outcome.started_wall_ns // 10**6 + round(trial.outcome.duration_s * 1000)


def _plain(path: Path) -> bool:
    """Whether a path is a file of its own: a link could lead anywhere. Raises `RecordError` where it cannot be read."""
    if untrusted.odd(path) is not None:
        return False
    try:
        untrusted.require(path)
    except FileNotFoundError:
        return False
    return True
