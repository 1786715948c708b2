"""`include`: other manifests merged in below the one that names them, each value keeping the place it came from.

Relative file names in an included manifest count from that manifest's own folder; they are rewritten to count from the
including one, so that a merged manifest means the same as its parts.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

from meltrepro.errors import Problem
from meltrepro.manifest.lengths import lengths_in
from meltrepro.manifest.prompts import MELT
from meltrepro.manifest.sources import source_kind
from meltrepro.manifest.yaml.positions import read_file
from meltrepro.manifest.yaml.tree import FieldPath, Node, Position, merge
from meltrepro.registry import FRAMEWORKS
from meltrepro.words import shorten

KEY = "include"
MAX_DEPTH = 16
MAX_FILES = 256


def read_manifest(path: Path, problems: list[Problem]) -> Node | None:
    """A manifest with everything that it includes; what is wrong is added to `problems`."""
    label = str(path)
    return _Reader(problems).read(path, label, Position(label), (), ())


class _Reader:
    """Reads each file once, however often it is included."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._done: dict[str, Node | None] = {}

    def read(
        self, path: Path, label: str, named_at: Position, field: FieldPath, above: tuple[Path, ...]
    ) -> Node | None:
        """The file with its includes; `above` are the files that led here, outermost first."""
        identity = os.path.realpath(path)
        if identity in self._done:
            return self._done[identity]
        identities = [os.path.realpath(other) for other in above]
        if identity in identities:
            circle = [*above[identities.index(identity) :], path]
            names = " -> ".join(shorten(other.name) for other in circle)
            self._problems.append(named_at.problem(field, f"files include each other: {names}"))
            return None
        if len(above) > MAX_DEPTH or len(self._done) > MAX_FILES:
            most = f"{MAX_DEPTH} levels" if len(above) > MAX_DEPTH else f"{MAX_FILES} files"
            self._problems.append(named_at.problem(field, f"more than {most} of included files"))
            return None
        own = read_file(path, label, named_at, field, self._problems)
        self._done[identity] = merged = None if own is None else self._with_included(own, path, label, above)
        return merged

    def _with_included(self, own: Node, path: Path, label: str, above: tuple[Path, ...]) -> Node:
        names = own.child(KEY)
        if not isinstance(own.value, dict):
            if above:
                self._problems.append(own.at.problem((), "an included file must be a mapping"))
            return own
        if names is None:
            return own
        own = own.without(KEY)
        if not isinstance(names.value, list):
            self._problems.append(names.at.problem((KEY,), "expected a list of files", f"write {KEY}: [base.yaml]"))
            return own
        below: Node | None = None
        for i, entry in enumerate(names.value):
            name, field = entry.value, (KEY, i)
            if not isinstance(name, str) or not name or "\0" in name:
                self._problems.append(entry.at.problem(field, "expected the name of a file"))
            elif PurePosixPath(name).is_absolute():
                message = "expected a file name relative to this file; an absolute one holds on one machine only"
                self._problems.append(entry.at.problem(field, message))
            else:
                shown = os.path.normpath(Path(label).parent / name)
                included = self.read(path.parent / name, shown, entry.at, field, (*above, path))
                if included is not None:
                    moved = _moved(included, PurePosixPath(name).parent)
                    below = moved if below is None else _merge(below, moved)
        return own if below is None else _merge(below, own)


def _merge(low: Node, high: Node) -> Node:
    """Two manifests as one. A source of another kind replaces the one below as a whole, as any chat template does."""
    replaced: dict[FieldPath, Node] = {}
    for path, node in _sources(high):
        other = low.find(path)
        kinds = {source_kind(source.value) for source in (node, other) if source is not None} - {None}
        if len(kinds) == 2:
            replaced[path] = node
    replaced |= dict(_templates(high))
    return merge(low.put(replaced), high)


def _moved(manifest: Node, folder: PurePosixPath) -> Node:
    """An included manifest whose file names count from one folder up, `folder` being the way down."""
    moved: dict[FieldPath, Node] = {}
    for path, node in _file_names(manifest):
        name = node.text or node.value
        if isinstance(name, str) and name and not PurePosixPath(name).is_absolute():
            moved[path] = replace(node, value=os.path.normpath(folder / name), text=None)
    return manifest.put(moved)


def _file_names(manifest: Node) -> list[tuple[FieldPath, Node]]:
    """Every relative file name that a manifest holds."""
    found: list[tuple[FieldPath, Node]] = []
    for name, workload in _entries(manifest, "workloads"):
        conversations = workload.child("conversations")
        if (
            conversations is not None
            and conversations.value != MELT
            and lengths_in(conversations.value) is None
            and not isinstance(conversations.value, dict | list)
        ):
            found.append((("workloads", name, "conversations"), conversations))
    for path, source in _sources(manifest):
        file = source.child("file")
        if file is not None and source_kind(source.value) == "file" and not isinstance(file.value, dict | list):
            found.append(((*path, "file"), file))
        folder = source.child("folder")
        if folder is not None and not isinstance(folder.value, dict | list):
            found.append(((*path, "folder"), folder))
        config = source.find(("synthetic", "config"))
        if config is not None and not isinstance(config.value, dict | list):
            found.append(((*path, "synthetic", "config"), config))
    for path, template in _templates(manifest):
        file = template.child("file")
        if file is not None and not isinstance(file.value, dict | list):
            found.append(((*path, "file"), file))
    for name, framework in _entries(manifest, "frameworks"):
        kind = framework.child("kind")
        kind_name = kind.value if kind is not None and isinstance(kind.value, str) else name
        for place in FRAMEWORKS.get(kind_name).files if FRAMEWORKS.has(kind_name) else ():
            for root in ("options", "build"):  # the second in files of version 0.1
                file = framework.find((root, *place))
                if file is not None and isinstance(file.value, str) and "://" not in file.value:
                    found.append((("frameworks", name, root, *place), file))
    for name, target in _entries(manifest, "targets"):
        meter = target.child("meter")
        file = meter.child("file") if meter is not None else None
        if file is not None and not isinstance(file.value, dict | list):
            found.append((("targets", name, "meter", "file"), file))
    return found


def _sources(manifest: Node) -> list[tuple[FieldPath, Node]]:
    return [
        ((section, name, key), source)
        for section, key in (
            ("models", "source"),
            ("frameworks", "source"),
            ("workloads", "data"),
            ("workloads", "text"),
        )
        for name, entry in _entries(manifest, section)
        if (source := entry.child(key)) is not None
    ]


def _templates(manifest: Node) -> list[tuple[FieldPath, Node]]:
    return [
        (("models", name, "chat_template"), template)
        for name, model in _entries(manifest, "models")
        if (template := model.child("chat_template")) is not None
    ]


def _entries(manifest: Node, section: str) -> list[tuple[str, Node]]:
    node = manifest.child(section)
    return list(node.value.items()) if node is not None and isinstance(node.value, dict) else []
