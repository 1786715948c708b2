"""A tree of positioned values -> a model, or every problem with it, each at its place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from meltrepro.errors import Problem
from meltrepro.manifest.yaml.messages import TYPES, describe, explain
from meltrepro.manifest.yaml.shape import Shape, place_of
from meltrepro.manifest.yaml.suggest import nearest
from meltrepro.manifest.yaml.tree import FieldPath, Node
from meltrepro.words import counted

M = TypeVar("M", bound=BaseModel)
MOST = 200
"""Problems that are explained one by one."""


def validate(
    model: type[M], root: Node, problems: list[Problem], context: Mapping[str, object] | None = None
) -> M | None:
    """The model that a tree describes; `None` where it does not, with the reasons added to `problems`.

    Types are taken strictly, as JSON Schema takes them, so that an editor and this toolkit agree. The one exception is
    text that YAML takes for something else (`version: 1.10`, a commit id of digits alone): where text is expected, it
    is read as it was written.
    """
    errors: list[ErrorDetails] = []
    for _ in range(2):
        try:
            return model.model_validate_json(json.dumps(root.plain()), strict=True, context=context)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        amended = _as_written(root, (_locate(error, model, root) for error in errors if error["type"] == "string_type"))
        if amended is root:
            break
        root = amended
    problems += _problems([_locate(error, model, root) for error in errors])
    return None


@dataclass(frozen=True)
class _Finding:
    """One of Pydantic's errors, placed in the tree."""

    kind: str
    context: dict[str, object]
    model: type[BaseModel]
    """Of the whole file."""
    root: Node
    path: FieldPath
    """Of the value, or of the key that is too many or missing."""
    shape: Shape
    """Of the value, or of the mapping around such a key."""
    union: FieldPath | None = None
    """Where the innermost union without tags stands that this is below of."""
    label: str = ""
    """Which of the union's branches was tried."""
    of_key: bool = False

    def problem(self) -> Problem:
        key = str(self.path[-1]) if self.path else ""
        node = self.root.find(self.path)
        if self.kind == "missing":
            at, field = self.root.nearest(self.path[:-1]).where, self.path[:-1]
        elif self.kind == "extra_forbidden":
            at, field = (node and node.key_at) or self.root.nearest(self.path).where, self.path[:-1]
        elif self.of_key:
            at, field = (node and node.key_at) or self.root.nearest(self.path).where, self.path[:-1]
            node = Node(key, at)
        else:
            at, field = self.root.nearest(self.path).where, self.path
        message, suggestion = explain(self.kind, self.context, node, key, self.shape)
        if self.kind == "extra_forbidden":
            suggestion = place_of(key, self.model, self.path[:-1]) or suggestion
        return at.problem(field, message, suggestion)


def _locate(error: ErrorDetails, model: type[BaseModel], root: Node) -> _Finding:
    """Where an error is: Pydantic's location without the tags and labels of unions, which no file has."""
    shape = around = Shape.of(model)
    path: FieldPath = ()
    union: FieldPath | None = None
    label, of_key = "", False
    location = list(error["loc"])
    while location:
        step = location.pop(0)
        if step == "[key]" and not location:
            of_key = True
        elif str(step) in shape.tags:
            shape = shape.tagged(str(step))
        elif shape.is_untagged_union and union != path:
            union, label = path, str(step)
        else:
            around, path, shape = shape, (*path, step), shape.child(step)
    about_key = error["type"] in ("extra_forbidden", "missing")
    context = dict(error.get("ctx", {}))
    return _Finding(error["type"], context, model, root, path, around if about_key else shape, union, label, of_key)


def _problems(findings: Sequence[_Finding]) -> list[Problem]:
    """Findings as problems, without those that only follow from others."""
    kept: list[_Finding] = []
    unions: dict[FieldPath, list[_Finding]] = {}
    for finding in findings:
        (kept if finding.union is None else unions.setdefault(finding.union, [])).append(finding)
    for of_union in unions.values():
        kept += _of_likely_branch(of_union)
    left = len(kept) - MOST
    kept = kept[:MOST]
    misspelt = {
        (finding.path[:-1], nearest(str(finding.path[-1]), finding.shape.keys or ()))
        for finding in kept
        if finding.kind == "extra_forbidden"
    }
    problems = [
        finding.problem()
        for finding in kept
        if not (finding.kind == "missing" and (finding.path[:-1], str(finding.path[-1])) in misspelt)
    ]
    if left > 0:
        problems.append(kept[-1].root.at.problem((), f"and {counted(left, 'more problem')}"))
    return list(dict.fromkeys(problems))


def _of_likely_branch(findings: Sequence[_Finding]) -> list[_Finding]:
    """Of a union's branches the one that got furthest: it is the one that was meant."""
    union = findings[0].union or ()
    furthest = max(findings, key=lambda finding: (len(finding.path), finding.kind not in TYPES))
    if len(furthest.path) == len(union) and furthest.kind in TYPES:
        expected = " or ".join(dict.fromkeys(TYPES[finding.kind] for finding in findings if finding.kind in TYPES))
        found = describe(furthest.root.find(furthest.path))
        error = ValueError(f"expected {expected}, got {found}")
        return [replace(furthest, kind="value_error", context={"error": error})]
    return [finding for finding in findings if finding.label == furthest.label]


def _as_written(root: Node, findings: Iterable[_Finding]) -> Node:
    """The tree with the text as it was written at every place where text is expected."""
    nodes = {finding.path: root.find(finding.path) for finding in findings}
    texts = {
        path: replace(node, value=node.text)
        for path, node in nodes.items()
        if node is not None and isinstance(node.value, int | float) and node.text is not None
    }
    return root.put(texts) if texts else root
