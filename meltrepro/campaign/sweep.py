"""What a program left in the folder of its trial: the files of a record, or something that is to betray whoever reads it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from meltrepro import untrusted
from meltrepro.atomic import make_folder, remove, writing
from meltrepro.record import trial as record

_WRITTEN = frozenset(
    {
        *(record.REQUEST, record.EVENTS, record.STDOUT, record.STDERR, record.CRASH),
        *(record.SAMPLING, record.SAMPLES, record.SAMPLER_LOG),
    }
)
"""What is there when a trial has run; whatever else a record holds, this program writes later."""
_LITTER = re.compile(r"core(\.\d+)?|[A-Za-z0-9][A-Za-z0-9._-]*\.(log|part)")
"""What honest programs and broken transfers may leave: no part of a record, and no reason to give up a measurement."""
_NAMED = 5
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def sweep(folder: Path) -> str | None:
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
