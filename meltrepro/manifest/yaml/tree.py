"""What a person wrote, as a tree of values that know where they stand: the form between YAML and the models.

Nodes are immutable and may be shared (YAML aliases, included files), so a tree is never copied to be changed: `put` and
`merge` make a new spine and keep the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from meltrepro.errors import Problem
from meltrepro.words import shorten

Scalar = str | int | float | bool | None
FieldPath = tuple[str | int, ...]
"""Names and list indices from the top."""
_PLAIN_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file, or in an option of the command line; lines and columns count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def problem(self, path: FieldPath, message: str, suggestion: str | None = None) -> Problem:
        return Problem(self.file, self.line, self.column, field_path(path), message, suggestion)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A value and where it was written."""

    value: Scalar | dict[str, Node] | list[Node]
    at: Position
    key_at: Position | None = None
    """Where the key stands that this is the value of."""
    text: str | None = None
    """A scalar without quotes, as it was written."""
    size: int = 1
    """Values in this tree, shared ones counted as often as they are used."""
    height: int = 1

    @property
    def where(self) -> Position:
        """Where a person looks for it: a mapping or list at its key, anything else where it begins."""
        return self.key_at or self.at if isinstance(self.value, dict | list) else self.at

    def plain(self) -> Any:
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, step: str | int) -> Node | None:
        if isinstance(self.value, dict) and isinstance(step, str):
            return self.value.get(step)
        if isinstance(self.value, list) and isinstance(step, int) and 0 <= step < len(self.value):
            return self.value[step]
        return None

    def find(self, path: FieldPath) -> Node | None:
        node: Node | None = self
        for step in path:
            node = node and node.child(step)
        return node

    def nearest(self, path: FieldPath) -> Node:
        """The node at a path, or the deepest one on the way there."""
        node = self
        for step in path:
            inner = node.child(step)
            if inner is None:
                break
            node = inner
        return node

    def walk(self, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Node]]:
        yield path, self
        if isinstance(self.value, dict):
            for key, child in self.value.items():
                yield from child.walk((*path, key))
        elif isinstance(self.value, list):
            for i, child in enumerate(self.value):
                yield from child.walk((*path, i))

    def put(self, changes: Mapping[FieldPath, Node]) -> Node:
        """A tree with other nodes at some paths; missing mappings on the way are made, items of lists must exist."""
        if not changes or () in changes:
            return changes.get((), self)
        below: dict[str | int, dict[FieldPath, Node]] = {}
        for path, node in changes.items():
            below.setdefault(path[0], {})[path[1:]] = node
        if isinstance(self.value, list):
            items = [item.put(below[i]) if i in below else item for i, item in enumerate(self.value)]
            return branch(items, self)
        children = dict(self.value) if isinstance(self.value, dict) else {}
        for step, inner in below.items():
            first = next(iter(inner.values()))
            children[str(step)] = (self.child(step) or Node({}, first.at, first.key_at)).put(inner)
        return branch(children, self)

    def without(self, key: str) -> Node:
        assert isinstance(self.value, dict)
        return branch({name: child for name, child in self.value.items() if name != key}, self)


def branch(children: dict[str, Node] | list[Node], like: Node) -> Node:
    """A mapping or list at the place of another node."""
    below = children.values() if isinstance(children, dict) else children
    return Node(
        children,
        like.at,
        like.key_at,
        size=1 + sum(child.size for child in below),
        height=1 + max((child.height for child in below), default=0),
    )


def merge(low: Node, high: Node) -> Node:
    """Two trees as one: mappings key by key, anything else as `high` has it."""
    if not isinstance(low.value, dict) or not isinstance(high.value, dict):
        return high
    children = dict(low.value)
    for key, child in high.value.items():
        children[key] = merge(children[key], child) if key in children else child
    return branch(children, high)


def grown(value: Any, at: Position) -> Node:
    """A tree of plain data that nobody wrote, all of it at one place."""
    leaf = Node(None, at)
    if isinstance(value, dict):
        return branch({str(key): replace(grown(child, at), key_at=at) for key, child in value.items()}, leaf)
    if isinstance(value, list):
        return branch([grown(child, at) for child in value], leaf)
    return replace(leaf, value=value)


def field_path(path: FieldPath) -> str:
    """`("models", "a", "quantizations", 0)` -> `models.a.quantizations[0]`, as `--set` understands it."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if _PLAIN_NAME.fullmatch(step) else json.dumps(shorten(step)))
    return text
