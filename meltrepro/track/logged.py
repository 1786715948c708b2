"""Runs that are in MLflow already: further files for a campaign's, and from a run back to a campaign on disk.

Everything that a campaign consists of is among its runs' artifacts. mlflow, which takes seconds, is imported when a run
is asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from meltrepro.errors import RecordError, TrackingError
from meltrepro.record.campaign import BUILDS, CAMPAIGN, IMPORTED, JOURNAL, LOCK, MANIFEST, PLAN
from meltrepro.record.reader import read_folder
from meltrepro.steps import Sink, step
from meltrepro.track import environment, places
from meltrepro.track.ledger import open_ledger
from meltrepro.track.places import Place

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def attach(folders: Sequence[Path], files: Mapping[str, str], place: Place) -> int:
    """Log text files, by artifact path, to the parent runs of campaigns at a place; returns how many runs took them.

    A campaign that is not there is passed over: a ledger says what was logged, not whom to trust. Raises `TrackingError`.
    """
    notes = [note for folder in folders if (note := open_ledger(folder).place(place)) is not None]
    if not notes:
        return 0  # mlflow takes seconds to import
    with environment.importing():
        from mlflow import MlflowClient

    from meltrepro.track.artifacts import Artifacts
    from meltrepro.track.connection import plainly

    with plainly(place), TemporaryDirectory() as scratch:
        client = MlflowClient(tracking_uri=place.uri)
        for note in notes:
            artifacts = Artifacts(client, place, note.campaign.run_id)
            for name, text in files.items():
                path = Path(scratch) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                artifacts.put(path, name.rpartition("/")[0] or None)
    return len(notes)


def recover(run_id: str, place: Place, records: Path, sink: Sink) -> tuple[Path, str | None]:
    """The campaign that a run belongs to, downloaded where `records` lacks it, and the run's cell if it is one.

    Raises `TrackingError` where MLflow does not have the run or not all of it, `RecordError` where it is damaged.
    """
    with environment.importing():
        from mlflow import MlflowClient

    from meltrepro.track.connection import plainly

    with plainly(place):
        client = MlflowClient(tracking_uri=place.uri)
        run = client.get_run(run_id)
        campaign, cell = (run.data.tags.get(f"meltrepro.{name}") for name in ("campaign", "cell"))
        parent = run if cell is None else client.get_run(run.data.tags.get("mlflow.parentRunId", run_id))
        if campaign is None:
            raise TrackingError(f"run {run_id} at {place.shown} is not one of meltrepro's")
        if places.safe_name(campaign) != campaign:
            raise RecordError(f"run {run_id} names a campaign that cannot be a folder: {campaign!r}")
        folder = records / campaign
        if not folder.exists():
            records.mkdir(parents=True, exist_ok=True)
            with step(sink, "recover", campaign), TemporaryDirectory(dir=records, prefix=".recover-") as name:
                found = Path(name) / campaign
                _download(client, place, parent, found)
                read_folder(found)
                (found / IMPORTED).touch()
                found.rename(folder)
    return folder, cell


def _download(client: MlflowClient, place: Place, parent: Run, folder: Path) -> None:
    """Bring every file of a campaign to where its record has it; the cells' folders come from the checked document."""
    from meltrepro.track.artifacts import Artifacts

    folder.mkdir()
    run_id = parent.info.run_id
    artifacts = Artifacts(client, place, run_id)
    for name in (CAMPAIGN, MANIFEST, LOCK, PLAN, JOURNAL, BUILDS):
        artifacts.get(name, folder)
    by_cell = {child.data.tags.get("meltrepro.cell"): child for child in _children(client, parent)}
    for cell in read_folder(folder).cells:
        child = by_cell.get(cell.id)
        with TemporaryDirectory(dir=folder.parent) as name:
            if child is None or not Artifacts(client, place, child.info.run_id).get("trials", Path(name)):
                raise TrackingError(f"run {run_id}: MLflow has no records of the cell {cell.id}")
            cell.folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(name) / "trials", cell.folder)


def _children(client: MlflowClient, parent: Run) -> Iterator[Run]:
    query, token = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", None
    while True:
        page = client.search_runs([parent.info.experiment_id], query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
