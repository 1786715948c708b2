"""Texts that are scored in windows of several lengths: a list of contexts becomes a workload for each, before anything else looks."""

from __future__ import annotations

from dataclasses import replace

from meltrepro.errors import Problem
from meltrepro.manifest.accuracy import TEXT, workload_kind
from meltrepro.manifest.yaml.tree import FieldPath, Node, branch


def by_context(tree: Node, problems: list[Problem]) -> Node:
    """The same tree, in which `text` with `context: [256, 1024]` is `text-256` and `text-1024`, in its place."""
    section = tree.child("workloads")
    if section is None or not isinstance(section.value, dict):
        return tree
    found: dict[str, Node] = {}
    for name, node in section.value.items():
        for each, one in _each(name, node, problems).items():
            if each in found or (each != name and each in section.value):
                message = f"a workload is called {each!r} already, as the one with this context is to be"
                problems.append(one.nearest(("context",)).where.problem(("workloads", name, "context"), message))
            else:
                found[each] = one
    return tree if found == section.value else tree.put({("workloads",): branch(found, section)})


def _each(name: str, node: Node, problems: list[Problem]) -> dict[str, Node]:
    contexts, at = node.child("context"), ("workloads", name, "context")
    if contexts is None or not isinstance(contexts.value, list) or workload_kind(node.plain()) != TEXT:
        return {name: node}
    if not contexts.value:
        problems.append(contexts.where.problem(at, "expected a whole number or a list of them; the list is empty"))
    found: dict[str, Node] = {}
    for i, one in enumerate(contexts.value):
        path: FieldPath = (*at, i)
        if not isinstance(one.value, int) or isinstance(one.value, bool):
            problems.append(one.where.problem(path, "expected a whole number"))
        elif f"{name}-{one.value}" in found:
            problems.append(one.where.problem(path, f"{one.value} is named twice"))
        else:
            found[f"{name}-{one.value}"] = node.put({("context",): replace(one, key_at=contexts.key_at)})
    return found or {name: node.without("context")}
