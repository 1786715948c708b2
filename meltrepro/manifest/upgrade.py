"""Manifests of version 0.1, in which the options of a framework stood beside its release and in `build`, as today's."""

from __future__ import annotations

from collections.abc import Iterator

from meltrepro.manifest.schema import FrameworkEntry
from meltrepro.manifest.yaml.tree import FieldPath, Node, Position, field_path
from meltrepro.registry import FRAMEWORKS

_BUILD, _OPTIONS = "build", "options"
Moved = tuple[FieldPath, FieldPath, Position]
"""Where a value stood, where it stands now, and where it was written."""


def upgraded(tree: Node) -> tuple[Node, list[Moved]]:
    """The tree with every value at its place of today, and which ones were moved."""
    section = tree.child("frameworks")
    found: list[Moved] = []
    if section is None or not isinstance(section.value, dict):
        return tree, found
    for name, entry in section.value.items():
        at: FieldPath = ("frameworks", name)
        for old in list(_old_keys(name, entry)):
            node, new = entry.find(old), (_OPTIONS, old[-1])
            if node is None or entry.find(new) is not None:
                continue  # said twice: what is wrong stays where it is
            tree = _without(tree, (*at, *old)).put({(*at, *new): node})
            found.append(((*at, *old), (*at, *new), node.key_at or node.at))
        build = tree.find((*at, _BUILD))
        if build is not None and build.value == {}:
            tree = _without(tree, (*at, _BUILD))
    return tree, found


def warning(moved: Moved) -> str:
    """What to change in a file, for whoever wrote it."""
    old, new, at = moved
    return (
        f"{at.file}:{at.line}:{at.column}: {field_path(old)} stands in {field_path(new)} now; "
        "the old place will be refused in a later version"
    )


def _old_keys(name: str, entry: Node) -> Iterator[FieldPath]:
    if not isinstance(entry.value, dict):
        return
    build = entry.value.get(_BUILD)
    if build is not None and isinstance(build.value, dict):
        yield from ((_BUILD, key) for key in build.value)
    others = [key for key in entry.value if key != _BUILD and key not in FrameworkEntry.model_fields]
    if others:
        kind = entry.child("kind")
        kind_name = str(kind.value) if kind is not None and kind.value is not None else name
        if FRAMEWORKS.has(kind_name):
            options = FRAMEWORKS.get(kind_name).options.model_fields
            yield from ((key,) for key in others if key in options)


def _without(tree: Node, path: FieldPath) -> Node:
    parent = tree.find(path[:-1])
    assert parent is not None
    return tree.put({path[:-1]: parent.without(str(path[-1]))})
