"""Campaigns that were measured: reading, comparing and tracing them, and taking them from machine to machine."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from meltrepro import settings as settings_module
from meltrepro import untrusted
from meltrepro.atomic import make_folder, write_bytes
from meltrepro.errors import NothingToPack, RecordError, UsageError
from meltrepro.measure.records import CampaignRecord, CellRecord, TrialRecord, read_campaign
from meltrepro.plan.names import Selection
from meltrepro.record.layout import TrialKind
from meltrepro.record.reader import campaign_folders
from meltrepro.replay import bundle as bundles
from meltrepro.replay.archive import Index
from meltrepro.replay.bundle import Imported
from meltrepro.replay.claims import Known, artifacts_of, sources_of
from meltrepro.replay.compare import Comparison, require_common
from meltrepro.replay.compare import compare as compare_records
from meltrepro.replay.maps import mapped
from meltrepro.report.comparison import html
from meltrepro.settings import Settings
from meltrepro.stats.equivalence import Design
from meltrepro.steps import Sink, silent
from meltrepro.store.cas import Store
from meltrepro.words import counted
from meltrepro.workflow.tables import load


@dataclass(frozen=True)
class Recorded:
    """A folder that holds a campaign."""

    folder: Path
    record: CampaignRecord | None
    """`None` where it is damaged."""
    problem: RecordError | None = None
    """How it is damaged."""


def list_campaigns(*, settings: Settings | None = None) -> list[Recorded]:
    """Every campaign on this machine, oldest first, damaged ones too."""
    found = []
    for folder in campaign_folders((settings or settings_module.load()).records):
        try:
            record = read_campaign(folder)
            for cell in record.cells:
                _ = cell.trials  # a damaged outcome shows only here
            found.append(Recorded(folder, record))
        except RecordError as error:
            found.append(Recorded(folder, None, error))
    return found


# -- comparing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """Two campaigns, or cells of one, metric by metric."""

    comparison: Comparison
    folders: tuple[Path, ...]


def compare(
    campaigns: Sequence[Path | str],
    *,
    maps: Sequence[str] = (),
    margin: float = 0.05,
    with_invalid: bool = False,
    settings: Settings | None = None,
) -> list[Compared]:
    """Compare campaigns with the first one; `margin` is the largest relative difference that counts as the same.

    With `maps` (`before=after`) cells of different names are compared, also within one campaign. Raises `UsageError` for fewer
    than two and none, `NothingToCompare` where two have no cell in common, `RecordError`.
    """
    if len(campaigns) < (1 if maps else 2):
        hint = "for example: meltrepro compare last ID; within one campaign: meltrepro compare last --map before=after"
        raise UsageError("expected at least two campaigns", hint=hint)
    first, *others = (load(each, with_invalid=with_invalid, settings=settings) for each in campaigns)
    found = []
    for other in others or [first]:
        ids = ((cell.id for cell in each.cells) for each in (first, other))
        renamed = mapped(maps, *ids) if maps else None
        comparison = compare_records(first, other, Design(margin=margin), once=True, renamed=renamed)
        found.append(Compared(comparison, tuple(dict.fromkeys((first.folder, other.folder)))))
    for each in found:
        require_common(each.comparison)
    return found


def log_comparisons(compared: Sequence[Compared], *, settings: Settings | None = None) -> None:
    """Log the page of each comparison to the MLflow runs of both campaigns, where they are; raises `TrackingError`."""
    from meltrepro.track.logged import attach
    from meltrepro.track.places import choose

    place = choose(os.environ, None, (settings or settings_module.load()).tracking_uri)
    for each in compared:
        name = f"comparison/{each.comparison.first}--{each.comparison.second}.html"
        attach(each.folders, {name: html([each.comparison])}, place)


# -- traces -------------------------------------------------------------------------------------------------------


def trace(
    campaign: Path | str = "last",
    folder: Path | str = ".",
    *,
    only: Sequence[str] = (),
    everything: bool = False,
    settings: Settings | None = None,
) -> list[Path]:
    """Write trials as Perfetto traces into a folder: of each cell the first repetition and the profiled trial, or all.

    Raises `UsageError` for a campaign or an `only` that means nothing, `RecordError` where there is nothing to trace.
    """
    from meltrepro.measure.perfetto import SUFFIX, perfetto_trace

    whole, selection = load(campaign, settings=settings), Selection(only)
    wanted = whole.restricted(selection.wants)
    selection.refuse_idle(cell.id for cell in whole.cells)
    trials = list(_traced(wanted, everything=everything))
    if not trials:
        raise RecordError(f"{whole.folder}: no trial ended well, so that there is nothing to trace")
    make_folder(Path(folder))
    written = []
    for cell, trial in trials:
        path = Path(folder) / f"{cell.id.replace('/', ',')},{trial.name}{SUFFIX}"
        write_bytes(path, perfetto_trace(trial.trace(), trial.recordings(), f"{cell.id} {trial.name}"))
        written.append(path)
    return written


def _traced(campaign: CampaignRecord, *, everything: bool) -> Iterator[tuple[CellRecord, TrialRecord]]:
    for cell in campaign.cells:
        if any(trial.ok and trial.scoring is not None for trial in cell.trials):
            continue  # a scorer leaves no events
        profiled = [trial for trial in cell.trials if trial.kind is TrialKind.profile and trial.ok]
        for trial in [t for t in cell.trials if t.ok] if everything else [*cell.repetitions[:1], *profiled]:
            yield cell, trial


# -- bundles ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exported:
    """A bundle that was written."""

    path: Path
    index: Index
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the file, to be told beside it: nothing in it is signed."""

    @property
    def withheld(self) -> int:
        """How many files were left out, because nobody said that they may be passed on, or their licence forbids it."""
        return len(self.index.withheld)


def export_bundle(
    campaign: Path | str,
    path: Path | str | None = None,
    *,
    begins: Callable[[int, Sequence[str]], None] = lambda _, __: None,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Exported:
    """Pack a campaign into one file: manifest, lock, sources, artifacts, records, report.

    `begins` is told how many bytes that takes, and what is left out and why, before anything is written.

    Raises `UsageError`, `RecordError` where a record was changed, `NothingToPack` where it has no result, `BundleError` where
    the store lacks something.
    """
    from meltrepro.report.content import assemble
    from meltrepro.report.files import report_files

    settings = settings or settings_module.load()
    recorded = load(campaign, settings=settings)
    recorded.verify()
    if not any(cell.repetitions for cell in recorded.cells):
        trials = sum(len(cell.trials) for cell in recorded.cells)
        raise NothingToPack(
            f"campaign {recorded.id} has no result to pack: of {counted(trials, 'trial')} that ended none ended well",
            hint=f"why: meltrepro show {shlex.quote(recorded.id)}; the same run goes on with it",
        )
    out = Path(path or f"{recorded.folder.name}.melt")
    report = report_files(assemble([recorded]))
    index = bundles.export(recorded.folder, Store(settings.store), out, sink, report, begins)
    return Exported(out, index, *_size_and_sha256(out))


@dataclass(frozen=True)
class Checked:
    """A bundle that is whole and does not contradict itself; nothing in it is signed."""

    index: Index
    artifacts: Sequence[Known]
    """What it says that was built, and what this machine has built of the same inputs."""
    sources: Sequence[Known]
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the file: whoever made it may have told it elsewhere."""


def check_bundle(path: Path | str, *, settings: Settings | None = None) -> Checked:
    """Check every byte of a bundle, and compare it with what this machine knows; raises `BundleError`, `LockError`."""
    index, lock = bundles.verify_bundle(Path(path))
    store = Store((settings or settings_module.load()).store)
    return Checked(index, artifacts_of(lock, store), sources_of(lock, store), *_size_and_sha256(Path(path)))


def import_bundle(path: Path | str, *, sink: Sink = silent, settings: Settings | None = None) -> Imported:
    """Check a bundle and take its objects and records over; nothing is kept of one with a fault.

    Raises `BundleError`, `LockError`, `StoreError`, and `RecordError` where a campaign is here already and not the same.
    """
    settings = settings or settings_module.load()
    return bundles.import_bundle(Path(path), Store(settings.store), settings.records, sink)


def _size_and_sha256(path: Path) -> tuple[int, str]:
    with untrusted.opened(path, None) as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
