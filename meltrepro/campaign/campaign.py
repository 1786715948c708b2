"""Campaign folders: begin one, find the one to go on with, close it."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from meltrepro.atomic import write_bytes, writing
from meltrepro.errors import RecordError
from meltrepro.measure.records import own_folders, read_campaign
from meltrepro.record import layout
from meltrepro.record.campaign import CAMPAIGN, CampaignDocument, campaign_bytes


@dataclass(frozen=True)
class Campaign:
    """A campaign on disk."""

    folder: Path
    document: CampaignDocument
    resumed: bool = False


def new_id(name: str, wall_ns: int) -> str:
    """An id that sorts by time: `20261123T040102Z-quickstart-1a2b3c`."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_ns // 10**9))
    return f"{stamp}-{name}-{token_hex(3)}"


def start_or_resume(
    records: Path, document: CampaignDocument, files: Mapping[str, bytes], *, new: bool = False
) -> Campaign:
    """The newest unfinished campaign that does the same work, else (or with `new`) one that begins now.

    `files` are the contents of a new folder besides `campaign.json`, by relative path. A folder appears whole or not
    at all. The caller holds the locks of the devices. Raises `StoreError`.
    """
    found = None if new else _unfinished(records, document)
    if found is not None:
        return found
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    document = document.model_copy(update={"files": digests})
    folder = records / document.id
    part = records / f"{layout.PART}{os.getpid()}-{document.id}"
    _sweep(records)
    with writing(records):
        try:
            for name, content in {**files, CAMPAIGN: campaign_bytes(document)}.items():
                write_bytes(part / name, content)
            part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return Campaign(folder, document)


def finish(campaign: Campaign) -> Campaign:
    """Note that every trial of a campaign has an outcome; raises `StoreError`."""
    document = campaign.document.model_copy(update={"finished_wall_ns": time.time_ns()})
    write_bytes(campaign.folder / CAMPAIGN, campaign_bytes(document))
    return Campaign(campaign.folder, document, campaign.resumed)


def _unfinished(records: Path, document: CampaignDocument) -> Campaign | None:
    for folder in reversed(own_folders(records)):
        if f"-{document.name}-" not in folder.name:
            continue
        try:
            found = read_campaign(folder).document
        except RecordError:
            continue  # whatever happened to an older campaign, this one can run
        if found.finished_wall_ns is None and found.same_work(document):
            return Campaign(folder, found, resumed=True)
    return None


def _sweep(records: Path) -> None:
    """Remove folders whose setting-up was killed."""
    for path in records.glob(f"{layout.PART}*") if records.is_dir() else ():
        pid = path.name.removeprefix(layout.PART).split("-", 1)[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(path, ignore_errors=True)
