"""Models among an app's documents, kept by their digest.

<root>/cas/<sha256>         a verified file; a folder of such files for a model that is one
<root>/cas/<sha256>.ok      its size and time when it was verified: whether it is still the same file; a folder of such notes
<root>/cas/<sha256>.part    as much of it as has arrived
"""

from __future__ import annotations

import json
import posixpath
from pathlib import Path

from meltrepro.build.model import Artifact
from meltrepro.targets.base import Progress, silent
from meltrepro.targets.ios.files import Files, Stat
from meltrepro.targets.remote.deploy import digest_of, members

_FOLDER = "cas"
_DEEPEST = 8


def from_job(digest: str) -> str:
    """Where a model is, as a trial's folder sees it: only the phone knows where the app's own folder is."""
    return f"../../{_FOLDER}/{digest}"


def deploy(files: Files, model: Artifact, progress: Progress = silent) -> None:
    """Bring a model to the phone unless it is there; raises what `Files.push` raises."""
    name = f"{_FOLDER}/{model.digest}"
    if not model.is_folder:
        _bring(files, model.path, name, f"{name}.ok", model.digest, progress)
        return
    for inside, local in members(model.path).items():
        _bring(files, local, f"{name}/{inside}", f"{name}.ok/{inside}", digest_of(local), progress)


def clean(files: Files) -> int:
    """Remove every model; returns how many bytes that freed."""
    return sum(_remove(files, f"{_FOLDER}/{name}") for name in files.names(_FOLDER))


def _bring(files: Files, local: Path, name: str, note: str, digest: str, progress: Progress) -> None:
    """One file. One that is there unverified, or was touched since, is read back once instead of being sent again."""
    there = files.stat(name)
    if there is not None and _noted(files, note) == there:
        return
    if there is None or files.digest(name) != digest:
        files.make_folder(posixpath.dirname(name))
        if there is not None:
            files.remove(name)
        files.push(local, name, digest, progress)
    found = files.stat(name)
    if found is not None:
        content = {"sha256": digest, "size": found.size, "changed_us": found.changed_us}
        if posixpath.dirname(note) != _FOLDER:
            files.make_folder(posixpath.dirname(note))
        files.write(note, json.dumps(content).encode())


def _remove(files: Files, name: str, depth: int = 0) -> int:
    found = files.stat(name)
    if found is None or depth > _DEEPEST:
        return 0
    if found.plain:
        freed = found.size
    else:
        freed = sum(_remove(files, f"{name}/{inside}", depth + 1) for inside in files.names(name))
    files.remove(name)
    return freed


def _noted(files: Files, note: str) -> Stat | None:
    try:
        known = json.loads(files.read(note, 1 << 16) or b"")
        return Stat(int(known["size"]), int(known["changed_us"]))
    except (ValueError, KeyError, TypeError):
        return None
