"""Campaigns that have been run to their end already, so that they need not be run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import meltrepro
from meltrepro.errors import MeltreproError
from meltrepro.manifest.lock import load_lock
from meltrepro.manifest.schema import Manifest
from meltrepro.measure.records import own_folders, read_campaign
from meltrepro.plan.identity import digest_of
from meltrepro.record.campaign import LOCK


def finished_campaign(
    records: Path, manifest: Manifest, prompts: Mapping[str, str], only: Sequence[str] = ()
) -> Path | None:
    """The newest finished campaign of this manifest, these prompts (sha256 by file) and this version of the program.

    Campaigns that are damaged are passed over: another one can be run.
    """
    digest = digest_of(manifest)
    for folder in reversed(own_folders(records)):
        if f"-{manifest.name}-" not in folder.name:
            continue
        try:
            document = read_campaign(folder).document
            lock = load_lock(folder / LOCK)
        except MeltreproError:
            continue
        same = document.manifest_digest == digest and document.only == list(only)
        if (
            same
            and document.finished_wall_ns is not None
            and document.meltrepro_version == meltrepro.__version__
            and lock is not None
            and dict(lock.prompts) == dict(prompts)
        ):
            return folder
    return None
