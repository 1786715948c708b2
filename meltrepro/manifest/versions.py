"""Releases as an axis: a list of them becomes an entry of `frameworks` for each, before anything else looks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from meltrepro.errors import Problem
from meltrepro.manifest.yaml.tree import FieldPath, Node, branch

_RANGE = re.compile(r"(\S*?)(\d{1,6})\s*\.\.\s*(\S*?)(\d{1,6})")
_MOST = 200


def by_release(tree: Node, problems: list[Problem]) -> Node:
    """The same tree, in which `new` with `releases: [0.3.20 .. 0.3.22]` is `new-0.3.20`, `new-0.3.21`, `new-0.3.22`, in its place.

    Each of them is optional: what is not there or cannot be built leaves out its own cells.
    """
    section = tree.child("frameworks")
    if section is None or not isinstance(section.value, dict):
        return tree
    found: dict[str, Node] = {}
    for name, node in section.value.items():
        releases = node.child("releases")
        if releases is None:
            found[name] = node
            continue
        for each, one in _each(name, node, releases, problems):
            if each in found or (each in section.value and each != name):
                problems.append(releases.where.problem(("frameworks", name, "releases"), f"{each!r} is named twice"))
            found[each] = one
    return tree if found == section.value else tree.put({("frameworks",): branch(found, section)})


def _each(name: str, node: Node, releases: Node, problems: list[Problem]) -> Iterator[tuple[str, Node]]:
    at: FieldPath = ("frameworks", name, "releases")
    usual = node.without("releases")
    if node.child("release") is not None or node.child("source") is not None:
        problems.append(releases.where.problem(at, "expected exactly one of the keys release, releases, source"))
    listed = releases.value if isinstance(releases.value, list) else [releases]
    if not listed:
        problems.append(releases.where.problem(at, "expected a release or a list of them; the list is empty"))
    seen: set[str] = set()
    for i, item in enumerate(listed):
        written = item.text or item.value
        versions = list(_versions(written)) if isinstance(written, str) else []
        if not versions or len(versions) > _MOST:
            message = f"expected a release, or a range of at most {_MOST}, such as 0.3.20 .. 0.3.36"
            problems.append(item.where.problem((*at, i), message))
        for version in versions:
            if version in seen:
                problems.append(item.where.problem((*at, i), f"{version} is named twice"))
                continue
            seen.add(version)
            changed: dict[FieldPath, Node] = {
                ("release",): Node(version, item.at, releases.key_at, version),
                ("kind",): node.child("kind") or Node(name, item.at, releases.key_at, name),
                ("optional",): node.child("optional") or Node(True, item.at, releases.key_at),
            }
            yield f"{name}-{version}", usual.put(changed)
    if not seen:  # else everything that names it would be wrong as well
        yield name, replace(usual.put({("release",): Node("", releases.at, releases.key_at, "")}))


def _versions(written: str) -> Iterator[str]:
    """What an item of the list stands for: itself, or all numbers from the last one of one name to that of another."""
    ends = _RANGE.fullmatch(written.strip())
    if ends is None:
        if ".." not in written and written.strip():
            yield written.strip()
        return
    before, first, before_too, last = ends.groups()
    if before == before_too:
        yield from (f"{before}{number}" for number in range(int(first), min(int(last), int(first) + _MOST) + 1))
