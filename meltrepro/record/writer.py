"""Campaign folders written: whole or not there, sealed, and with nothing in them that a program was not to leave."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from meltrepro import untrusted
from meltrepro.atomic import make_folder, remove, sync_folder, write_bytes, writing
from meltrepro.errors import StoreError
from meltrepro.interrupts import held
from meltrepro.record import layout
from meltrepro.record import trial as record
from meltrepro.record.campaign import CAMPAIGN, CampaignDocument, campaign_bytes
from meltrepro.record.trial import Outcome, outcome_bytes

_WRITTEN = frozenset(
    {
        *(record.REQUEST, record.EVENTS, record.STDOUT, record.STDERR, record.CRASH),
        *(record.SENSOR_PLAN, record.SAMPLES, record.SAMPLER_LOG, record.ENGINE_EVENTS, record.ENGINE_LOG),
    }
)
"""What is there when a trial has run; whatever else a record holds, this program writes later."""
_LITTER = re.compile(r"core(\.\d+)?|[A-Za-z0-9][A-Za-z0-9._-]*\.(log|part)")
"""What honest programs and broken transfers may leave: no part of a record, and no reason to give up a measurement."""
_NAMED = 5
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def clear_strangers(folder: Path) -> str | None:
    """Remove whatever is no file of the record; returns what was tampered with, in words. Raises `StoreError`.

    Nothing that the trial started may be alive. Before this, nothing in the folder may be read, or written by its name.
    """
    if folder.is_symlink() or not folder.is_dir():
        became = untrusted.odd(folder) or "a file"
        remove(folder)
        make_folder(folder)
        return f"the folder of the record had become {became}"
    with writing(folder):
        folder.chmod(folder.stat().st_mode | stat.S_IRWXU)
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    found = []
    for name in names:
        what = _wrong(folder / name)
        if what is not None:
            found.append(f"{untrusted.shown(Path(name))} is {what}")
        if what is not None or name not in _WRITTEN:
            remove(folder / name)
            continue
        with writing(folder / name):
            (folder / name).chmod((folder / name).stat().st_mode & ~_OTHERS_WRITE)
    more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return "; ".join([*found[:_NAMED], *more]) or None


def _wrong(path: Path) -> str | None:
    with writing(path):
        seen = path.lstat()
    if path.name == record.SCRATCH and stat.S_ISDIR(seen.st_mode):  # removed unread, whatever is in it
        return None
    what = untrusted.kind(seen.st_mode)
    if what is not None:
        return what
    if path.name not in _WRITTEN:
        return None if _LITTER.fullmatch(path.name) else "no file of a trial"
    if seen.st_nlink > 1:
        return "a hard link"
    if seen.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return "a program with its owner's rights"
    if not seen.st_mode & stat.S_IRUSR:
        return "closed to its owner"
    most = record.most_bytes(path.name)
    return f"larger than {most:,} bytes" if seen.st_size > most else None


def begin_campaign(records: Path, document: CampaignDocument, files: Mapping[str, bytes]) -> CampaignDocument:
    """Make the folder of a campaign, which appears whole or not at all; returns the document as it is written.

    `files` are its contents besides `campaign.json`, by relative path. Raises `StoreError`.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    document = document.model_copy(update={"files": digests})
    part = records / f"{layout.PART}{os.getpid()}-{document.id}"
    _remove_parts(records)
    with writing(records):
        try:
            for name, content in {**files, CAMPAIGN: campaign_bytes(document)}.items():
                write_bytes(part / name, content)
            part.rename(records / document.id)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return document


def write_campaign(folder: Path, document: CampaignDocument) -> None:
    """Replace `campaign.json`; raises `StoreError`."""
    write_bytes(folder / CAMPAIGN, campaign_bytes(document))


def extend_campaign(folder: Path, document: CampaignDocument, files: Mapping[str, bytes]) -> CampaignDocument:
    """Add files to a campaign or replace them, then its document, which is returned as it is written; raises `StoreError`.

    A kill in the middle leaves files that the document does not know; the next call with the same files goes on.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    document = document.model_copy(update={"files": dict(sorted({**document.files, **digests}.items()))})
    with held():
        for name, content in files.items():
            write_bytes(folder / name, content)
        write_campaign(folder, document)
    return document


@contextmanager
def trial_folder(folder: Path) -> Iterator[tuple[Path, Callable[[Outcome], None]]]:
    """A folder for a trial to run in, and what makes a record of it, once: called with the outcome, it gives the folder its name.

    Where the block raises, the folder is removed, as if the trial had never begun. Raises `StoreError`.
    """
    there = layout.unfinished_folder(folder)
    for each in (folder, there):
        remove(each)
    try:
        make_folder(there)
        with writing(there):
            mode = there.stat().st_mode
            there.chmod(0o700)  # nobody else gets at what a program leaves there before it was swept

        def end(outcome: Outcome) -> None:
            with held(), writing(folder):
                write_bytes(there / record.OUTCOME, outcome_bytes(outcome))
                there.chmod(mode)
                there.rename(folder)
                sync_folder(folder.parent)

        yield there, end
    except BaseException:
        with held(), suppress(StoreError):
            remove(there)  # a rerun removes what is left of it
        raise


def seal_files(folder: Path) -> dict[str, str]:
    """Bring everything but the outcome to disk, so that an outcome never survives what it stands for.

    Returns the sha256 of the files of the record by name.
    """
    digests: dict[str, str] = {}
    with writing(folder):
        for path in folder.iterdir():
            with untrusted.opened(path) as file:
                os.fsync(file.fileno())
                if path.name in record.SEALED:
                    digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        sync_folder(folder)
    return dict(sorted(digests.items()))


def _remove_parts(records: Path) -> None:
    """Remove folders whose setting-up was killed."""
    for path in records.glob(f"{layout.PART}*") if records.is_dir() else ():
        pid = path.name.removeprefix(layout.PART).split("-", 1)[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(path, ignore_errors=True)
