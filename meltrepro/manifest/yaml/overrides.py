"""Overrides from the command line: `--set models.smollm2-135m.quantizations=[q4_0]`.

A path is made of names, dots and list indices. Names may hold dots themselves: the longest run of parts that is a key
of the manifest is taken as one name, and quotes settle any doubt (`frameworks."llama.cpp".release`). The value is YAML
and replaces what stands there as a whole. Relative file names count from the manifest's folder, as all others do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.yaml.positions import read_text
from meltrepro.manifest.yaml.shape import Shape, place_of
from meltrepro.manifest.yaml.suggest import likeness, nearest, suggest
from meltrepro.manifest.yaml.tree import FieldPath, Node, Position, field_path, grown
from meltrepro.words import shorten

_STEP = re.compile(r'"(?P<quoted>[^"]*)"|\[(?P<index>[0-9]{1,6})\]|(?P<plain>[^.\[\]"=]+)')
_EXAMPLE = "expected PATH=VALUE, for example models.smollm2-135m.quantizations=[q4_0]"


def apply(root: Node, overrides: Sequence[str], problems: list[Problem]) -> Node:
    """The manifest with every override in place, in order; the ones that are wrong are added to `problems`."""
    for override in overrides:
        try:
            root = _apply(root, override, problems)
        except _RefusedError as refusal:
            problems.append(refusal.problem)
    return root


def place(root: Node, override: str, option: str) -> tuple[FieldPath, Node]:
    """Where an override that an option of the command line gives belongs, and its value; raises `ManifestError`."""
    origin, problems = Position(f"{option} {shorten(override, 100)}"), list[Problem]()
    try:
        walk = _walk(root, override, origin, problems)
        if walk is not None:
            walk.changed()
            return walk.path, walk.value
    except _RefusedError as refusal:
        problems.append(refusal.problem)
    raise ManifestError(problems)


class _RefusedError(Exception):
    def __init__(self, at: Position, message: str, suggestion: str | None = None, path: FieldPath = ()) -> None:
        super().__init__(message)
        self.problem = at.problem(path, message, suggestion)


@dataclass(frozen=True)
class _Step:
    """One part of a path as it was typed."""

    value: str | int
    at: Position
    quoted: bool = False


def _apply(root: Node, override: str, problems: list[Problem]) -> Node:
    walk = _walk(root, override, Position(f"--set {shorten(override, 100)}"), problems)
    return root if walk is None else walk.changed()


def _walk(root: Node, override: str, origin: Position, problems: list[Problem]) -> _Walk | None:
    """The way to where an override belongs; `None` where its value is wrong, which is then a problem."""
    steps, end = _scan(override, origin)
    wrong: list[Problem] = []
    value = read_text(override[end + 1 :], replace(origin, column=end + 2), wrong)
    if wrong:
        above = override[:end]
        problems += [replace(problem, field=f"{above}.{problem.field}".rstrip(".")) for problem in wrong]
        return None
    if value is None:
        value = Node(None, replace(origin, column=end + 2), text="")
    if not isinstance(root.value, dict):
        raise _RefusedError(origin, "the manifest is not a mapping; nothing in it can be set")
    return _Walk(root, value, steps)


def _scan(override: str, origin: Position) -> tuple[list[_Step], int]:
    """The parts of the path, and where its `=` stands."""
    steps: list[_Step] = []
    position, named = 0, True
    while True:
        at = replace(origin, column=position + 1)
        match = _STEP.match(override, position)
        if match is None or (named and match["index"] is not None):
            what = "expected a name" if steps else _EXAMPLE
            raise _RefusedError(at, what)
        quoted = match["quoted"] is not None
        value = int(match["index"]) if match["index"] is not None else match["quoted"] or match["plain"] or ""
        steps.append(_Step(value, at, quoted))
        position = match.end()
        following = override[position : position + 1]
        if following == "=":
            return steps, position
        if following not in (".", "["):
            raise _RefusedError(
                replace(origin, column=position + 1), _EXAMPLE if not following else "expected '.', '[' or '='"
            )
        named = following == "."
        position += named


class _Walk:
    """Follows a path down into the manifest."""

    def __init__(self, root: Node, value: Node, steps: list[_Step]) -> None:
        self._root = root
        self.value = value
        self._steps = steps
        self.path: FieldPath = ()
        self._node: Node | None = root
        self._shape = Shape.of(Manifest)

    def changed(self) -> Node:
        left = self._steps
        while left:
            taken = self._index(left[0]) if isinstance(left[0].value, int) else self._name(left)
            left = left[taken:]
        return self._root.put({self.path: replace(self.value, key_at=self._steps[-1].at)})

    def _index(self, step: _Step) -> int:
        assert isinstance(step.value, int)
        items = self._node.value if self._node is not None else None
        if not isinstance(items, list):
            raise _RefusedError(step.at, f"{field_path(self.path)} is not a list", None, self.path)
        if step.value >= len(items):
            most = f"it has {len(items)}, counted from 0"
            raise _RefusedError(step.at, f"there is no item [{step.value}]", most, self.path)
        self._descend(step.value, None)
        return 1

    def _name(self, left: list[_Step]) -> int:
        if self._node is not None and not isinstance(self._node.value, dict | None):
            hint = "give the index of an item, for example [0]" if isinstance(self._node.value, list) else None
            raise _RefusedError(left[0].at, f"{field_path(self.path)} is not a mapping", hint, self.path)
        runs = _runs(left)
        known = self._known()
        for name, taken in runs:
            if name in known:
                self._descend(name, left[0].at)
                return taken
        longest, taken = runs[0]
        if self._shape.keys is None and taken == len(left) and isinstance(self.value.value, dict):
            self._descend(longest, left[0].at)  # a new entry, under a name of the user's own
            return taken
        probable = _most_probable([name for name, _ in runs], known)
        if self.path == () and longest == "include":
            raise _RefusedError(left[0].at, "include cannot be set from the command line")
        raise _RefusedError(
            left[0].at,
            f"unknown key {probable!r}",
            place_of(probable, Manifest) or suggest(probable, known),
            self.path,
        )

    def _known(self) -> Collection[str]:
        """Keys that there are, and keys that there might be."""
        written = self._node.value if self._node is not None and isinstance(self._node.value, dict) else {}
        allowed = set(self._shape.keys or ()) - ({"include"} if not self.path else set())
        return {**dict.fromkeys(written), **dict.fromkeys(sorted(allowed))}

    def _descend(self, step: str | int, at: Position | None) -> None:
        inner = self._node.child(step) if self._node is not None else None
        implied = self._shape.implied(step) if inner is None and isinstance(step, str) else None
        self.path = (*self.path, step)
        if implied is not None and at is not None:
            inner = replace(grown(implied, at), key_at=at)
            self._root = self._root.put({self.path: inner})
        self._node, self._shape = inner, self._shape.child(step)


def _runs(left: list[_Step]) -> list[tuple[str, int]]:
    """Names that the next steps may stand for, the longest first, and how many steps each takes."""
    first = left[0]
    if first.quoted:
        return [(str(first.value), 1)]
    length = next((i for i, step in enumerate(left) if step.quoted or isinstance(step.value, int)), len(left))
    return [(".".join(str(step.value) for step in left[:n]), n) for n in range(length, 0, -1)]


def _most_probable(names: list[str], known: Collection[str]) -> str:
    """The name that is nearest to a known one; the shortest where none is near."""
    near = [(likeness(name, hit), name) for name in names if (hit := nearest(name, known))]
    return max(near)[1] if near else names[-1]
