"""Keys that stand in the wrong part of a file: where they belong."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import get_origin

from pydantic import BaseModel

from meltrepro.manifest.yaml.shape import Shape

_MOST = 2
"""Places that a hint names; a key that may stand in more of them says nothing of what was meant."""
_DEEPEST = 5


def place_of(key: str, model: type[BaseModel]) -> str | None:
    """`'gpu_layers' belongs to frameworks.NAME`, for a key that a file of this model has somewhere; `None` for others."""
    places = _places(model).get(key, ())
    if not 0 < len(places) <= _MOST:
        return None
    return f"{key!r} belongs to {' or '.join(places)}"


@cache
def _places(model: type[BaseModel]) -> Mapping[str, Collection[str]]:
    """Where each key of a file of this model may stand."""
    found: dict[str, dict[str, None]] = {}
    for path, keys in _mappings(Shape.of(model), ()):
        for key in keys:
            found.setdefault(key, {})[path] = None
    return found


def _mappings(shape: Shape, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every mapping with fixed keys at or below a place, with its keys; `NAME` stands for a name of the user's."""
    if len(path) > _DEEPEST:
        return
    keys = shape.keys
    if keys is not None:
        yield ".".join(path) or "the top of the file", keys
        for key in keys:
            yield from _mappings(shape.child(key), (*path, key))
    if any(get_origin(branch.type) is dict for branch in shape.branches):
        yield from _mappings(shape.child("NAME"), (*path, "NAME"))
