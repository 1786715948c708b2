"""The local files that a manifest names as sources: are they there?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel

from meltrepro.errors import ManifestError, Problem
from meltrepro.spec.loader import LoadedManifest, problem_at
from meltrepro.spec.sources import FileSource, FolderSource, Source, TreeSource
from meltrepro.spec.suggest import near_miss
from meltrepro.spec.tree import FieldPath

_HINT = "put them there, or mend the paths; a relative path counts from the manifest's folder"


def missing_files(loaded: LoadedManifest, elsewhere: Callable[[Source], bool]) -> list[Problem]:
    """A problem for each source that is to be a file or folder on this machine and is none.

    `elsewhere` says of a source whether it can be had from another place, such as a mirror.
    """
    problems = []
    for path, source in _local(loaded.manifest, ()):
        key = "folder" if isinstance(source, FolderSource) else "file"
        message = None if elsewhere(source) else _wrong(source, loaded.path.parent)
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


def _wrong(source: FileSource | FolderSource, base: Path) -> tuple[str, str | None] | None:
    """What is wrong with the place of a source, and what was probably meant; `None` where nothing is."""
    folder = isinstance(source, FolderSource)
    written = source.folder if isinstance(source, FolderSource) else source.file
    path = base / Path(written).expanduser()
    what = "a file or folder" if isinstance(source, TreeSource) else "a folder" if folder else "a file"
    try:
        if path.is_dir() if folder else path.is_file() or (isinstance(source, TreeSource) and path.is_dir()):
            return None
        if path.exists():
            return f"expected {what}, but {path} is {'a folder' if path.is_dir() else 'none'}", None
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        return f"expected {what}: {path} cannot be looked at: {error.strerror}", None
    return f"expected {what}, but {path} does not exist", near_miss(path.name, beside)
