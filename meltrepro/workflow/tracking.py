"""Logging campaigns to MLflow: one that has just ended, and those that are not there yet."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from meltrepro import interrupts
from meltrepro import settings as settings_module
from meltrepro.errors import Interrupted, MeltreproError, RecordError, TrackingError
from meltrepro.record.reader import campaign_folders, find_campaign, read_folder
from meltrepro.settings import Settings
from meltrepro.steps import Sink, silent
from meltrepro.track import places, view
from meltrepro.track.ledger import open_ledger
from meltrepro.track.places import Place

if TYPE_CHECKING:
    from meltrepro.measure.records import CampaignRecord
    from meltrepro.record.reader import CampaignFolder
    from meltrepro.track.mlflow_tracker import TrackedCampaign
    from meltrepro.track.server import MlflowServer


_WHENEVER = "log it when that is mended, with: meltrepro sync"
_MOST_NAMED = 8
"""Campaigns in one message."""


@dataclass(frozen=True)
class Logged:
    """Where a campaign was logged to, or why it was not."""

    place: Place | None = None
    """Where MLflow is, as far as that is known."""
    problem: TrackingError | None = None
    """Why the campaign is not there; its records are complete, and `meltrepro sync` logs them later."""

    @property
    def there(self) -> Place | None:
        """The place, if the campaign is there."""
        return None if self.problem else self.place

    @property
    def without_login(self) -> Place | None:
        """A server that only the manifest names, so that the user's login is not sent to it."""
        place = self.place
        return place if place is not None and places.is_server(place.uri) and not place.trusted else None


def log_campaign(folder: Path, uri: str | None, settings: Settings, sink: Sink) -> Logged:
    """Log a campaign, `uri` being what its manifest names. A server that does not answer is a debt and no failure."""
    from meltrepro.track.mlflow_tracker import sync

    try:
        place = places.choose(os.environ, uri, settings.tracking_uri)
    except TrackingError as error:
        return Logged(problem=error)
    later = (
        "meltrepro sync"
        if places.is_own(place, settings.tracking_uri)
        else f"MLFLOW_TRACKING_URI={shlex.quote(place.shown)} meltrepro sync {folder.name}"
    )
    try:
        with interrupts.raising():
            sync(folder, place, sink, pages=pages)
    except TrackingError as error:
        mend = (error.hint or _WHENEVER).replace("meltrepro sync", later)
        return Logged(place, TrackingError(error.message, hint=mend if later in mend else f"{mend}; then: {later}"))
    except Interrupted as error:
        raise Interrupted(
            "stopped while logging to MLflow; the records are complete", hint=f"log the rest with: {later}"
        ) from error
    return Logged(place)


def pages(campaign: CampaignRecord) -> dict[str, bytes]:
    """The report of a campaign alone, with each of its figures, by artifact path; raises `RecordError`."""
    from meltrepro.report.content import assemble, sections
    from meltrepro.report.figures.alone import alone
    from meltrepro.report.files import report_files

    content = assemble([campaign])
    files = {f"report/{name}": data for name, data in report_files(content).items()}
    for figure in (figure for section in sections(content) for figure in section.figures):
        if (drawing := alone(figure)) is not None:
            files[f"report/figures/{figure.name}.svg"] = drawing
    return files


@dataclass(frozen=True)
class Synced:
    """What logging campaigns came to."""

    campaigns: int
    """How many were looked at."""
    logged: Sequence[TrackedCampaign]
    owed: Sequence[TrackingError]
    """What is not logged because only the record names the place, and how to have it logged there."""
    unwanted: Sequence[str]
    """Ids of those that are not logged because their user did not want it."""


def sync(
    campaigns: Sequence[Path | str] = (),
    *,
    everything: bool = False,
    detail: Literal["first", "all"] = "first",
    logged: Callable[[Path, TrackedCampaign], None] = lambda _, __: None,
    unwanted: Callable[[Sequence[str]], None] = lambda _: None,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Synced:
    """Log campaigns to MLflow that are not there yet; of all that there are, where none is named. Nothing is logged twice.

    `everything` checks those too that are logged already; `detail` says of which repetitions traces and token times go
    along. `logged` is called for each campaign, and `unwanted` once with those that were run without tracking, which only their
    name brings into MLflow. One that fails does not keep the others back: `TrackingError` or `RecordError` names all in the end.
    Raises `UsageError` and `Interrupted` too.
    """
    settings = settings or settings_module.load()
    named = [find_campaign(settings.records, str(wanted)) for wanted in campaigns]
    folders = named or campaign_folders(settings.records)
    problems: list[MeltreproError] = []
    waiting: dict[Place, list[str]] = {}
    foreign: dict[Place, list[str]] = {}
    kept, done = [], []
    with interrupts.raising():
        for folder in folders:
            place: Place | None = None
            try:
                debt = _debt(folder, settings.tracking_uri, named=bool(named), again=everything or detail == "all")
                place = debt.place
                if not debt.wanted:
                    kept.append(folder.name)
                elif not debt.owed:
                    continue
                elif not places.is_own(place, settings.tracking_uri):
                    foreign.setdefault(place, []).append(folder.name)
                elif place in waiting:  # one server is waited for once
                    waiting[place].append(folder.name)
                else:
                    from meltrepro.track import mlflow_tracker  # which takes seconds, and may not be needed

                    done.append(mlflow_tracker.sync(folder, place, sink, detail=detail, pages=pages))
                    logged(folder, done[-1])
            except (RecordError, TrackingError) as error:
                problems.append(error)
                if isinstance(error, TrackingError) and place is not None:
                    waiting.setdefault(place, []).append(folder.name)
    if kept:
        unwanted(kept)
    owed = [places.foreign(place, names) for place, names in foreign.items()]
    problems += owed if named else []
    if problems:
        raise _joined(problems, [name for names in waiting.values() for name in names])
    return Synced(len(folders), done, owed, kept)


@dataclass(frozen=True)
class _Debt:
    """Where a campaign belongs and whether it is still to be logged there."""

    place: Place
    owed: bool
    wanted: bool = True
    """Whether its user wanted it to be logged: when it was run, or by its name later."""


def _debt(folder: Path, default_uri: str, *, named: bool, again: bool) -> _Debt:
    """What is owed of a campaign; raises `RecordError` and `TrackingError`."""
    tracking = read_folder(folder).document.tracking
    place = places.choose(os.environ, tracking.uri, default_uri)
    note = open_ledger(folder).place(place)
    if not (tracking.enabled or named or note is not None):
        return _Debt(place, owed=False, wanted=False)
    return _Debt(place, owed=named or again or note is None or not note.complete)


def _joined(problems: Sequence[MeltreproError], waiting: Sequence[str]) -> MeltreproError:
    """The first problem, with the others and the campaigns that still wait named in its message."""
    first = problems[0]
    lines = [problem.message for problem in problems]
    if waiting:
        more = f" and {len(waiting) - _MOST_NAMED} more" if len(waiting) > _MOST_NAMED else ""
        lines.append(f"still to be logged: {', '.join(waiting[:_MOST_NAMED])}{more}")
    return type(first)("\n".join(lines), hint=first.hint)


# -- MLflow in a browser ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Browsable:
    """Where MLflow can be seen in a browser, and what is there of a campaign."""

    url: str
    place: Place
    campaign: CampaignFolder | None
    """`None` where there is no campaign at all yet."""
    experiment_id: str | None
    """`None` where the campaign is not logged."""
    run: str | None
    """Id of its run."""
    runs: Sequence[str]
    """Ids of the runs of its cells."""
    server: MlflowServer | None
    """What was started; `None` where MLflow is a server that runs anyway."""

    def link(self, most: int) -> str | None:
        """The page that puts the first cells side by side, or that of the only one."""
        if self.experiment_id is None or not self.runs:
            return None
        if len(self.runs) == 1:
            return places.run_link(self.url, self.experiment_id, self.runs[0])
        return places.compare_link(self.url, self.experiment_id, list(self.runs[:most]))

    @property
    def results(self) -> str | None:
        """The experiment's page with the columns and charts that were chosen for it."""
        return view.link(self.url, self.experiment_id) if self.experiment_id is not None else None

    @property
    def described(self) -> str | None:
        """The page of the campaign's run, whose description has the results."""
        if self.experiment_id is None or self.run is None:
            return None
        return places.run_link(self.url, self.experiment_id, self.run)


@contextmanager
def browse(
    campaign: Path | str = "last",
    *,
    port: int = 0,
    starts: Callable[[Place], None] = lambda _: None,
    settings: Settings | None = None,
) -> Iterator[Browsable]:
    """Start MLflow's pages on this machine, at any free port for 0, for as long as the block runs.

    Where the campaign is logged to a server, nothing is started. `starts` is called before that takes its time. Raises
    `UsageError`, `RecordError`, and `TrackingError`, also where only the campaign's record names the place.
    """
    from meltrepro.track.server import serve

    settings = settings or settings_module.load()
    none = str(campaign) == "last" and not campaign_folders(settings.records)
    record = None if none else read_folder(find_campaign(settings.records, str(campaign)))
    place = places.choose(os.environ, record.document.tracking.uri if record else None, settings.tracking_uri)
    note = open_ledger(record.folder).place(place) if record else None
    cells = [cell.id for cell in record.document.cells] if record else []
    runs = [note.cells[cell].run_id for cell in cells if cell in note.cells] if note else []
    experiment, run = (note.experiment_id, note.campaign.run_id) if note else (None, None)
    if places.is_server(place.uri):
        yield Browsable(place.shown, place, record, experiment, run, runs, None)
        return
    if record is not None and not places.is_own(place, settings.tracking_uri):
        raise places.foreign(place, [record.document.id])
    starts(place)
    with serve(place.uri, settings.run, port=port) as server:
        yield Browsable(server.url, place, record, experiment, run, runs, server)
