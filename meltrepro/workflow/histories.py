"""How metrics move over releases or over time, by the records of campaigns alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from meltrepro import settings as settings_module
from meltrepro.errors import RecordError, TrackingError, UsageError
from meltrepro.history.trends import By, History, belonging, build_history, require_metrics
from meltrepro.measure.records import read_campaign
from meltrepro.plan.names import Selection
from meltrepro.record.campaign import CampaignDocument
from meltrepro.record.reader import campaign_folders, find_campaign, read_folder
from meltrepro.record.study import campaigns_meant
from meltrepro.settings import Settings

if TYPE_CHECKING:
    from meltrepro.history.trends import Course
    from meltrepro.track.histories import TrendRun


@dataclass(frozen=True)
class Traced:
    """A history, and what became of logging it."""

    history: History
    folders: Sequence[Path]
    """Of its campaigns, oldest first."""
    unreadable: Sequence[str] = ()
    """Campaigns that were passed over because their records are damaged, and how."""
    runs: int | None = None
    """How many MLflow runs show it; `None` where it was not to be logged."""
    problem: TrackingError | None = None
    """Why it could not be logged."""


def history(
    campaigns: Sequence[Path | str] = (),
    *,
    by: By = "release",
    metrics: Sequence[str] = (),
    only: Sequence[str] = (),
    with_invalid: bool = False,
    track: bool = True,
    settings: Settings | None = None,
) -> Traced:
    """The trends of metrics over the releases of a framework, or over time, with the changes of their levels.

    `campaigns` are studies, folders, ids or parts of ids; where none is named, the newest and all that have a cell in common with it
    but for release or day. Raises `UsageError`, `RecordError`, `NothingToCompare` where no cell was measured at two releases or times.
    """
    settings = settings or settings_module.load()
    require_metrics(metrics)
    unreadable: list[str] = []
    if campaigns:
        named = campaigns_meant(settings.studies, list(map(str, campaigns)))
        folders = list(dict.fromkeys(find_campaign(settings.records, name) for name in named))
    else:
        folders = _belonging(settings, by, unreadable)
    selection = Selection(only)
    records = [read_campaign(folder, with_invalid=with_invalid) for folder in folders]
    documents = [record.document for record in records]
    cells = [cell.id for one in documents for cell in one.cells] + [
        skip.id for one in documents for skip in one.skipped
    ]
    wanted = set(filter(selection.wants, cells))
    selection.refuse_idle(cells)
    found = build_history(records, by, metrics, wanted.__contains__)
    by_id = {record.id: record.folder for record in records}
    traced = Traced(found, [by_id[id] for id in found.campaigns], unreadable)
    if not track:
        return traced
    try:
        return replace(traced, runs=_log(traced, settings))
    except TrackingError as error:
        return replace(traced, problem=error)


def _belonging(settings: Settings, by: By, unreadable: list[str]) -> list[Path]:
    """Every campaign of this machine that goes with the newest one; raises `UsageError` where there is none."""
    documents: dict[str, CampaignDocument] = {}
    folders: dict[str, Path] = {}
    for folder in campaign_folders(settings.records):
        try:
            documents[folder.name], folders[folder.name] = read_folder(folder).document, folder
        except RecordError as error:
            unreadable.append(error.message)
    if not documents:
        raise UsageError(f"there is no campaign in {settings.records}", hint="run one first: meltrepro run SPEC")
    newest = find_campaign(settings.records, "last").name
    return [folders[id] for id in belonging(documents, newest if newest in documents else list(documents)[-1], by)]


def _log(traced: Traced, settings: Settings) -> int:
    """Log it where its campaigns are; raises `TrackingError`."""
    from meltrepro.history.page import history_files
    from meltrepro.track.histories import log_trends
    from meltrepro.track.places import choose

    found = traced.history
    files = {f"history/{name}": data for name, data in history_files(found).items()}
    place = choose(os.environ, None, settings.tracking_uri)
    return log_trends(traced.folders, [_run(found, course) for course in found.courses], files, place)


def _run(found: History, course: Course) -> TrendRun:
    """A course as a run: a step for each place, in the order of the axis."""
    from meltrepro.history.text import in_words
    from meltrepro.track.content import MetricPoint
    from meltrepro.track.histories import TrendRun

    def points() -> Iterator[MetricPoint]:
        for trend in course.trends:
            for each in trend.reached:
                at = each.began_ms, each.place
                yield MetricPoint(trend.metric, each.summary.median, *at)
                yield MetricPoint(f"uncertainty/{trend.metric}.low", each.summary.low, *at)
                yield MetricPoint(f"uncertainty/{trend.metric}.high", each.summary.high, *at)

    places = ", ".join(f"{place} {name}" for place, name in enumerate(found.axis))
    changes = [f"- `{trend.metric}` {in_words(change)}" for trend in course.trends for change in trend.changes]
    note = "\n".join([f"Steps by {found.by}: {places}", "", *(changes or ["No change was found."])])
    params = {
        "by": found.by,
        "places": places,
        "campaigns": ", ".join(found.campaigns),
        "session_cv": str(found.session_cv),
    }
    return TrendRun(f"history: {course.name}", params, list(points()), note[:5000])
