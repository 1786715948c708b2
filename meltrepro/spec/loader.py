"""A manifest file becomes a `Manifest`, or one `ManifestError` that names every problem and where it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from meltrepro.errors import ManifestError, Problem
from meltrepro.spec import overrides as overrides_module
from meltrepro.spec.manifest import Manifest
from meltrepro.spec.messages import explain, near_miss
from meltrepro.spec.positions import Document, Path_, Position, field_path, read_file

_MAX_INCLUDES = 16
_SOURCE_TAGS = frozenset({"pypi", "huggingface", "git", "url", "file"})
_RELATIVE_FILES = ("conversations", "file")


@dataclass(frozen=True)
class LoadedManifest:
    """A manifest and where each part of it was written."""

    manifest: Manifest
    path: Path
    document: Mapping[str, Any]
    """The plain data after includes and overrides."""
    keys: Mapping[Path_, Position]
    values: Mapping[Path_, Position]


def load_manifest(path: Path, overrides: Sequence[str] = ()) -> LoadedManifest:
    """Read, merge, override and validate; raises `ManifestError` with all problems at once."""
    document = overrides_module.apply(_with_includes(path.absolute(), (), path), overrides)
    if not isinstance(document.data, dict):
        found = "an empty file" if document.data is None else f"{type(document.data).__name__}"
        raise ManifestError([Problem(str(path), 1, 1, "", f"expected a mapping with the key 'meltrepro', got {found}")])
    try:
        manifest = Manifest.model_validate(document.data)
    except ValidationError as error:
        problems = [_problem(document, details, path) for details in error.errors(include_url=False)]
        raise ManifestError(sorted(set(problems), key=lambda p: (p.file, p.line, p.column))) from None
    loaded = LoadedManifest(manifest, path.absolute(), document.data, document.keys, document.values)
    _check_conversations(loaded)
    return loaded


def problem_at(
    loaded: LoadedManifest, path: Path_, message: str, *, value: str | None = None, known: Collection[str] = ()
) -> Problem:
    """A problem at the value of a field, with a near miss of `value` among the `known` names."""
    suggestion = near_miss(value, known) if value is not None else None
    if suggestion is None and known:
        suggestion = f"known: {', '.join(sorted(known))}" if len(known) <= 16 else None
    at = _nearest(loaded.values, path, str(loaded.path))
    return Problem(at.file, at.line, at.column, field_path(path), message, suggestion)


def _with_includes(path: Path, above: tuple[Path, ...], shown: Path) -> Document:
    """The file with the files that it includes merged in below it."""
    if path in above or len(above) >= _MAX_INCLUDES:
        chain = " -> ".join(p.name for p in (*above, path))
        raise ManifestError([Problem(str(above[-1]), 1, 1, "include", f"files include each other: {chain}")])
    document = read_file(shown)
    included = document.data.get("include", []) if isinstance(document.data, dict) else []
    if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        return document  # validation says what is wrong with it
    merged = Document({}, {}, {})
    for i, name in enumerate(included):
        target = (path.parent / name).absolute()
        if not target.is_file():
            at = document.values[("include", i)]
            raise ManifestError([Problem(at.file, at.line, at.column, f"include[{i}]", f"the file {name} does not exist")])
        inner = _with_includes(Path(target), (*above, path), _short(target))
        merged = _merge(merged, _moved(inner, target.parent, path.parent), ())
    return _merge(merged, document, ())


def _moved(document: Document, origin: Path, new: Path) -> Document:
    """An included document with its relative file names made to count from the including file."""
    if origin == new or not isinstance(document.data, dict):
        return document

    def move(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: move(inner, name) for name, inner in value.items()}
        if isinstance(value, str) and key in _RELATIVE_FILES and not Path(value).is_absolute():
            return str(origin / value)
        return value

    moved = {key: value if key == "include" else move(value, key) for key, value in document.data.items()}
    return Document(moved, document.keys, document.values)


def _merge(below: Document, above: Document, path: Path_) -> Document:
    """Two documents as one: mappings key by key, anything else as `above` has it."""
    if not isinstance(below.data, dict) or not isinstance(above.data, dict):
        return above

    def merge(low: Any, high: Any) -> Any:
        if not isinstance(low, dict) or not isinstance(high, dict):
            return high
        return {**low, **{key: merge(low[key], value) if key in low else value for key, value in high.items()}}

    return Document(merge(below.data, above.data), {**below.keys, **above.keys}, {**below.values, **above.values})


def _problem(document: Document, details: Any, path: Path) -> Problem:
    message, suggestion = explain(details, Manifest)
    location = _without_tags(details["loc"], document)
    positions = document.keys if details["type"] == "extra_forbidden" else document.values
    at = _nearest(positions, location[:-1] if details["type"] == "missing" else location, str(path))
    return Problem(at.file, at.line, at.column, field_path(location), message, suggestion)


def _without_tags(location: tuple[int | str, ...], document: Document) -> Path_:
    """Pydantic puts a union's tag into the location; the file has no such key."""
    path: list[int | str] = []
    for i, part in enumerate(location):
        tag = part in _SOURCE_TAGS and (*path, part) not in document.keys or part in ("str", "list[list[str]]")
        nested = path and path[-1] == "source" and part in _SOURCE_TAGS and i + 1 < len(location)
        if not tag and not nested:
            path.append(part)
    return tuple(path)


def _nearest(positions: Mapping[Path_, Position], path: Path_, file: str) -> Position:
    for length in range(len(path), -1, -1):
        if path[:length] in positions:
            return positions[path[:length]]
    return Position(file, 1, 1)


def _check_conversations(loaded: LoadedManifest) -> None:
    from meltrepro.spec.prompts import load_conversations

    problems: list[Problem] = []
    for name, workload in loaded.manifest.workloads.items():
        try:
            load_conversations(workload, loaded.path.parent)
        except ManifestError as error:
            where = problem_at(loaded, ("workloads", name, "conversations"), "the prompt file cannot be used")
            problems.extend([where, *error.problems] if isinstance(workload.conversations, str) else error.problems)
    if problems:
        raise ManifestError(problems)


def _short(path: Path) -> Path:
    """A path as people write it: relative to where they are, if it lies below."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
