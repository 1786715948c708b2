"""Campaigns on disk: begin one, find the one to go on with, close it, find one that was run to its end already."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import meltrepro
from meltrepro.campaign.joined import joined
from meltrepro.errors import MeltreproError, RecordError
from meltrepro.manifest.lock import load_lock
from meltrepro.manifest.schema import Manifest
from meltrepro.plan.identity import digest_of
from meltrepro.record.campaign import LOCK, CampaignDocument
from meltrepro.record.reader import CampaignFolder, own_folders, read_folder
from meltrepro.record.writer import begin_campaign, extend_campaign, write_campaign


@dataclass(frozen=True)
class Campaign:
    """A campaign on disk."""

    folder: Path
    document: CampaignDocument
    resumed: bool = False


def new_id(name: str, wall_ns: int) -> str:
    """An id that sorts by time, to the millisecond as short campaigns follow each other within a second: `20261123T040102.345Z-quickstart-1a2b3c`."""
    second, rest = divmod(wall_ns, 10**9)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(second))
    return f"{stamp}.{rest // 10**6:03}Z-{name}-{token_hex(3)}"


def manifest_identity(manifest: Manifest) -> str:
    """Digest of what a manifest asks for; what it assumes of devices that are not there changes no measurement."""
    targets = {name: entry.model_copy(update={"assume": None}) for name, entry in manifest.targets.items()}
    return digest_of(manifest.model_copy(update={"targets": targets}))


def start_or_resume(
    records: Path, document: CampaignDocument, files: Mapping[str, bytes], *, new: bool = False, ended: bool = False
) -> Campaign:
    """The newest unfinished campaign that does the same work, else (or with `new`) one that begins now.

    Where the newest has `ended` but for cells that wait for their devices, it is that one. Cells of devices that were not
    there before join it. `files` are the contents of a new folder besides `campaign.json`, by relative path. The caller holds
    the locks of the devices. Raises `StoreError`, `RecordError`.
    """
    newest = ended
    for folder, found in _earlier(records, document.name) if not new else ():
        if not found.document.same_work(document):
            continue
        if found.document.finished_wall_ns is None or (newest and found.document.waiting):
            known = {cell.id for cell in found.document.cells}
            if known >= {cell.id for cell in document.cells}:
                return Campaign(folder, found.document, resumed=True)
            return Campaign(folder, extend_campaign(folder, *joined(found, document, files)), resumed=True)
        newest = False
    return Campaign(records / document.id, begin_campaign(records, document, files))


def finish(campaign: Campaign) -> Campaign:
    """Note that every trial of a campaign has an outcome; raises `StoreError`."""
    document = campaign.document.model_copy(update={"finished_wall_ns": time.time_ns()})
    write_campaign(campaign.folder, document)
    return Campaign(campaign.folder, document, campaign.resumed)


def finished_campaign(
    records: Path, manifest: Manifest, prompts: Mapping[str, str], only: Sequence[str] = ()
) -> Path | None:
    """The newest campaign of this manifest, or of those cells that `only` leaves of it, in which nothing is left to do, with these prompts (sha256 by file) and this version of the program."""
    digest = manifest_identity(manifest)
    for folder, found in _earlier(records, manifest.name):
        document = found.document
        if (
            document.manifest_digest == digest
            and list(document.only) == list(only)
            and not document.waiting
            and document.finished_wall_ns is not None
            and document.meltrepro_version == meltrepro.__version__
            and _prompts(folder) == dict(prompts)
        ):
            return folder
    return None


def _earlier(records: Path, name: str) -> Iterator[tuple[Path, CampaignFolder]]:
    """Campaigns of this name, the newest first; whatever happened to one that is damaged, another can be run."""
    for folder in reversed(own_folders(records)):
        if f"-{name}-" in folder.name:
            try:
                yield folder, read_folder(folder)
            except RecordError:
                continue


def _prompts(folder: Path) -> dict[str, str] | None:
    try:
        lock = load_lock(folder / LOCK)
    except MeltreproError:
        return None
    return dict(lock.prompts) if lock is not None else None
