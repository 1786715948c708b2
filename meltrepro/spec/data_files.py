"""The local files that accuracy workloads read: whether they are there is seen before anything is built for them."""

from __future__ import annotations

import stat
from pathlib import Path

from meltrepro.errors import Problem
from meltrepro.spec.accuracy import QuestionWorkload, source_of
from meltrepro.spec.loader import LoadedManifest, problem_at
from meltrepro.spec.positions import unreadable
from meltrepro.spec.sources import FileSource
from meltrepro.spec.tree import shorten


def data_problems(loaded: LoadedManifest) -> list[Problem]:
    """What is wrong with the data files that a manifest names; one that has a digest may be in the store alone."""
    found = []
    for name, workload in loaded.manifest.accuracy.items():
        source = source_of(workload)
        if not isinstance(source, FileSource):
            continue
        named = _named(source.file)
        path = loaded.path.parent / named
        if source.digest is not None and not path.exists():
            continue
        label = str(Path(loaded.tree.at.file).parent / named)
        wrong = _wrong(path, label)
        if wrong is not None:
            key = "data" if isinstance(workload, QuestionWorkload) else "text"
            found.append(problem_at(loaded, ("workloads", name, key, "file"), *wrong))
    return found


def _named(file: str) -> Path:
    try:
        return Path(file).expanduser()
    except RuntimeError:  # of nobody here
        return Path(file)


def _wrong(path: Path, label: str) -> tuple[str, str | None] | None:
    """Message and suggestion about a file that cannot be used; `None` for one that can."""
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # to open one might wait for ever
            return f"{shorten(label, 200)} is not a regular file", None
        with path.open("rb") as file:
            return None if file.read(1) else (f"the file {shorten(label, 200)} is empty", None)
    except (OSError, ValueError) as error:
        return unreadable(path, label, error)
