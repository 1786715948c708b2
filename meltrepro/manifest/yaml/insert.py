"""An entry written into somebody's YAML file: every line that is there stays as it is, comments too."""

from __future__ import annotations

from collections.abc import Sequence

from meltrepro.errors import Problem, UsageError
from meltrepro.manifest.yaml.positions import read_content
from meltrepro.manifest.yaml.tree import Node


def with_entry(content: bytes, label: str, section: str, name: str, lines: Sequence[str]) -> bytes:
    """The content of a file with one more entry in a section at its top, of these lines, behind those that are there.

    Raises `UsageError` where the entry is there, or the section is written in braces, and `ManifestError`'s problems as it too.
    """
    tree = _read(content, label)
    node = tree.child(section)
    entries = node.value if node is not None and isinstance(node.value, dict) else {}
    entry = [f"{name}:", *(f"  {line}" for line in lines)]
    if name in entries:
        at = entries[name].key_at or entries[name].at
        raise UsageError(f"{at.file}:{at.line}: there is a {section}.{name} already", hint="choose another name for it")
    text = content.decode("utf-8-sig").splitlines(keepends=True)
    end = "\r\n" if text and text[0].endswith("\r\n") else "\n"
    if text and not text[-1].endswith(("\n", "\r")):
        text[-1] += end
    first = min(((each.key_at or each.at) for each in entries.values()), key=lambda at: at.line, default=None)
    if node is None:
        place, indent, entry = len(text), "", [f"{section}:", *(f"  {line}" for line in entry)]
    elif first is not None and node.key_at is not None and first.line > node.key_at.line:
        place, indent = _behind(text, first.line, first.column), " " * (first.column - 1)
    elif node.value is None and node.key_at is not None:
        place, indent = node.key_at.line, "  "
    else:
        raise UsageError(
            f"{label}:{node.at.line}: {section} is written on one line",
            hint=f"write each entry on lines of its own, or add this one by hand: {name}: {{{', '.join(lines)}}}",
        )
    added = [f"{indent}{line}{end}" for line in entry]
    made = "".join([*text[:place], *added, *text[place:]]).encode()
    if content.startswith(b"\xef\xbb\xbf"):
        made = b"\xef\xbb\xbf" + made
    _require_kept(tree, _read(made, label), section, name)
    return made


def _behind(text: Sequence[str], line: int, column: int) -> int:
    """How many lines stand before the place behind the last entry of a block, of which an entry is at `line` and `column`.

    Comments and empty lines behind it belong to what comes next.
    """
    last = line
    for number, each in enumerate(text[line:], line + 1):
        bare = each.strip()
        if not bare or bare.startswith("#"):
            continue
        if len(each) - len(each.lstrip()) < column - 1:
            break
        last = number
    return last


def _read(content: bytes, label: str) -> Node:
    from meltrepro.errors import ManifestError

    problems: list[Problem] = []
    tree = read_content(content, label, problems)
    if tree is None or problems or not isinstance(tree.value, dict):
        raise ManifestError(problems or [Problem(label, 1, 1, "", "expected a mapping")])
    return tree


def _require_kept(before: Node, after: Node, section: str, name: str) -> None:
    """Raise `UsageError` unless one tree is the other with one more entry."""
    old, new = before.plain(), after.plain()
    entries = dict(new.get(section) or {})
    added = entries.pop(name, None)
    if added is None or {**new, section: entries} != {**old, section: old.get(section) or {}}:
        raise UsageError(
            f"{before.at.file}: the entry {section}.{name} cannot be added to a file that is laid out so",
            hint="add it by hand",
        )
