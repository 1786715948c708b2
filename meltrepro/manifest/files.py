"""The local files that a manifest names as sources: are they there?"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel

from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.manifest.sources import FileSource, FolderSource, Source, TreeSource, files_of, is_split
from meltrepro.manifest.yaml.suggest import near_miss
from meltrepro.manifest.yaml.tree import FieldPath

_HINT = "put them there, or mend the paths; a relative path counts from the manifest's folder"


def missing_files(loaded: LoadedManifest, elsewhere: Callable[[Source], bool]) -> list[Problem]:
    """A problem for each source that is to be a file or folder on this machine and is none.

    `elsewhere` says of a source whether it can be had from another place, such as a mirror.
    """
    problems = []
    for path, source in _local(loaded.manifest, ()):
        key = "folder" if isinstance(source, FolderSource) else "file"
        message = None if elsewhere(source) else _first_wrong(source, loaded.path.parent)
        if message is not None:
            problems.append(problem_at(loaded, (*path, key), message[0], message[1]))
    return problems


def require_files(problems: list[Problem]) -> None:
    """Raise `ManifestError` where there are any such problems."""
    if problems:
        raise ManifestError(problems, hint=_HINT)


def _local(value: object, path: FieldPath) -> Iterator[tuple[FieldPath, FileSource | FolderSource]]:
    """Every local source at or below a place of the manifest."""
    if isinstance(value, FileSource | FolderSource):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _local(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _local(each, (*path, name))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _local(each, (*path, index))


def _first_wrong(source: FileSource | FolderSource, base: Path) -> tuple[str, str | None] | None:
    """What is wrong with the place of a source, or with the first of several files that it stands for."""
    if not is_split(source):
        return _wrong(source, base)
    files = [FileSource(file=name, digest=source.digest) for name in files_of(source)]
    message = next((wrong for each in files if (wrong := _wrong(each, base)) is not None), None)
    return (f"{message[0]}: it is one of {len(files)} files of a split model", None) if message is not None else None


def _wrong(source: FileSource | FolderSource, base: Path) -> tuple[str, str | None] | None:
    """What is wrong with the place of a source, and what was probably meant; `None` where nothing is."""
    folder = isinstance(source, FolderSource)
    written = source.folder if isinstance(source, FolderSource) else source.file
    what = "a file or folder" if isinstance(source, TreeSource) else "a folder" if folder else "a file"
    try:
        path = base / Path(written).expanduser()
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            fits = folder or isinstance(source, TreeSource)
            return None if fits else (f"expected {what}, but {path} is a folder", None)
        if folder or not stat.S_ISREG(mode):  # to open a pipe might wait for ever
            return f"expected {what}, but {path} is none", None
        with path.open("rb") as file:
            return None if file.read(1) else (f"expected {what}, but {path} is empty", None)
    except FileNotFoundError:
        if source.digest is not None:  # it may be in the store
            return None
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        return f"expected {what}, but {path} does not exist", near_miss(path.name, beside)
    except (OSError, RuntimeError, ValueError) as error:  # also of a user's home that nobody has
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"expected {what}: {written} cannot be looked at: {reason}", None
