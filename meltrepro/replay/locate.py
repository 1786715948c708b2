"""What a user means by RUN|RECORD|BUNDLE: a campaign on disk, perhaps only one cell of it.

A bundle is imported, and a campaign that only MLflow has is brought back from there.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from meltrepro.record.campaign import CAMPAIGN
from meltrepro.record.reader import campaign_folders, find_campaign, read_folder
from meltrepro.settings import Settings
from meltrepro.steps import Sink
from meltrepro.store.cas import Store
from meltrepro.track.ledger import open_ledger
from meltrepro.track.places import choose

_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Located:
    campaign: Path
    cell: str | None = None
    """The one cell that is meant, if not all are."""


def locate(wanted: str, settings: Settings, sink: Sink) -> Located:
    """Find, import or download a campaign; raises `UsageError`, `BundleError`, `RecordError` or `TrackingError`."""
    path = Path(wanted)
    if path.is_file():
        return Located(_imported(path, settings, sink))
    if path.is_dir():
        inside = _inside(path.absolute())
        if inside is not None:
            return inside
    if _RUN_ID.fullmatch(wanted):
        return _logged(wanted, settings, sink)
    return Located(find_campaign(settings.records, wanted))


def _imported(bundle: Path, settings: Settings, sink: Sink) -> Path:
    from meltrepro.replay.bundle import import_bundle

    return import_bundle(bundle, Store(settings.store), settings.records, sink).campaigns[0]


def _inside(path: Path) -> Located | None:
    """The campaign around a record's folder, and the cell whose record it is."""
    for folder in (path, *path.parents):
        if os.path.lexists(folder / CAMPAIGN):
            cells = read_folder(folder).cells
            return Located(folder, next((cell.id for cell in cells if path.is_relative_to(cell.folder)), None))
    return None


def _logged(run_id: str, settings: Settings, sink: Sink) -> Located:
    """The campaign of an MLflow run: known from a ledger on this disk, else asked of MLflow."""
    for folder in campaign_folders(settings.records):
        for place in open_ledger(folder).document.places:
            if place.campaign.run_id == run_id:
                return Located(folder)
            for cell, run in place.cells.items():
                if run.run_id == run_id:
                    return Located(folder, cell)
    from meltrepro.track.logged import recover

    return Located(*recover(run_id, choose(os.environ, None, settings.tracking_uri), settings.records, sink))
