"""What every benchmark returns: rows of one table, which `make bench` keeps in docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROWS = "MELTREPRO_BENCHMARK_ROWS"
"""The file that rows go to as JSON, where this variable names one."""


@dataclass(frozen=True)
class Row:
    """A figure, beside that of something else where there is one, and whether it meets its goal."""

    what: str
    ours: str
    anchor: str = ""
    ratio: str = ""
    interval: str = ""
    """From the smallest to the largest of what is held against the goal: the ratio, where there is one."""
    goal: str = ""
    met: bool | None = None
    """`None` where there is no goal, or nothing could be measured."""


def figure(
    what: str, values: Sequence[float], unit: str, *, at_most: float | None = None, at_least: float | None = None
) -> Row:
    """A row of the median of some values, which are seconds, shares, ... as `unit` says."""
    middle = statistics.median(values)
    interval = _interval(values) if len(values) > 1 else ""
    return Row(what, f"{middle:.3g} {unit}", "", "", interval, *_judged(middle, unit, at_most, at_least))


def beside(
    what: str,
    ours: Sequence[float],
    anchor: str,
    theirs: Sequence[float],
    unit: str,
    *,
    at_least: float | None = None,
) -> Row:
    """A row of interleaved pairs. The ratio is that of speed, so that more is better, also where the unit is one of time."""
    pairs = [(b / a if unit == "s" else a / b) for a, b in zip(ours, theirs, strict=True)]
    ratio = statistics.median(pairs)
    return Row(
        what,
        f"{statistics.median(ours):.4g} {unit}",
        f"{anchor} {statistics.median(theirs):.4g} {unit}",
        f"{ratio:.3f}",
        _interval(pairs),
        *_judged(ratio, "", None, at_least),
    )


def finish(rows: Sequence[Row]) -> int:
    """Print the rows and hand them on; 1 where a goal is missed."""
    for row in rows:
        verdict = {True: "met", False: "MISSED", None: ""}[row.met]
        anchor = f"beside {row.anchor}, ratio {row.ratio}" if row.anchor else ""
        spread = f"({row.interval})" if row.interval else ""
        goal = f"goal {row.goal}: {verdict}" if row.goal else ""
        print(f"{row.what}: " + "  ".join(part for part in (row.ours, anchor, spread, goal) if part), flush=True)
    if path := os.environ.get(ROWS):
        command = " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]])
        Path(path).write_text(json.dumps([{**asdict(row), "command": command} for row in rows]))
    return int(any(row.met is False for row in rows))


def _interval(values: Sequence[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"


def _judged(value: float, unit: str, at_most: float | None, at_least: float | None) -> tuple[str, bool | None]:
    if at_most is not None:
        return f"at most {at_most:.3g} {unit}".strip(), value <= at_most
    if at_least is not None:
        return f"at least {at_least:.3g} {unit}".strip(), value >= at_least
    return "", None
