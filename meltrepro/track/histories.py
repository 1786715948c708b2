"""Histories in MLflow: a run for each course of cells, whose metrics have a step for each place of the axis.

So MLflow's own charts of a metric show the trend. mlflow, which takes seconds, is imported when there is something to log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from meltrepro.plan.identity import digest_of
from meltrepro.track import environment
from meltrepro.track.content import LONGEST_VALUE, MetricPoint
from meltrepro.track.ledger import open_ledger
from meltrepro.track.notes import NOTE
from meltrepro.track.places import Place

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 1000
_IDENTITY, _WHOLE = "meltrepro.history", "meltrepro.state"


@dataclass(frozen=True)
class TrendRun:
    """What one run says."""

    name: str
    params: Mapping[str, str]
    points: Sequence[MetricPoint]
    note: str
    """Its description."""


def log_trends(folders: Sequence[Path], runs: Sequence[TrendRun], files: Mapping[str, bytes], place: Place) -> int:
    """Log runs, each with the files by artifact path, to the experiment of the last of these campaigns that is at a place.

    Returns how many runs are there now: none where no campaign is. What is there already is not logged again. Raises
    `TrackingError`.
    """
    notes = [note for folder in folders if (note := open_ledger(folder).place(place)) is not None]
    if not notes:
        return 0
    with environment.importing():
        from mlflow import MlflowClient

    from meltrepro.track.connection import plainly

    with plainly(place):
        client = MlflowClient(tracking_uri=place.uri)
        for run in runs:
            _log(client, place, notes[-1].experiment_id, run, files)
    return len(runs)


def _log(client: MlflowClient, place: Place, experiment_id: str, run: TrendRun, files: Mapping[str, bytes]) -> None:
    """One run; one that was begun and not ended is gone on with, for MLflow keeps equal points once."""
    from mlflow.entities import Metric, Param

    from meltrepro.track.artifacts import Artifacts

    points = [[point.key, point.value, point.wall_ms, point.step] for point in run.points]
    identity = digest_of(
        [run.name, dict(run.params), points, {name: digest_of(data.hex()) for name, data in files.items()}]
    )
    found = client.search_runs([experiment_id], f"tags.`{_IDENTITY}` = '{identity}'", max_results=1)
    if found and found[0].data.tags.get(_WHOLE) == "ok":
        return
    began_ms = min((point.wall_ms for point in run.points), default=0)
    tags = {_IDENTITY: identity, "meltrepro.kind": "history", NOTE: run.note}
    made = found[0] if found else client.create_run(experiment_id, began_ms, tags, run.name)
    run_id = made.info.run_id
    client.log_batch(run_id, params=[Param(key, value[:LONGEST_VALUE]) for key, value in run.params.items()])
    metrics = [Metric(point.key, point.value, point.wall_ms, point.step) for point in run.points]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
    with TemporaryDirectory() as scratch:
        artifacts = Artifacts(client, place, run_id)
        for name, data in files.items():
            path = Path(scratch) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            artifacts.put(path, name.rpartition("/")[0] or None)
    client.set_tag(run_id, _WHOLE, "ok")
    client.set_terminated(run_id, end_time=max((point.wall_ms for point in run.points), default=began_ms))
