"""Workloads of several lengths: a list of numbers becomes a workload for each of them, before anything else looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from meltrepro.errors import Problem
from meltrepro.manifest.accuracy import CONVERSATIONS, TEXT, workload_kind
from meltrepro.manifest.yaml.tree import FieldPath, Node, branch

_AXES: Mapping[str, Mapping[str, str]] = {
    TEXT: {"context": ""},
    CONVERSATIONS: {"depth": "depth", "hit_rate": "hit", "sequences": "seq"},
}
"""By kind of workload the keys that may be lists, with what names have before the number."""


def by_length(tree: Node, problems: list[Problem]) -> Node:
    """The same tree, in which `text` with `context: [256, 1024]` is `text-256` and `text-1024`, in its place."""
    section = tree.child("workloads")
    if section is None or not isinstance(section.value, dict):
        return tree
    found: dict[str, Node] = {}
    for name, node in section.value.items():
        for each, one in _every(name, node, problems).items():
            if each in found or (each != name and each in section.value):
                keys = [key for key in _AXES[workload_kind(node.plain())] if _is_list(node, key)]
                message = f"a workload is called {each!r} already, as one of this list is to be"
                problems.append(node.nearest((keys[0],)).where.problem(("workloads", name, keys[0]), message))
            else:
                found[each] = one
    return tree if found == section.value else tree.put({("workloads",): branch(found, section)})


def _every(name: str, node: Node, problems: list[Problem]) -> dict[str, Node]:
    found = {name: node}
    for key, prefix in _AXES.get(workload_kind(node.plain()), {}).items():
        found = {
            each: one
            for before, whole in found.items()
            for each, one in _each(before, whole, ("workloads", name, key), prefix, problems).items()
        }
    return found


def _each(name: str, node: Node, at: FieldPath, prefix: str, problems: list[Problem]) -> dict[str, Node]:
    key = str(at[-1])
    values = node.child(key)
    if values is None or not _is_list(node, key):
        return {name: node}
    assert isinstance(values.value, list)
    expected = "a number" if key == "hit_rate" else "a whole number"
    if not values.value:
        problems.append(values.where.problem(at, f"expected {expected} or a list of them; the list is empty"))
    found: dict[str, Node] = {}
    for i, one in enumerate(values.value):
        path: FieldPath = (*at, i)
        kinds = (int, float) if key == "hit_rate" else int
        if not isinstance(one.value, kinds) or isinstance(one.value, bool):
            problems.append(one.where.problem(path, f"expected {expected}"))
        elif (named := f"{name}-{prefix}{one.value}") in found:
            problems.append(one.where.problem(path, f"{one.value} is named twice"))
        else:
            found[named] = node.put({(key,): replace(one, key_at=values.key_at)})
    return found or {name: node.without(key)}


def _is_list(node: Node, key: str) -> bool:
    values = node.child(key)
    return values is not None and isinstance(values.value, list)
