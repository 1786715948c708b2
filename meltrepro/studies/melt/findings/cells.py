"""Which cells of a table can be set beside each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from meltrepro.frameworks.base import AS_IS
from meltrepro.report.results import CellResult
from meltrepro.words import counted, plural

SPEED, PREFILL, ENERGY = "generation_tps", "prefill_tps", "energy_per_token_j"
PHONES = frozenset({"android", "ios"})
BOARDS = frozenset({"jetson"})
SEVEN_BILLION = 6.5e9
"""Parameters from which on a model counts as one of 7 billion."""
FULL_BITS, _NEARLY_FULL = 16.0, 15.0
"""Bits of a weight that is not quantized, and from which on a whole file counts so."""
_BITS = re.compile(r"i?q(\d)")
_FULL = re.compile(r"(?:b?f|q0f)(16|32)")
_QUANTIZED_FILE = re.compile(r"[-._](i?q\d[a-z0-9_]*)\.gguf$", re.IGNORECASE)
_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")


def measured(cells: Iterable[CellResult], *metrics: str) -> list[CellResult]:
    """The cells that have all of these metrics and are believed; of repeated ones the last."""
    return latest(cell for cell in cells if cell.state == "measured" and all(name in cell.metrics for name in metrics))


def latest(cells: Iterable[CellResult]) -> list[CellResult]:
    """Of cells that were run several times, in several campaigns, the last."""
    found: dict[Hashable, CellResult] = {}
    for cell in cells:
        key = (stack(cell), cell.model, cell.quantization, cell.workload)
        found.pop(key, None)
        found[key] = cell
    return list(found.values())


def device(cell: CellResult) -> Hashable:
    """What tells devices apart, whatever manifests call them."""
    return cell.device.id or (cell.device.kind, cell.device.name, cell.device.model)


def stack(cell: CellResult) -> Hashable:
    """Device, power mode, framework, release and whether a GPU was used: all that is not the model's."""
    return (device(cell), cell.device.power_mode, cell.framework, cell.release, cell.accelerated)


def grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> Mapping[_K, Sequence[_T]]:
    """Items by a key, in order."""
    found: dict[_K, list[_T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def same_bits(cell: CellResult) -> Hashable:
    """What cells share that run one model in as many bits on one device, whatever framework does it."""
    return (device(cell), cell.device.power_mode, cell.model, bits(cell.quantization), cell.workload)


def best_by_kind(
    cells: Iterable[CellResult], alike: Callable[[CellResult], Hashable], apart: Callable[[CellResult], _K]
) -> Sequence[tuple[Mapping[_K, float], Sequence[CellResult]]]:
    """Of each group of cells that are alike and of two kinds or more: the highest speed of each kind, and the cells."""
    found = []
    for group in grouped(measured(cells, SPEED), alike).values():
        best = {kind: max(median_of(cell, SPEED) for cell in same) for kind, same in grouped(group, apart).items()}
        if len(best) > 1:
            found.append((best, group))
    return found


def why_lacking(cells: Iterable[CellResult], *metrics: str) -> str:
    """Why cells lack any of these metrics, in the words of their records; empty where they have no words for it."""
    lacking = [cell for cell in cells if any(name not in cell.metrics for name in metrics)]
    said = Counter(next(filter(None, map(cell.unavailable.get, metrics)), "") for cell in lacking)
    del said[""]
    return quoted(said, len(lacking))


def why_unmeasured(cells: Iterable[CellResult]) -> str:
    """Why none of some cells was measured, as `invalid (noisy)`; empty where one was or there are none."""
    found = latest(cells)
    if any(cell.state == "measured" for cell in found):
        return ""
    return quoted(
        Counter(f"{cell.state} ({cell.cause or cell.reason or 'no reason given'})" for cell in found), len(found)
    )


def quoted(reasons: Counter[str], total: int, most: int = 3) -> str:
    """Reasons, the most frequent first, each with how many cells give it where not all do."""
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    shown = [reason if n == total else f"{reason} ({of(n, total, 'cell')})" for reason, n in ranked[:most]]
    more = [f"and {counted(len(ranked) - most, 'other reason')}"] if len(ranked) > most else []
    return "; ".join([*shown, *more])


def median_of(cell: CellResult, metric: str) -> float:
    """Median of a metric that the cell has."""
    return cell.metrics[metric].median


def models(cells: Iterable[CellResult]) -> set[str]:
    return {cell.model for cell in cells}


def bits(quantization: str) -> int | None:
    """Nominal bits of a weight by the name of a quantization: 4 for `q4_0`, 16 for `f16`; `None` where it tells none."""
    full = _FULL.fullmatch(quantization)
    if full is not None:
        return int(full[1])
    named = _BITS.match(quantization)
    return int(named[1]) if named is not None and named[1] != "0" else None


def scheme(quantization: str) -> str:
    """What a quantization's name says besides its bits: `_K` of `q4_K`."""
    return _BITS.sub("", quantization, count=1)


def requantized_from(cell: CellResult) -> str | None:
    """The quantization that the name of a model's source file tells, where that was quantized already."""
    return next((match[1] for name in cell.source if (match := _QUANTIZED_FILE.search(name))), None)


def unquantised(cell: CellResult) -> bool:
    """Whether the weights are as they were trained, or at least in 16 bits."""
    if cell.quantization == AS_IS:
        known: float | None = cell.bits_per_weight
        return requantized_from(cell) is None and (known is None or known >= _NEARLY_FULL)
    known = bits(cell.quantization)
    return known is not None and known >= FULL_BITS


def listed(names: Iterable[str], most: int = 4) -> str:
    """`a, b and 3 more`."""
    found = list(dict.fromkeys(names))
    shown = ", ".join(found[:most])
    return f"{shown} and {len(found) - most} more" if len(found) > most else shown


def of(count: int, total: int, what: str) -> str:
    """`2 of 3 cells`."""
    return f"{count} of {total} {plural(total, what)}"
