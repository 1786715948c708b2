"""Campaigns in MLflow: one parent run, one child run per cell. The only module that imports mlflow.

Everything is idempotent. Runs are found again by their tags, traces and spans have ids that follow from what they
stand for, metrics carry the times of the trials; so a sync that was killed anywhere is finished by the next one, and
one that is repeated changes nothing. The ledger (`tracking.json`) only spares what is known to be there.

Import this module late: mlflow takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeVar

from meltrepro.errors import RecordError, TrackingError
from meltrepro.measure.perfetto import SUFFIX, perfetto_trace
from meltrepro.measure.records import CampaignRecord, CellRecord, TrialRecord, read_campaign
from meltrepro.steps import Sink, Step, silent, step
from meltrepro.store.locks import exclusive
from meltrepro.track import connection, content, environment, notes, places, view
from meltrepro.track.artifacts import Artifacts
from meltrepro.track.connection import plainly
from meltrepro.track.content import CellStatus, MetricPoint, RunState
from meltrepro.track.ledger import Ledger, PlaceNote, RunNote, open_ledger
from meltrepro.track.places import Place
from meltrepro.track.spans import SpanRecord, TraceRecord, trace_of
from meltrepro.track.tokens import token_table

with environment.importing():
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag, TraceInfo, TraceLocation, TraceState
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities import Span as MlflowSpan
    from mlflow.exceptions import MlflowException
    from mlflow.tracing.client import TracingClient

_T = TypeVar("_T")

Detail = Literal["first", "all"]
"""Whether the first repetition of a cell is logged with trace and token series, or every one."""

_PERFETTO = "perfetto"
"""Folder of the artifacts that Perfetto opens; beside those that make up a record."""
_BATCH_METRICS = 1000
_BATCH_PARAMS = 100
_BATCH_SPANS = 500
_STATUS = {
    RunState.ok: "FINISHED",
    RunState.partial: "FINISHED",
    RunState.failed: "FAILED",
    RunState.invalid: "FAILED",
    RunState.unfinished: "RUNNING",
}


@dataclass(frozen=True)
class TrackedCampaign:
    """Where a campaign is in MLflow."""

    uri: str
    """As it may be shown."""
    experiment_id: str
    parent_run_id: str
    cell_run_ids: Mapping[str, str]
    """By cell id."""
    complete: bool
    """Whether nothing is left to log: the campaign is finished and all of it is there."""


def sync(
    campaign_folder: Path,
    where: Place | str,
    sink: Sink = silent,
    *,
    detail: Detail = "first",
    pages: Callable[[CampaignRecord], Mapping[str, bytes]] | None = None,
) -> TrackedCampaign:
    """Log whatever of a campaign is not in MLflow yet; the records are only read.

    `pages` makes its report, as files by artifact path, where that is missing. A bare URI is given no login. Raises `TrackingError` where
    MLflow cannot be reached or refuses, or nothing can be written beside it, and `RecordError` where the folder holds no
    campaign.
    """
    campaign = read_campaign(campaign_folder)
    place = where if isinstance(where, Place) else Place(places.absolute(where))

    def waiting(message: str) -> None:
        sink(Step("track", "note", campaign.id, detail={"lock": message}))

    with (
        step(sink, "track", campaign.id, uri=place.shown),
        plainly(place),
        exclusive(campaign_folder / "tracking.lock", f"tracking {campaign.id}", waiting),
    ):
        _prepare(place)
        ledger = open_ledger(campaign_folder)
        try:
            return _Sync(campaign, place, ledger, sink, detail, pages).run()
        finally:
            ledger.save()


def _prepare(place: Place) -> None:
    """Make a database that is not there yet, or see whether a server is, before anything waits for it in vain."""
    local = places.local_database(place.uri)
    if local is not None:
        environment.ensure_database(local)
    elif places.is_server(place.uri):
        connection.reach(place)
    elif not place.trusted:
        raise TrackingError(
            f"only the manifest names {place.shown}, and what is neither a server nor a SQLite file needs your own word",
            hint=f"name it yourself: MLFLOW_TRACKING_URI={place.shown}",
        )


class _Sync:
    def __init__(
        self,
        campaign: CampaignRecord,
        place: Place,
        ledger: Ledger,
        sink: Sink,
        detail: Detail,
        pages: Callable[[CampaignRecord], Mapping[str, bytes]] | None,
    ) -> None:
        self._campaign = campaign
        self._pages = pages
        self._names = notes.cell_names(campaign)
        self._where = place
        self._ledger = ledger
        self._sink = sink
        self._detail = detail
        self._client = MlflowClient(tracking_uri=place.uri)
        self._traces = TracingClient(tracking_uri=place.uri)
        self._artifacts = cache(lambda run_id: Artifacts(self._client, place, run_id))

    def run(self) -> TrackedCampaign:
        campaign = self._campaign
        experiment_id = self._experiment()
        self._view(experiment_id)
        statuses = {cell.id: content.status_of(campaign, cell) for cell in campaign.cells}
        readable = [cell for cell in campaign.cells if not statuses[cell.id].damaged]
        state = content.overall(campaign, list(statuses.values()))
        tags = content.campaign_tags(campaign, state)
        began_ms, ended_ms = content.period_ms(campaign, readable)
        place = self._place(experiment_id, tags, began_ms)
        for number, cell in enumerate(campaign.cells):
            done = Step("track", "progress", campaign.id, done=number, total=len(campaign.cells), unit="cells")
            self._sink(done)
            self._cell(place, cell, statuses[cell.id])
        note = place.campaign
        self._params(note, content.campaign_params(campaign))
        drawings = self._report(note, statuses)
        charts = view.link("", experiment_id).removeprefix("/")
        report = places.run_link("", experiment_id, note.run_id, "report/index.html").removeprefix("/")
        links = notes.Links(note.run_id, charts, report if drawings is not None else "", drawings or ())
        tags[notes.NOTE] = notes.campaign_note(campaign, statuses, links)
        self._tags(note, tags)
        self._points(note, content.campaign_points(campaign, readable))
        self._files(note, "files", content.campaign_files(campaign))
        self._status(note, state, ended_ms, notes.run_name(campaign.id, tags))
        place.complete = campaign.finished
        self._ledger.touch()
        return TrackedCampaign(
            uri=self._where.shown,
            experiment_id=experiment_id,
            parent_run_id=note.run_id,
            cell_run_ids={id: run.run_id for id, run in place.cells.items()},
            complete=place.complete,
        )

    # -- experiment and runs ------------------------------------------------------------------------------------

    def _experiment(self) -> str:
        name = self._campaign.document.tracking.experiment
        found = self._client.get_experiment_by_name(name)
        if found is None:
            self._new_experiment(name)
            found = self._client.get_experiment_by_name(name)
        if found is None:
            raise TrackingError(f"MLflow made the experiment {name!r} and does not find it")
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"the MLflow experiment {name!r} was deleted",
                hint=f"restore it with: mlflow experiments restore --experiment-id {found.experiment_id}",
            )
        return str(found.experiment_id)

    def _new_experiment(self, name: str) -> None:
        database = places.local_database(self._where.uri)
        location = database.location(name) if database else None
        try:
            # The kind spares the reader a question that the UI asks of experiments with traces.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            self._client.create_experiment(name, location, tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # somebody else was faster
                raise

    def _view(self, experiment_id: str) -> None:
        """What the experiment's page is to look like, where nobody has said so yet: what the reader changed stays."""
        there = self._client.get_experiment(experiment_id).tags
        wanted = {
            view.TAG: view.value(),
            notes.NOTE: notes.experiment_note(view.link("", experiment_id).removeprefix("/")),
        }
        for key, value in wanted.items():
            if key not in there:
                self._client.set_experiment_tag(experiment_id, key, value)

    def _place(self, experiment_id: str, tags: Mapping[str, str], start_ms: int) -> PlaceNote:
        known = self._ledger.place(self._where)
        if known is not None and known.experiment_id == experiment_id and self._exists(known.campaign.run_id):
            return known
        name = notes.run_name(self._campaign.id, tags)
        run = self._find(experiment_id, "campaign") or self._create(experiment_id, start_ms, tags, name)
        return self._ledger.begin(self._where, experiment_id, run.info.run_id)

    def _cell(self, place: PlaceNote, cell: CellRecord, how: CellStatus) -> None:
        campaign = self._campaign
        began_ms, ended_ms = content.period_ms(campaign, [] if how.damaged else [cell])
        tags = content.cell_tags(campaign, cell, how, self._target_kind(cell))
        tags["mlflow.parentRunId"] = place.campaign.run_id
        tags[notes.NOTE] = notes.cell_note(cell, how)
        name = notes.run_name(self._names[cell.id], tags)
        note = place.cells.get(cell.id)
        if note is None or not self._exists(note.run_id):
            run = self._find(place.experiment_id, "cell", cell.id)
            run = run or self._create(place.experiment_id, began_ms, tags, name)
            note = place.cells[cell.id] = RunNote(run_id=run.info.run_id)
        self._params(note, content.cell_params(cell) | ({} if how.damaged else content.ran_params(cell)))
        self._tags(note, tags)
        for trial_name, files in content.trial_files(cell):
            self._files(note, f"files/{trial_name}", files)
        if not how.damaged:
            self._unavailable(note, cell)
            self._points(note, [*content.summary_points(cell), *content.operator_points(cell)])
            talks = [trial for trial in cell.repetitions if trial.scoring is None]  # a scorer leaves no events
            for trial in talks if self._detail == "all" else talks[:1]:
                self._trial(place.experiment_id, note, cell, trial)
        self._status(note, how.state, ended_ms, name)

    def _find(self, experiment_id: str, kind: str, cell_id: str | None = None) -> MlflowRun | None:
        """The run that stands for the campaign or for one of its cells; the oldest, should there be several."""
        wanted = {"campaign": self._campaign.id, "kind": kind} | ({"cell": cell_id} if cell_id else {})
        query = " AND ".join(f"tags.`meltrepro.{key}` = '{value}'" for key, value in wanted.items())
        found = self._client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"])
        return found[0] if found else None

    def _create(self, experiment_id: str, start_ms: int, tags: Mapping[str, str], name: str) -> MlflowRun:
        """A new run; its tags come into being with it, so that it can be found again whatever happens next."""
        return self._client.create_run(experiment_id, start_time=start_ms, tags=dict(tags), run_name=name)

    def _exists(self, run_id: str) -> bool:
        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _target_kind(self, cell: CellRecord) -> str:
        target = self._campaign.manifest.targets.get(cell.entry.target)
        return target.kind if target else "unknown"

    # -- pieces of a run ----------------------------------------------------------------------------------------

    def _params(self, note: RunNote, params: Mapping[str, str]) -> None:
        with self._ledger.piece(note, "params", params) as missing:
            if missing:
                for batch in _batches([Param(*pair) for pair in params.items()], _BATCH_PARAMS):
                    self._client.log_batch(note.run_id, params=batch)

    def _tags(self, note: RunNote, tags: Mapping[str, str]) -> None:
        with self._ledger.piece(note, "tags", tags) as missing:
            if missing:
                self._forget_old(note, tags)
                for batch in _batches([RunTag(*pair) for pair in tags.items()], _BATCH_PARAMS):
                    self._client.log_batch(note.run_id, tags=batch)

    def _forget_old(self, note: RunNote, tags: Mapping[str, str]) -> None:
        """Remove what an earlier sync said and this one does not: a remark that no longer holds, a tag of an earlier version."""
        for key in self._client.get_run(note.run_id).data.tags:
            if key not in tags and key.startswith("meltrepro."):
                self._client.delete_tag(note.run_id, key)

    def _points(self, note: RunNote, points: Sequence[MetricPoint]) -> None:
        identity = [[point.key, point.value, point.wall_ms, point.step] for point in points]
        with self._ledger.piece(note, "metrics", identity) as missing:
            if missing:
                self._log_points(note, points)

    def _log_points(self, note: RunNote, points: Sequence[MetricPoint]) -> None:
        metrics = [Metric(point.key, point.value, point.wall_ms, point.step) for point in points]
        for batch in _batches(metrics, _BATCH_METRICS):
            self._client.log_batch(note.run_id, metrics=batch)

    def _files(self, note: RunNote, name: str, files: Sequence[content.RunFile]) -> None:
        identity = [[file.path.name, file.path.stat().st_size, file.path.stat().st_mtime_ns] for file in files]
        with self._ledger.piece(note, name, identity) as missing:
            if missing:
                for file in files:
                    self._artifacts(note.run_id).put(file.path, file.folder)

    def _texts(self, run_id: str, texts: Mapping[str, bytes]) -> None:
        """Log files by their artifact path."""
        with TemporaryDirectory() as scratch:
            for name, data in texts.items():
                path = Path(scratch) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                self._artifacts(run_id).put(path, name.rpartition("/")[0] or None)

    def _unavailable(self, note: RunNote, cell: CellRecord) -> None:
        """Which metrics have no value, and why."""
        with self._ledger.piece(note, "unavailable", dict(cell.unavailable)) as missing:
            if missing and cell.unavailable:
                text = json.dumps(dict(sorted(cell.unavailable.items())), indent=1, ensure_ascii=False)
                self._texts(note.run_id, {"unavailable.json": f"{text}\n".encode()})

    def _report(self, note: RunNote, statuses: Mapping[str, CellStatus]) -> Sequence[str] | None:
        """Log the report; returns the drawings among its files, `None` where there is no report."""
        if self._pages is None or any(how.damaged for how in statuses.values()):
            return None
        try:
            files = self._pages(self._campaign)
        except RecordError as error:  # the results themselves are logged all the same
            self._sink(Step("track", "note", self._campaign.id, detail={"report": error.message}))
            return None
        identity = {name: sha256(data).hexdigest() for name, data in files.items()}
        with self._ledger.piece(note, "report", identity) as missing:
            if missing:
                self._texts(note.run_id, files)
        return [name for name in files if name.endswith(".svg")]

    def _trial(self, experiment_id: str, note: RunNote, cell: CellRecord, trial: TrialRecord) -> None:
        identity = [trial.outcome.attempt, trial.outcome.started_wall_ns]
        with self._ledger.piece(note, f"series/{trial.name}", [*identity, content.SERIES_POINTS]) as missing:
            if missing:
                self._log_points(note, content.token_series(trial, trial.trace()))
        with self._ledger.piece(note, f"tokens/{trial.name}", identity) as missing:
            if missing:
                self._texts(note.run_id, {f"tokens/{trial.name}.parquet": token_table(trial.trace())})
        name = self._names[cell.id]
        with self._ledger.piece(note, f"trace/{trial.name}", [*identity, name]) as missing:
            if missing:
                self._trace(experiment_id, note, trace_of(self._campaign.id, cell.id, name, trial, trial.trace()), cell)
        with self._ledger.piece(note, f"perfetto/{trial.name}", identity) as missing, TemporaryDirectory() as folder:
            if missing:
                path = Path(folder) / f"{trial.name}{SUFFIX}"
                path.write_bytes(perfetto_trace(trial.trace(), trial.recordings(), f"{cell.id} {trial.name}"))
                self._artifacts(note.run_id).put(path, _PERFETTO)

    def _trace(self, experiment_id: str, note: RunNote, trace: TraceRecord, cell: CellRecord) -> None:
        root, trace_id = trace.spans[0], f"tr-{trace.id}"
        info = TraceInfo(
            trace_id=trace_id,
            trace_location=TraceLocation.from_experiment_id(experiment_id),
            request_time=root.begin_ns // 10**6,
            execution_duration=(root.end_ns - root.begin_ns) // 10**6,
            state=TraceState.OK,
            request_preview=trace.asked,
            response_preview=trace.answered,
            trace_metadata={"mlflow.sourceRun": note.run_id, "mlflow.trace_schema.version": "3"},
            tags={
                "mlflow.traceName": root.name,
                "meltrepro.campaign": self._campaign.id,
                "meltrepro.cell": cell.id,
                "meltrepro.virtual": str(cell.virtual).lower(),
                "meltrepro.synthetic": str(cell.synthetic).lower(),
            },
        )
        try:
            self._traces.start_trace(info)
            for batch in _batches([_mlflow_span(trace, span) for span in trace.spans], _BATCH_SPANS):
                self._traces.log_spans(experiment_id, batch)
        except NotImplementedError:
            # A file store, or a server of before 3.4. The events are among the artifacts.
            self._sink(Step("track", "note", cell.id, detail={"trace": "this MLflow server keeps no spans"}))

    def _status(self, note: RunNote, state: RunState, end_ms: int, name: str) -> None:
        with self._ledger.piece(note, "status", [state.value, end_ms, name]) as missing:
            if missing:
                self._client.update_run(note.run_id, name=name)
            if missing and state is RunState.unfinished:
                self._client.update_run(note.run_id, status=_STATUS[state])
            elif missing:
                self._client.set_terminated(note.run_id, status=_STATUS[state], end_time=end_ms)


def _mlflow_span(trace: TraceRecord, span: SpanRecord) -> MlflowSpan:
    attributes = {
        **span.attributes,
        "mlflow.traceRequestId": f"tr-{trace.id}",
        "mlflow.spanType": span.type,
        **({"mlflow.spanInputs": span.inputs} if span.inputs is not None else {}),
        **({"mlflow.spanOutputs": span.outputs} if span.outputs is not None else {}),
    }
    return MlflowSpan.from_dict(
        {
            "trace_id": f"tr-{trace.id}",
            "span_id": span.id,
            "parent_span_id": span.parent_id,
            "name": span.name,
            "start_time_unix_nano": span.begin_ns,
            "end_time_unix_nano": span.end_ns,
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {key: json.dumps(value, ensure_ascii=False) for key, value in attributes.items()},
        }
    )


def _batches(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
