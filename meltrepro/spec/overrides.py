"""Overrides from the command line: `--set models.smollm2-135m.quantizations=[q4_0]`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from meltrepro.errors import ManifestError, Problem
from meltrepro.spec.messages import near_miss
from meltrepro.spec.positions import Document, Path_, Position, read_text

_PART = re.compile(r'"(?P<quoted>[^"]*)"|\[(?P<index>\d+)\]|(?P<plain>[^.\[\]"]+)|(?P<dot>\.)')


def apply(document: Document, overrides: Sequence[str]) -> Document:
    """The document with every override in place, in order; raises `ManifestError` with all that are wrong."""
    keys, values = dict(document.keys), dict(document.values)
    data = document.data
    problems: list[Problem] = []
    for override in overrides:
        try:
            path, value = _parse(override, data)
            data = _put(data, path, value.data, override)
        except ManifestError as error:
            problems.extend(error.problems)
            continue
        where = Position(f"--set {override}", 1, 1)
        for old in [known for known in values if known[: len(path)] == path]:
            keys.pop(old, None)
            values.pop(old, None)
        for inner, position in value.values.items():
            values[(*path, *inner)] = Position(where.file, 1, override.index("=") + 1 + position.column)
        for inner, position in value.keys.items():
            keys[(*path, *inner)] = Position(where.file, 1, override.index("=") + 1 + position.column)
        for length in range(1, len(path) + 1):
            keys.setdefault(path[:length], where)
            values.setdefault(path[:length], where)
    if problems:
        raise ManifestError(problems)
    return Document(data, keys, values)


def _parse(override: str, data: Any) -> tuple[Path_, Document]:
    left, equals, right = override.partition("=")
    if not equals or not left.strip():
        raise _fault(override, 1, "expected PATH=VALUE, for example models.smollm2-135m.quantizations=[q4_0]")
    parts: list[str | int] = []
    at, dotted = 0, True
    while at < len(left):
        match = _PART.match(left, at)
        if match is None:
            raise _fault(override, at + 1, f"cannot read the path from {left[at:]!r} on")
        if match["dot"] is None and match["index"] is None and not dotted:
            raise _fault(override, at + 1, "expected a dot between two names")
        if match["index"] is not None:
            parts.append(int(match["index"]))
        elif match["dot"] is None:
            parts.append(match["quoted"] if match["quoted"] is not None else match["plain"].strip())
        dotted = match["dot"] is not None
        at = match.end()
    if dotted:
        raise _fault(override, len(left) + 1, "the path ends with a dot")
    return _join_names(parts, data), read_text(right, f"--set {override}")


def _join_names(parts: list[str | int], data: Any) -> Path_:
    """Names may hold dots (`llama.cpp`): the longest run of parts that is a key here is taken as one name."""
    path: list[str | int] = []
    while parts:
        size = 1
        if isinstance(data, dict):
            for length in range(len(parts), 1, -1):
                run = parts[:length]
                if all(isinstance(part, str) for part in run) and ".".join(map(str, run)) in data:
                    size = length
                    break
        head: str | int = parts[0] if size == 1 else ".".join(map(str, parts[:size]))
        path.append(head)
        parts = parts[size:]
        try:
            data = data[head]
        except (KeyError, IndexError, TypeError):
            data = None
    return tuple(path)


def _put(data: Any, path: Path_, value: Any, override: str) -> Any:
    """A copy of `data` with `value` at `path`; mappings on the way are made, list items must exist."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(head, int):
        if not isinstance(data, list) or head >= len(data):
            size = len(data) if isinstance(data, list) else "no"
            raise _fault(override, 1, f"[{head}]: there is no such list item (the list has {size} items)")
        return [_put(item, rest, value, override) if i == head else item for i, item in enumerate(data)]
    if data is not None and not isinstance(data, dict):
        raise _fault(override, 1, f"{head!r}: what stands above it is no mapping")
    mapping = data or {}
    if rest and head not in mapping and mapping:
        hint = near_miss(head, list(mapping))
        if hint:
            raise _fault(override, 1, f"unknown key {head!r}", hint)
    return {**mapping, head: _put(mapping.get(head), rest, value, override)}


def _fault(override: str, column: int, message: str, suggestion: str | None = None) -> ManifestError:
    return ManifestError([Problem(f"--set {override}", 1, column, "", message, suggestion)])
