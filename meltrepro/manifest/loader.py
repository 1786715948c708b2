"""A manifest file becomes a `Manifest`, or one `ManifestError` that names every problem and where it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from meltrepro.atomic import reason_of
from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.configs import MOST_BYTES, STAND_IN, read_config
from meltrepro.manifest.lengths import lengths_in
from meltrepro.manifest.prompts import MELT, Conversations, read_conversations, shortage
from meltrepro.manifest.schema import Manifest, Workload
from meltrepro.manifest.sources import WRITTEN
from meltrepro.manifest.upgrade import upgraded, warning
from meltrepro.manifest.versions import by_release
from meltrepro.manifest.windows import by_length
from meltrepro.manifest.yaml import overrides as overrides_module
from meltrepro.manifest.yaml.includes import read_manifest
from meltrepro.manifest.yaml.positions import read_content
from meltrepro.manifest.yaml.suggest import suggest
from meltrepro.manifest.yaml.tree import FieldPath, Node, Position
from meltrepro.manifest.yaml.validation import validate
from meltrepro.registry import STUDIES
from meltrepro.untrusted import open_regular
from meltrepro.words import shorten

_OTHER_FILES = {"lock": "a lock", "conversations": "a prompt file"}


@dataclass(frozen=True)
class LoadedManifest:
    """A manifest and where each part of it was written."""

    manifest: Manifest
    path: Path
    """The file, absolute."""
    tree: Node
    """What was written, after includes and overrides."""
    warnings: tuple[str, ...] = ()
    """What was read all the same, and should be written otherwise."""

    @cached_property
    def keys(self) -> Mapping[FieldPath, Position]:
        """Where each key stands; for an item of a list, where it begins."""
        return {path: node.key_at or node.at for path, node in self.tree.walk()}


def parse_manifest(content: bytes, label: str = "manifest.yaml") -> Manifest:
    """The manifest in a file that stands for itself, as records and bundles hold one; raises `ManifestError`."""
    problems: list[Problem] = []
    tree = read_content(content, label, problems)
    if tree is not None:
        tree, _ = upgraded(tree)
    manifest = validate(Manifest, tree, problems) if tree is not None else None
    if manifest is None or problems:
        raise ManifestError(_in_order(problems) or [Position(label).problem((), "there is no manifest in it")])
    return manifest


def load_manifest(path: Path, overrides: Sequence[str] = ()) -> LoadedManifest:
    """Read, merge, override and validate; raises `ManifestError` with all problems at once."""
    problems: list[Problem] = []
    tree = read_manifest(path, problems)
    if tree is None:
        raise ManifestError(problems)
    _refuse_others(tree)
    tree, moved = upgraded(tree)
    tree = overrides_module.apply(tree, overrides, problems)
    tree = by_release(by_length(_with_shapes(tree, path, problems), problems), problems)
    manifest = validate(Manifest, tree, problems, {WRITTEN: True})
    _check_prompts(tree, manifest, path, problems)
    _check_study(tree, problems)
    if problems or manifest is None:
        raise ManifestError(_in_order(problems))
    return LoadedManifest(manifest, path.absolute(), tree, tuple(map(warning, moved)))


def problem_at(
    loaded: LoadedManifest,
    path: FieldPath,
    message: str,
    suggestion: str | None = None,
    *,
    value: str | None = None,
    known: Collection[str] = (),
) -> Problem:
    """A problem at the place of a field, or of the nearest field around it that was written.

    Without a suggestion, the one among the `known` names that is nearest to `value` is suggested, or all of them.
    """
    if suggestion is None and value is not None:
        suggestion = suggest(value, known)
    return loaded.tree.nearest(path).where.problem(path, message, suggestion)


def _refuse_others(tree: Node) -> None:
    """Raise `ManifestError` for the files that lie beside manifests and are given in their place."""
    keys = tree.value if isinstance(tree.value, dict) else {}
    for key, what in _OTHER_FILES.items():
        if key in keys and "meltrepro" not in keys:
            raise ManifestError([tree.at.problem((), f"this is {what}, not a manifest", "give the manifest itself")])


def _with_shapes(tree: Node, path: Path, problems: list[Problem]) -> Node:
    """The same with what each `config.json` says of the shape of synthetic weights, so that records need no file."""
    models = tree.child("models")
    found: dict[FieldPath, Node] = {}
    for name in models.value if models is not None and isinstance(models.value, dict) else ():
        field: FieldPath = ("models", name, "source", "synthetic")
        whole = tree.find(field)
        node = whole.child("config") if whole is not None else None
        if whole is None or node is None or whole.child("shape") is not None:  # as records have it
            continue
        if not isinstance(node.text or node.value, str):  # said by the validation
            continue
        written = str(node.text or node.value)
        try:
            with open_regular(path.parent / Path(written).expanduser()) as file:
                shape = read_config(file.read(MOST_BYTES + 1))
        except OSError as error:
            message = f"expected a config.json: {written}: {reason_of(error)}"
            problems.append(node.at.problem((*field, "config"), message))
            shape = STAND_IN
        except (ValueError, RuntimeError) as error:
            problems.append(node.at.problem((*field, "config"), f"{written}: {error}"))
            shape = STAND_IN
        values = {key: value for key, value in asdict(shape).items() if value is not None}
        found[field] = _grown(whole, "shape", values)
    return tree.put(found) if found else tree


def _grown(mapping: Node, key: str, value: object) -> Node:
    assert isinstance(mapping.value, dict)
    return replace(mapping, value={**mapping.value, key: _node(value, mapping.at)})


def _node(value: Any, at: Position) -> Node:
    match value:
        case dict():
            return Node({key: _node(each, at) for key, each in value.items()}, at)
        case list() | tuple():
            return Node([_node(each, at) for each in value], at)
    return Node(value, at)


def _check_study(tree: Node, problems: list[Problem]) -> None:
    """A record may name a study that is not installed here; who writes a manifest should know it."""
    node = tree.child("study")
    name = node.value if node is not None else None
    if node is not None and isinstance(name, str) and not STUDIES.has(name):
        known = STUDIES.kinds()
        problems.append(node.at.problem(("study",), f"there is no study {shorten(name)!r}", suggest(name, known)))


def _check_prompts(tree: Node, manifest: Manifest | None, path: Path, problems: list[Problem]) -> None:
    """Read the prompt files that a manifest names, also where other parts of it are wrong."""
    section = tree.child("workloads")
    entries = section.value.items() if section is not None and isinstance(section.value, dict) else ()
    files: dict[str, Conversations | None] = {}
    for name, node in entries:
        workload = manifest.workloads[name] if manifest is not None else None
        conversations = _conversations(node, ("workloads", name, "conversations"), path, files, problems)
        if isinstance(workload, Workload) and conversations is not None:
            _check_counts(workload, conversations, node, ("workloads", name), problems)


def _conversations(
    workload: Node, field: FieldPath, path: Path, files: dict[str, Conversations | None], problems: list[Problem]
) -> Conversations | None:
    node = workload.child("conversations")
    written = None if node is None else node.text or node.value
    if node is None or written == MELT or lengths_in(written) or not isinstance(written, str | list):
        return None
    if isinstance(written, list):
        whole = all(isinstance(item.value, list) and item.value for item in written)
        return tuple(tuple(item.plain()) for item in written) if whole and written else None
    if written not in files:
        label = str(path.parent / written)
        files[written] = read_conversations(path.parent / written, label, node.at, field, problems)
    return files[written]


def _check_counts(
    workload: Workload, conversations: Conversations, node: Node, field: FieldPath, problems: list[Problem]
) -> None:
    for key, message in shortage(workload, conversations):
        problems.append(node.nearest((key,)).where.problem((*field, key), message))


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Without repetitions, file by file as they came up, in each from the top down."""
    files = list(dict.fromkeys(problem.file for problem in problems))
    return sorted(
        dict.fromkeys(problems), key=lambda problem: (files.index(problem.file), problem.line, problem.column)
    )
