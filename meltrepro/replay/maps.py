"""Which cells of a campaign stand for which of another, or of the same one, where names differ: `--map before=after`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace

from meltrepro.errors import UsageError
from meltrepro.manifest.axes import MARK
from meltrepro.manifest.yaml.suggest import suggest
from meltrepro.record.ids import CellId

_EXAMPLE = "for example --map old=new, or of an option --map kv_type=f16:kv_type=q8_0"


def mapped(maps: Sequence[str], first: Iterable[str], second: Iterable[str]) -> Mapping[str, str]:
    """By id of a cell of the first the id of that of the second, each map renaming one part of it.

    A part is a model, a quantization, a framework, an option of it (`kv_type=f16`), a target or a workload. Cells that no map
    renames, or whose counterpart is missing, are left out. Raises `UsageError` where a map names nothing.
    """
    there = set(second)
    renames = [_parsed(each) for each in maps]
    ids = [CellId.parse(each) for each in first]
    for before, after in renames:
        for name, known in ((before, ids), (after, map(CellId.parse, there))):
            parts = {part for each in known for part in _parts(each)}
            if name not in parts:
                raise UsageError(f"--map: no cell has a part {name!r}", hint=suggest(name, parts) or _EXAMPLE)
    found = {}
    for each in ids:
        other = each
        for before, after in renames:
            other = _renamed(other, before, after)
        if other != each and str(other) in there:
            found[str(each)] = str(other)
    if not found:
        raise UsageError(f"--map {' --map '.join(maps)}: no cell has a counterpart", hint=_EXAMPLE)
    return found


def _parsed(text: str) -> tuple[str, str]:
    before, found, after = text.partition(":" if ":" in text else "=")
    if not (before and found and after):
        raise UsageError(f"--map: expected BEFORE=AFTER, got {text!r}", hint=_EXAMPLE)
    return before, after


def _parts(cell: CellId) -> list[str]:
    return [part for value in vars(cell).values() for part in (value, *value.split(MARK))]


def _renamed(cell: CellId, before: str, after: str) -> CellId:
    changes = {}
    for field in fields(cell):
        value = getattr(cell, field.name)
        pieces = [after if piece == before else piece for piece in value.split(MARK)]
        changes[field.name] = after if value == before else MARK.join(pieces)
    return replace(cell, **changes)
