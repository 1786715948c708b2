"""The mirror map: local copies of sources, for machines that cannot reach the servers (docs/lock.md, Mirrors)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from meltrepro.atomic import reading
from meltrepro.errors import ManifestError, Problem, SourceError, UsageError
from meltrepro.manifest.base import Label, Place, Strict
from meltrepro.manifest.sources import GitSource, HuggingFaceSource, PypiSource, Source, SyntheticSource, UrlSource
from meltrepro.manifest.yaml.positions import MAX_BYTES, read_content
from meltrepro.manifest.yaml.tree import Position
from meltrepro.manifest.yaml.validation import validate
from meltrepro.store.names import project_name
from meltrepro.store.source import Context, Pin, key_of
from meltrepro.untrusted import read_regular
from meltrepro.words import shorten

_HINT = "docs/lock.md (Mirrors) shows a mirror map; without any, unset MELTREPRO_MIRRORS"
_SUFFIXES = {"wheel": (".whl",), "sdist": (".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz")}


def _named(name: str) -> str:
    if ":" not in name:  # it would never be looked up
        raise ValueError(f"{shorten(name)!r} names no source")
    return name


class _MirrorMap(Strict):
    mirrors: dict[Annotated[Label, AfterValidator(_named)], Place]


@dataclass(frozen=True)
class Mirrors:
    """Local copies by source name."""

    file: Path | None = None
    paths: Mapping[str, Path] | None = None

    def adopt(self, source: Source, digest: str | None, context: Context) -> Pin | None:
        """Bring the local copy of a source into the store; `None` where the map has none.

        Raises `SourceError` for an entry that leads nowhere, and `DigestMismatch`.
        """
        from meltrepro.store.git import fetch_commit
        from meltrepro.store.pypi import extract

        found = self._lookup(source)
        if found is None:
            return None
        name, path, whole = found
        with reading(path):
            exists = path.exists()
        if not exists:
            raise SourceError(
                f"{self.file}: the mirror of {name!r} does not exist: {path}", hint="mend its path, or remove the entry"
            )
        wanted = source.model_copy(update={"digest": digest or source.digest})
        if isinstance(wanted, GitSource) and path.is_dir():
            return fetch_commit(wanted, str(path), context)
        subject = f"{name} (mirror {path})"
        if isinstance(wanted, PypiSource) and wanted.member and not whole:
            return extract(wanted, context.store, context.store.put_file(path, subject=subject), path.name)
        stored = context.store.put_file(path, expected=wanted.digest, subject=subject)
        return Pin(source=key_of(source), digest=stored, size=path.stat().st_size, filename=path.name)

    def has(self, source: Source) -> bool:
        """Whether the map names a copy of a source."""
        return self._lookup(source) is not None

    def folder(self, source: Source) -> Path | None:
        """The local copy of a checkpoint's repository, where the map names one."""
        return (self.paths or {}).get(key_of(source))

    def _lookup(self, source: Source) -> tuple[str, Path, bool] | None:
        """Name and path of the entry, and whether it stands for the very bytes, not for an archive around them."""
        if isinstance(source, SyntheticSource):
            return None
        paths = self.paths or {}
        for name in (key_of(source), *_other_names(source)):
            if name in paths:
                return name, paths[name], True
        if isinstance(source, HuggingFaceSource) and source.file is not None:
            repository = key_of(source.model_copy(update={"file": None}))
            if repository in paths:
                return key_of(source), paths[repository] / source.file, True
        if isinstance(source, PypiSource):
            stem = f"pypi:{project_name(source.pypi)}=={source.version}"
            whole = source.member is None
            for name in (f"{stem}:{source.filename or source.kind}", stem):
                if name in paths and (source.filename or paths[name].name.endswith(_SUFFIXES[source.kind])):
                    return name, paths[name], whole
        return None


def _other_names(source: Source) -> tuple[str, ...]:
    match source:
        case UrlSource():
            return (source.url, key_of(source).removeprefix("url:"))
        case GitSource():
            return (source.git,)
        case _:
            return ()


def load_mirrors(file: Path | None) -> Mirrors:
    """Read a mirror map; raises `UsageError` where there is none, and `ManifestError` for what is none.

    What its entries lead to does not matter here.
    """
    if file is None:
        return Mirrors()
    try:
        content = read_regular(file, MAX_BYTES)
    except FileNotFoundError as error:
        raise UsageError(
            f"MELTREPRO_MIRRORS names a mirror map that does not exist: {file}",
            hint="mend the path (it counts from the current folder), or unset the variable",
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{file}: the mirror map (MELTREPRO_MIRRORS) cannot be read: {reason}", hint=_HINT) from error
    problems: list[Problem] = []
    tree = read_content(content, str(file), problems)
    found = validate(_MirrorMap, tree, problems) if tree is not None else None
    paths: dict[str, Path] = {}
    for name, path in found.mirrors.items() if found is not None else ():
        try:
            paths[_normal(name)] = file.absolute().parent / Path(path).expanduser()
        except RuntimeError as error:  # the home of a user that nobody is
            problems.append(Position(str(file)).problem(("mirrors", name), f"{shorten(path)!r}: {error}"))
    if problems:
        raise ManifestError(problems, hint=_HINT)
    return Mirrors(file, paths)


def _normal(name: str) -> str:
    kind, _, rest = name.partition(":")
    project, equals, tail = rest.partition("==")
    return f"pypi:{project_name(project)}{equals}{tail}" if kind == "pypi" else name
