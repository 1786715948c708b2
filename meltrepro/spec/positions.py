"""YAML as plain data, with the position of every key and value.

A stricter YAML than the usual one, because a manifest is untrusted and a wrong guess costs hours: duplicate keys are
refused, dates and yes/no stay the strings that were written, tags are refused, aliases may not multiply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from meltrepro.errors import ManifestError, Problem

Path_ = tuple[str | int, ...]
"""Path of a field: names and list indices from the top."""
_MAX_BYTES = 8 << 20
_MAX_NODES = 2_000_000
_SCALARS = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:null": lambda _: None,
}


@dataclass(frozen=True)
class Position:
    """A place in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """Plain data and where each part of it was written."""

    data: Any
    keys: Mapping[Path_, Position]
    """Where the key (or the list item) of a path begins."""
    values: Mapping[Path_, Position]
    """Where its value begins."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the resolvers that surprise people taken out."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_file(path: Path) -> Document:
    """Read one file; raises `ManifestError` with every fault that can be told at this stage."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise _fault(str(path), "the file does not exist") from None
    except OSError as error:
        raise _fault(str(path), f"cannot be read: {error.strerror}") from error
    if len(raw) > _MAX_BYTES:
        raise _fault(str(path), f"{len(raw)} bytes are more than a manifest may have ({_MAX_BYTES})")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _fault(str(path), "not UTF-8 text", line=line) from error
    return read_text(text, str(path))


def read_text(text: str, name: str) -> Document:
    """Read a text; `name` stands for the file in messages."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(filter(None, (error.context, error.problem))) or "not YAML"
        raise _fault(name, f"not YAML: {message}", mark=mark) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _fault(name, f"not YAML: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error
    builder = _Builder(name)
    data = builder.build(node, ()) if node is not None else None
    if builder.problems:
        raise ManifestError(builder.problems)
    return Document(data, builder.keys, builder.values)


class _Builder:
    """Turns composed nodes into plain data."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._count = 0
        self._open: list[yaml.Node] = []
        self.keys: dict[Path_, Position] = {}
        self.values: dict[Path_, Position] = {}
        self.problems: list[Problem] = []

    def build(self, node: yaml.Node, path: Path_) -> Any:
        self._count += 1
        if self._count > _MAX_NODES or any(node is parent for parent in self._open) or len(self._open) > 100:
            if self._count <= _MAX_NODES + 1:
                self._problem(node, path, "too deep, too large or an alias of itself")
            self._count = max(self._count, _MAX_NODES + 2)
            return None
        self.values[path] = self._position(node)
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                items = []
                for i, item in enumerate(node.value):
                    self.keys[(*path, i)] = self._position(item)
                    items.append(self.build(item, (*path, i)))
                return items
            return self._scalar(node, path)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, path, "a key must be plain text")
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in result:
                first = self.keys[here]
                self._problem(key_node, here, f"duplicate key {key!r}; it was first given in line {first.line}")
                continue
            self.keys[here] = self._position(key_node)
            result[key] = self.build(value_node, here)
        return result

    def _scalar(self, node: yaml.Node, path: Path_) -> Any:
        text = str(node.value)
        if isinstance(node, yaml.ScalarNode) and node.style is None and text in ("true", "false"):
            return text == "true"
        convert = _SCALARS.get(node.tag)
        if convert is None or not isinstance(node, yaml.ScalarNode):
            self._problem(node, path, f"the tag {node.tag!r} is not allowed here")
            return None
        if convert is int:
            return _whole(text)
        if convert is float:
            try:
                return float(text.replace("_", "").replace(".inf", "inf").replace(".Inf", "inf").replace(".nan", "nan"))
            except ValueError:
                return text
        return convert(text)

    def _position(self, node: yaml.Node) -> Position:
        return Position(self._file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _problem(self, node: yaml.Node, path: Path_, message: str) -> None:
        at = self._position(node)
        self.problems.append(Problem(at.file, at.line, at.column, field_path(path), message))


def _whole(text: str) -> int | str:
    """YAML 1.1 reads 010 as eight and 1:30 as ninety; we take decimal numbers and 0x, and leave the rest as text."""
    plain = text.replace("_", "")
    try:
        return int(plain, 16) if plain.lower().lstrip("+-").startswith("0x") else int(plain, 10)
    except ValueError:
        return text


def field_path(path: Path_) -> str:
    """`("models", "a", "quantizations", 0)` -> `models.a.quantizations[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def _fault(file: str, message: str, *, line: int = 1, mark: Any = None) -> ManifestError:
    column = 1
    if mark is not None:
        line, column = mark.line + 1, mark.column + 1
    return ManifestError([Problem(file, line, column, "", message)])
