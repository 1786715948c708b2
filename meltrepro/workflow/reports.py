"""Reports of campaigns, and the claims of studies, made and decided from records alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from meltrepro import settings as settings_module
from meltrepro.atomic import write_bytes
from meltrepro.errors import RecordError, TrackingError, UsageError
from meltrepro.measure.records import read_campaign
from meltrepro.record.reader import campaign_folders, find_campaign
from meltrepro.record.study import campaigns_meant, find_study
from meltrepro.registry import STUDIES
from meltrepro.replay.locate import locate
from meltrepro.report.content import assemble
from meltrepro.report.files import PAGE, campaigns_of, compare_report, holds_report, report_files, write_report
from meltrepro.report.index import Entry, index_page
from meltrepro.report.read import read_results
from meltrepro.report.results import Results
from meltrepro.settings import Settings
from meltrepro.steps import Sink, silent
from meltrepro.studies.base import Decided, Study, studies_of
from meltrepro.track import logged
from meltrepro.track.places import Place, choose


@dataclass(frozen=True)
class Reported:
    """A report on disk."""

    page: Path
    files: Mapping[str, bytes]
    """By path below its folder."""
    campaigns: Sequence[Path]
    """Folders of the campaigns that it is of."""
    compared: bool = False
    """Whether it was there before, and holds the same bytes as one that is made today."""
    runs: int | None = None
    """How many MLflow runs took it; `None` where it was not to be logged."""
    problem: TrackingError | None = None
    """Why it could not be logged."""


def report(
    campaigns: Sequence[Path | str] = (),
    folder: Path | str = "report",
    *,
    from_records: bool = False,
    track: bool = True,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Reported:
    """Write one HTML page with its tables as CSV and LaTeX, and log it to the campaigns' MLflow runs.

    `campaigns` are studies, ids, folders, bundles or MLflow run ids; the newest one if none is named. With `from_records`
    record folders alone count, and where `folder` holds a report it is compared with one of today: `ReportDiffers` says
    which files differ. Raises `UsageError`, `RecordError`, `BundleError`, `StoreError`; `TrackingError` only for a run that
    is to be brought back.
    """
    settings, folder = settings or settings_module.load(), Path(folder)
    compared = from_records and holds_report(folder)
    named = list(map(str, campaigns)) or (campaigns_of(folder) if compared else ["last"])
    meant = campaigns_meant(settings.studies, named)
    if from_records:
        folders = [find_campaign(settings.records, name) for name in meant]
    else:
        folders = [locate(name, settings, sink).campaign for name in meant]
    folders = list(dict.fromkeys(folders))
    study = find_study(settings.studies, named[0]) if len(named) == 1 else None
    files = report_files(assemble([read_campaign(each) for each in folders], study))
    if compared:
        compare_report(folder, files)
        return Reported(folder / PAGE, files, folders, compared=True)
    write_report(folder, files)
    written = Reported(folder / PAGE, files, folders)
    if not (track and folders) or from_records:
        return written
    texts = {f"report/{name}": data.decode() for name, data in files.items()}
    try:
        return replace(written, runs=logged.attach(folders, texts, choose(os.environ, None, settings.tracking_uri)))
    except TrackingError as error:
        return replace(written, problem=error)


def report_all(folder: Path | str = "reports", *, settings: Settings | None = None) -> Reported:
    """Write the report of every campaign on this machine, each in a folder of its id, and one page that leads to them.

    A campaign whose records are damaged stands in the index with what is wrong. Raises `StoreError` where nothing can be written.
    """
    settings, folder = settings or settings_module.load(), Path(folder)
    entries: list[Entry] = []
    folders = campaign_folders(settings.records)
    files: dict[str, bytes] = {}
    for each in folders:
        try:
            content = assemble([read_campaign(each)])
            made = report_files(content)
        except RecordError as error:
            # The page may be shown anywhere, and folders of this machine say nothing there.
            entries.append(Entry(each.name, None, error.message.replace(f"{settings.records}/", "")))
            continue
        write_report(folder / each.name, made)
        files |= {f"{each.name}/{name}": data for name, data in made.items()}
        entries.append(Entry(each.name, content))
    files[PAGE] = index_page(entries).encode()
    write_bytes(folder / PAGE, files[PAGE])
    return Reported(folder / PAGE, files, [each for each, entry in zip(folders, entries, strict=True) if entry.content])


def findings(
    campaigns: Sequence[str] = ("last",),
    *,
    study: str | None = None,
    virtual_only: bool = False,
    with_invalid: bool = False,
    settings: Settings | None = None,
) -> Decided:
    """The claims of the study that campaigns belong to, by the records of its campaigns; or of `study`, by all of them.

    Raises `UsageError` where they belong to none or to several, `RecordError`.
    """
    settings = settings or settings_module.load()
    folders = dict.fromkeys(
        find_campaign(settings.records, name) for name in campaigns_meant(settings.studies, campaigns)
    )
    results = read_results([read_campaign(folder, with_invalid=with_invalid) for folder in folders])
    meant, own = _study(study, results)
    return meant.decide(own, virtual_only=virtual_only)


def conclusions(folders: Sequence[Path]) -> Mapping[str, Decided]:
    """By name of each study that campaigns belong to, what they say of its claims; raises `RecordError`."""
    results = read_results([read_campaign(folder) for folder in folders])
    return {study.name: study.decide(own) for study, own in studies_of(results)}


def log_findings(folders: Sequence[Path], decided: Decided, place: Place) -> None:
    """Log what campaigns say of a study's claims to their MLflow runs at a place; raises `TrackingError`."""
    logged.attach(folders, {"findings.json": decided.json}, place)


def _study(name: str | None, results: Results) -> tuple[Study, Results]:
    known = ", ".join(STUDIES.kinds())
    if name is not None:
        if not STUDIES.has(name):
            raise UsageError(f"--study: there is no study {name!r}", hint=f"there are: {known}")
        return STUDIES.get(name), results
    found = list(studies_of(results))
    if not found:
        names = ", ".join(results.names) or "no campaign"
        raise UsageError(
            f"{names}: belongs to no study, so that there are no claims to decide",
            hint=f"a manifest names its study (`study: NAME`); to decide the claims of one all the same: --study, which knows {known}",
        )
    if len(found) > 1:
        raise UsageError(
            f"these campaigns belong to several studies: {', '.join(one.name for one, _ in found)}",
            hint="name one with --study, or the campaigns of one",
        )
    return found[0]
