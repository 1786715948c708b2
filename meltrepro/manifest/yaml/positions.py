"""YAML -> tree of positioned values.

A stricter and plainer YAML than the usual one, because a manifest is untrusted and a wrong guess costs hours: duplicate
keys and tags are refused, aliases may not multiply, and only `true`, `false`, `null`, decimal whole numbers and decimal
fractions are anything but text. So `off`, `2024-02-27`, `1:30`, `0x10` and `010` are the texts that were written.

The tree is built from the parser's events, not by a composer, so that depth and size are bounded before they hurt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import yaml

from meltrepro.errors import Problem
from meltrepro.manifest.yaml.suggest import nearest
from meltrepro.manifest.yaml.tree import FieldPath, Node, Position, Scalar, branch
from meltrepro.untrusted import MOST_FLOAT, open_regular
from meltrepro.words import shorten

if TYPE_CHECKING:
    from yaml._yaml import Mark as CMark

LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_BYTES = 8 << 20
MAX_VALUES = 200_000
MAX_DEPTH = 64

_NOT_TEXT = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_OCTAL_LOOK = re.compile(r"[-+]?0[0-9]")
_NO_TEXT = "name a text in YAML; of a model's file or folder `meltrepro run` makes one"
_YAML = (".yaml", ".yml")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read_file(path: Path, label: str, named_at: Position, field: FieldPath, problems: list[Problem]) -> Node | None:
    """Read a file; `label` stands for it in messages. A file that cannot be read is a problem at `named_at`."""
    try:
        with open_regular(path) as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        problems.append(named_at.problem(field, *_unreadable(path, label, error)))
        return None
    return read_content(raw, label, problems)


def read_content(raw: bytes, label: str, problems: list[Problem]) -> Node | None:
    """Read the content of a file that `label` stands for; `None` where nothing can be made of it."""
    if len(raw) > MAX_BYTES:
        problems.append(Position(label).problem((), f"the file is larger than {MAX_BYTES >> 20} MiB", _NO_TEXT))
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = raw[: error.start].decode("utf-8", "replace")
        message = f"the byte 0x{raw[error.start]:02x} is not UTF-8 text"
        problems.append(
            _position(Position(label), good).problem(
                (), message, _NO_TEXT if b"\0" in raw else "save the file as UTF-8"
            )
        )
        return None
    before = len(problems)
    node = read_text(text, Position(label), problems)
    if node is None and len(problems) == before:
        problems.append(Position(label).problem((), "the file is empty"))
    return node


def read_text(text: str, origin: Position, problems: list[Problem]) -> Node | None:
    """Read a text that begins at `origin`; `None` where it says nothing or is so wrong that nothing can be kept."""
    bad = _NOT_TEXT.search(text)
    if bad is not None:
        at = _position(origin, text[: bad.start()])
        problems.append(at.problem((), f"the character U+{ord(bad[0]):04X} is not allowed in a text file"))
        return None
    builder = _Builder(text, origin, problems)
    try:
        return builder.document()
    except _Stop:
        return None
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax(error, text, builder))
        return None
    except yaml.YAMLError as error:
        problems.append(origin.problem((), f"not valid YAML: {shorten(' '.join(str(error).split()), 200)}"))
        return None


class _Stop(Exception):
    """Nothing can be made of the rest; the problem is noted already."""


class _Builder:
    """One pass over the events of a text."""

    def __init__(self, text: str, origin: Position, problems: list[Problem]) -> None:
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=LOADER))
        self.origin = origin
        self._problems = problems
        self._anchors: dict[str, Node | None] = {}
        self._count = 0

    def document(self) -> Node | None:
        """The only document of the text; `None` where it says nothing."""
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._stop(event, (), "a second document begins here; expected one")
                root = self._node(next(self._events), (), 1)
        return None if root is not None and root.value is None and root.text == "" else root

    def _node(self, event: yaml.Event, path: FieldPath, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._bounded(self._aliased(event, path), event, path, depth)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.tag is not None:
            tag = shorten(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self._note(event, path, f"the tag {tag} is not allowed", "leave it out; quote what must be text")
        self._count += 1
        if self._count > MAX_VALUES:  # before memory is spent on them, where `size` counts what aliases make of them
            self._stop(event, path, f"more than {MAX_VALUES} values")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
        else:
            self._bounded(Node(None, self.at(event)), event, path, depth)  # before the descent, not after it
            mapping = isinstance(event, yaml.MappingStartEvent)
            children = self._mapping(path, depth + 1) if mapping else self._list(path, depth + 1)
            node = branch(children, Node(None, self.at(event)))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return self._bounded(node, event, path, depth)

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        text = self._text(event)
        plain = event.implicit[0]
        return Node(_resolve(text), self.at(event), text=text) if plain else Node(text, self.at(event))

    def _text(self, event: yaml.ScalarEvent) -> str:
        if any("\ud800" <= character <= "\udfff" for character in event.value):
            self._stop(event, (), "half of a surrogate pair is not a character")
        return event.value

    def _mapping(self, path: FieldPath, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        inherited: list[dict[str, Node]] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._note(event, path, "expected a key, which must be plain text")
                self._node(event, path, depth)
                self._node(next(self._events), path, depth)
                continue
            key_node = self._node(event, path, depth)
            key, below = self._text(event), (*path, self._text(event))
            node = replace(self._node(next(self._events), below, depth), key_at=key_node.at)
            if key == "<<" and event.implicit[0]:
                inherited += self._inherited(node, below)
            elif key in children:
                first = children[key].key_at
                line = f"first written in line {first.line}" if first and first.line != key_node.at.line else None
                self._problems.append(key_node.at.problem(below, f"duplicate key {shorten(key)!r}", line))
            else:
                children[key] = node
        for mapping in inherited:
            children = {**mapping, **children}
        return children

    def _inherited(self, node: Node, path: FieldPath) -> list[dict[str, Node]]:
        """What `<<` merges into a mapping, the strongest first."""
        nodes = node.value if isinstance(node.value, list) else [node]
        mappings = [mapping.value for mapping in nodes if isinstance(mapping.value, dict)]
        if len(mappings) < len(nodes):
            self._problems.append(node.at.problem(path, "expected a mapping or a list of mappings to merge"))
        return mappings

    def _list(self, path: FieldPath, depth: int) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), depth))
        return items

    def _aliased(self, event: yaml.AliasEvent, path: FieldPath) -> Node:
        name = event.anchor or ""
        if name not in self._anchors:
            self._stop(event, path, f"*{shorten(name)} has no anchor above it")
        node = self._anchors[name]
        if node is None:
            self._stop(event, path, f"*{shorten(name)} contains itself")
        return node

    def _bounded(self, node: Node, event: yaml.Event, path: FieldPath, depth: int) -> Node:
        if node.size > MAX_VALUES:
            self._stop(event, path[:MAX_DEPTH], f"more than {MAX_VALUES} values")
        if node.height + depth - 1 > MAX_DEPTH:
            self._stop(event, path[:3], f"nested deeper than {MAX_DEPTH} levels")
        return node

    def _note(self, event: yaml.Event, path: FieldPath, message: str, suggestion: str | None = None) -> None:
        self._problems.append(self.at(event).problem(path, message, suggestion))

    def _stop(self, event: yaml.Event, path: FieldPath, message: str) -> NoReturn:
        self._note(event, path, message)
        raise _Stop

    def at(self, event: yaml.Event) -> Position:
        return self.position(event.start_mark)

    def position(self, mark: yaml.Mark | CMark | None) -> Position:
        if mark is None:
            return self.origin
        column = mark.column + (self.origin.column if mark.line == 0 else 1)
        return Position(self.origin.file, self.origin.line + mark.line, column)


def _resolve(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not _OCTAL_LOOK.match(text):
        number = float(text)
        return number if abs(number) <= MOST_FLOAT else text
    return text


def _syntax(error: yaml.MarkedYAMLError, text: str, builder: _Builder) -> Problem:
    """What the parser says, in words that help; its own where there are none better."""
    mark = error.problem_mark or error.context_mark
    lines = text.split("\n")
    if mark is None or mark.line >= len(lines):  # the parser ends a last line that the text leaves open
        at, character = _position(builder.origin, text), ""
    else:
        at, character = builder.position(mark), lines[mark.line][mark.column : mark.column + 1]
    said = error.problem or error.context or "nothing can be made of it"
    if character == "\t":
        return at.problem((), "a tab cannot indent", "use spaces")
    if "cannot start any token" in said:
        return at.problem((), f"a text cannot begin with {character!r}", "put it in quotes")
    if "mapping values are not allowed" in said:
        return at.problem((), "a ':' cannot stand here", "check the indentation, or put the text in quotes")
    context = error.context or ""
    began = builder.position(error.context_mark).line if error.context_mark else at.line
    if context and began != at.line:
        context += f" that begins in line {began}"
    return at.problem((), f"not valid YAML: {said} {context}".rstrip())


def _unreadable(path: Path, label: str, error: Exception) -> tuple[str, str | None]:
    """Why a file cannot be read, and what to do about it."""
    shown = shorten(label, 200)
    if isinstance(error, FileNotFoundError):
        return f"the file {shown} does not exist", _like(path)
    if isinstance(error, IsADirectoryError):
        return f"{shown} is a folder; expected a file", None
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"the file {shown} cannot be read: {reason}", None


def _like(path: Path) -> str | None:
    """A file in the same folder whose name is nearly the same: of YAML where that was to be read, else of anything else."""
    ours = path.suffix in ("", *_YAML)
    try:
        beside = {other.stem: other.name for other in path.parent.iterdir() if (other.suffix in _YAML) == ours}
    except (OSError, ValueError):
        return None
    hit = nearest(path.stem, beside)
    return None if hit is None else f"did you mean {beside[hit]!r}?"


def _position(origin: Position, before: str) -> Position:
    """Where a text ends that begins at `origin`."""
    lines = before.count("\n")
    column = len(before) - before.rfind("\n") - 1
    return Position(origin.file, origin.line + lines, column + (1 if lines else origin.column))
